"""Two processes learn the same as one, wait for nobody for ever, and say so when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store, save_store
from kornia_lift.training.loop import distributed, fit
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.loop.log import read_log
from tests.training.loop.real_stages import LOOP, STAGES, real_stage
from tests.training.loop.toy_stage import ToyStage

SCRIPT = Path(__file__).with_name("toy_stage.py")
REAL = Path(__file__).with_name("real_stages.py")
CONFIG = {"steps": 20, "validate_every": 10, "checkpoint_every": 5, "log_every": 1, "learning_rate": 0.02}


def torchrun(out: Path, *options: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    # gloo must not look up this host's name, which a container may not resolve
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONWARNINGS"] = "error::FutureWarning"
    return subprocess.run(
        [*command, str(out), *options],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("size", [pytest.param(8, marks=pytest.mark.slow), 7, pytest.param(1, marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one(tmp_path: Path, size: int) -> None:
    """8 samples split evenly, 7 do not, and of 1 the second process gets none."""
    stage = {"size": size, "dropout": 0.0}
    fit(ToyStage(size=size, dropout=0.0), LoopConfig(**CONFIG), tmp_path / "one", progress=False)
    done = torchrun(tmp_path / "two", "--config", json.dumps(CONFIG), "--stage", json.dumps(stage))
    assert done.returncode == 0, done.stderr
    one, two = (read_log(tmp_path / d / "log.jsonl") for d in ("one", "two"))
    assert [(e["step"], e["kind"]) for e in one] == [(e["step"], e["kind"]) for e in two]
    for a, b in zip(one, two, strict=True):
        key = "loss" if a["kind"] == "train" else "error"
        assert b[key] == pytest.approx(a[key], rel=1e-4)
    for key, value in load_checkpoint(tmp_path / "one" / "last.pt")["network"].items():
        other = load_checkpoint(tmp_path / "two" / "last.pt")["network"][key]
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def test_two_processes_mine_and_take_negatives_from_the_whole_batch(hard_store: Store, tmp_path: Path) -> None:
    """Every stage whose loss looks across samples: 7 anchors, 5 pairs, 3 of 9 quadruplets; none divides evenly."""
    save_store(tmp_path / "store.npz", hard_store)
    for name in STAGES:
        fit(real_stage(name, tmp_path / "store.npz"), LOOP, tmp_path / "one" / name, progress=False)
    done = torchrun(tmp_path / "two", str(tmp_path / "store.npz"), script=REAL)
    assert done.returncode == 0, done.stderr
    for name in STAGES:
        one, two = (read_log(tmp_path / d / name / "log.jsonl") for d in ("one", "two"))
        assert len(one) == len(two) == LOOP.steps + 2
        for a, b in zip(one, two, strict=True):
            for key in ("loss", "grad_norm") if a["kind"] == "train" else ("error",):
                assert b[key] == pytest.approx(a[key], rel=1e-3), (name, a["step"], key)


def test_a_batch_that_cannot_be_divided_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"first dimension is the sample everywhere, got .*'angle': \(2, 5\)"):
        distributed.local_part({"x": torch.zeros(5, 3), "angle": torch.zeros(2, 5)})


def test_a_dead_worker_ends_the_job_with_advice_and_a_usable_checkpoint(tmp_path: Path) -> None:
    options = ["--config", json.dumps(CONFIG), "--stage", json.dumps({"dropout": 0.0})]
    done = torchrun(tmp_path / "run", *options, "--die-at", "12")
    assert done.returncode != 0
    assert "WorkerLostError" in done.stderr
    assert "Start the same command again to go on from" in done.stderr
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 10
    # what two processes began, one can finish
    fit(ToyStage(dropout=0.0), LoopConfig(**CONFIG), tmp_path / "run", progress=False)
    fit(ToyStage(dropout=0.0), LoopConfig(**CONFIG), tmp_path / "one", progress=False)
    one, two = (load_checkpoint(tmp_path / d / "last.pt") for d in ("one", "run"))
    assert two["step"] == 20
    for key, value in one["network"].items():
        torch.testing.assert_close(value, two["network"][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_that_reports_a_lost_one_is_not_stopped_meanwhile(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun sends its signal within a tenth of a second, which may be before the error is printed."""
    monkeypatch.setenv("RANK", "0")
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *args, **named: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.suppress(distributed.WorkerLostError), distributed.process_group():
            assert signal.getsignal(signal.SIGTERM) is not before
            if lost:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pthread_sigmask(signal.SIG_BLOCK, [])  # the handler has run
        assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if lost else before)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_machine_need_not_see_the_checkpoint(tmp_path: Path) -> None:
    class StopsAt12(ToyStage):
        def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            if step == 12:
                raise KeyboardInterrupt
            return super().batch(generator, step)

    with pytest.raises(KeyboardInterrupt):
        fit(StopsAt12(dropout=0.0), LoopConfig(**CONFIG), tmp_path / "run" / "0", progress=False)
    done = torchrun(tmp_path / "run", "--own-folders", "--config", json.dumps(CONFIG), "--stage", '{"dropout": 0.0}')
    assert done.returncode == 0, done.stderr
    fit(ToyStage(dropout=0.0), LoopConfig(**CONFIG), tmp_path / "one", progress=False)
    one, two = (load_checkpoint(tmp_path / d / "last.pt")["network"] for d in ("one", "run/0"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
    assert not list((tmp_path / "run" / "1").iterdir())


def test_alone_nothing_is_split_or_joined() -> None:
    batch = {"x": torch.arange(5)}
    part, weight = distributed.local_part(batch)
    assert part is batch
    assert weight == 1.0
    assert distributed.from_first("value") == "value"
    with distributed.process_group():
        assert distributed.world_size() == 1


def test_an_error_of_the_stage_itself_is_not_taken_for_a_lost_worker() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), distributed.lost_worker_says("restart"):
        raise RuntimeError("shapes differ")
