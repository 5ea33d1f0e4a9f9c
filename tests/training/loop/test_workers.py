"""Batches drawn by other processes: the same ones, errors with their origin, and nothing left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from kornia_lift.training.config import ConfigError, LoopConfig
from kornia_lift.training.loop import fit, workers
from kornia_lift.training.loop.batches import batches_from
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.loop.signals import TrainingInterrupted
from tests.training.loop.toy_stage import ToyStage

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs a system that can fork"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on one core
]
SHORT = LoopConfig(steps=40, validate_every=20, checkpoint_every=10, log_every=5, workers=2)


def batches(stage: ToyStage, config: LoopConfig, start: int = 0) -> list[dict[str, Tensor]]:
    with batches_from(stage, config, start) as drawn:
        return list(drawn)


def wait_for_no_children() -> None:
    for _ in range(6000):  # ten minutes, which only an error takes
        if not multiprocessing.active_children():
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {multiprocessing.active_children()}")


class Marked(ToyStage):
    """Its batches say which process drew them."""

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return super().batch(generator, step) | {"process": torch.tensor([os.getpid()] * self.size)}


def test_batches_are_those_of_one_process_in_their_order() -> None:
    several, one = batches(Marked(), SHORT, 7), batches(ToyStage(), replace(SHORT, workers=0), 7)
    assert len(several) == len(one) == 33
    for a, b in zip(several, one, strict=True):
        assert torch.equal(a["x"], b["x"]) and torch.equal(a["y"], b["y"])
    drawn_by = {int(batch["process"][0]) for batch in several}
    assert len(drawn_by) == 2 and os.getpid() not in drawn_by
    wait_for_no_children()


def test_a_run_with_workers_is_the_run_without_and_leaves_nothing(tmp_path: Path) -> None:
    fit(ToyStage(), replace(SHORT, workers=0), tmp_path / "one", progress=False)
    stage, before = ToyStage(), torch.random.get_rng_state()
    fit(stage, SHORT, tmp_path / "two", progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    one, two = (load_checkpoint(tmp_path / run / "last.pt")["network"] for run in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
    wait_for_no_children()


def test_an_error_of_a_worker_is_raised_with_its_origin(tmp_path: Path) -> None:
    class Fails(ToyStage):
        def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
            if step == 25:
                raise FileNotFoundError("no image 25")
            return super().batch(generator, step)

    with pytest.raises(FileNotFoundError, match="no image 25") as failed:
        fit(Fails(), SHORT, tmp_path, progress=False)
    assert "step 25" in failed.value.__notes__[0] and "Traceback" in failed.value.__notes__[0]
    wait_for_no_children()  # although the error is still held
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 20
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 40


def test_an_error_that_cannot_be_sent_is_described() -> None:
    class Stubborn(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"{first} and {second}")

    class Fails(ToyStage):
        def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
            raise Stubborn(1, 2)

    with pytest.raises(RuntimeError, match="Stubborn: 1 and 2"):
        batches(Fails(), SHORT)
    wait_for_no_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_and_ends_them(tmp_path: Path, number: signal.Signals) -> None:
    """As Ctrl-C in a terminal, which every process of the group receives."""

    class Signalled(Marked):
        def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
            self.seen = getattr(self, "seen", 0) + 1
            if self.seen == 15:
                for child in multiprocessing.active_children():
                    assert child.pid is not None
                    os.kill(child.pid, number)
                os.kill(os.getpid(), number)
            return super().loss(batch)

    with pytest.raises(TrainingInterrupted, match="saved; the same command goes on"):
        fit(Signalled(), SHORT, tmp_path / "halves", progress=False)
    wait_for_no_children()
    assert load_checkpoint(tmp_path / "halves" / "last.pt")["step"] == 15
    fit(ToyStage(), replace(SHORT, workers=1), tmp_path / "halves", progress=False)
    fit(ToyStage(), replace(SHORT, workers=0), tmp_path / "whole", progress=False)
    one, other = (load_checkpoint(tmp_path / d / "last.pt")["network"] for d in ("whole", "halves"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5)


def test_a_system_that_cannot_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ConfigError, match="can fork"):
        batches(ToyStage(), SHORT)


def test_the_number_of_workers_is_checked() -> None:
    with pytest.raises(ConfigError, match="workers must be at least 0"):
        LoopConfig(workers=-1)
