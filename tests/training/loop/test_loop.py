"""The loop learns, logs, stops, and goes on after being killed as if nothing had happened."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from kornia_lift.training.config import ConfigError, LoopConfig
from kornia_lift.training.loop import TrainingDivergedError, fit
from kornia_lift.training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kornia_lift.training.loop.log import read_log
from kornia_lift.training.loop.optimization import learning_rate
from kornia_lift.training.loop.signals import StopRequest, TrainingInterrupted
from tests.io.killed import kill_while_writing
from tests.training.loop.toy_stage import SHORT, Stops, ToyStage, trace

SCRIPT = Path(__file__).with_name("toy_stage.py")


def test_a_stage_overfits_and_the_network_keeps_the_best_weights(tmp_path: Path) -> None:
    stage = ToyStage(dropout=0.0)
    result = fit(stage, SHORT.__class__(steps=300, learning_rate=0.02, validate_every=50), tmp_path, progress=False)
    first = next(e for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "validation")
    assert result.step == 300
    assert result.stopped == "steps"
    assert result.error < 0.05 * first["error"]
    stage.network.eval()
    assert stage.validate()["error"] == pytest.approx(result.error)


def test_the_log_has_loss_rate_and_speed(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    entry = read_log(tmp_path / "log.jsonl")[-1]
    train = [e for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "train"]
    assert entry["kind"] == "validation"
    assert [e["step"] for e in train] == list(range(1, 61))
    assert {"loss", "twice", "grad_norm", "lr", "samples_per_s"} <= train[0].keys()
    assert train[0]["twice"] == pytest.approx(2 * train[0]["loss"])


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9, "optimizer": "sgd"}, {"prefetch": True}])
def test_stopping_and_going_on_changes_nothing(tmp_path: Path, options: dict[str, object]) -> None:
    config = LoopConfig(**{**SHORT.__dict__, **options})
    whole, halves = ToyStage(), ToyStage()
    fit(whole, config, tmp_path / "whole", progress=False)

    class StopsAt25(ToyStage):
        def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            if step == 25:
                raise KeyboardInterrupt
            return super().batch(generator, step)

    with pytest.raises(KeyboardInterrupt):
        fit(StopsAt25(), config, tmp_path / "halves", progress=False)
    fit(halves, config, tmp_path / "halves", progress=False)
    assert trace(tmp_path / "halves") == pytest.approx(trace(tmp_path / "whole"), rel=1e-4)
    for a, b in zip(whole.network.parameters(), halves.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("prefetch", [False, True])
def test_a_signal_saves_and_the_resumed_run_is_the_undisturbed_one(
    tmp_path: Path, number: signal.Signals, prefetch: bool
) -> None:
    """At a step without any checkpoint of its own, also while a batch is drawn in another thread."""
    config = replace(SHORT, checkpoint_every=1000, prefetch=prefetch)
    fit(ToyStage(), config, tmp_path / "whole", progress=False)

    class Signalled(ToyStage):
        def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            if step == 25:
                signal.raise_signal(number)
            return super().batch(generator, step)

    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match="saved; the same command goes on") as stopped:
        fit(Signalled(), config, tmp_path / "halves", progress=False)
    assert stopped.value.number == number and signal.getsignal(number) is before
    step = load_checkpoint(tmp_path / "halves" / "last.pt")["step"]
    assert step in (24, 25, 26)
    fit(ToyStage(), config, tmp_path / "halves", progress=False)
    assert trace(tmp_path / "halves") == pytest.approx(trace(tmp_path / "whole"), rel=1e-4)
    one, other = (load_checkpoint(tmp_path / d / "last.pt")["network"] for d in ("whole", "halves"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5)


def test_the_last_weights_take_the_place_of_a_best_checkpoint_that_somebody_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Removing(ToyStage):
        def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            if step == SHORT.steps - 1:
                (tmp_path / "best.pt").unlink()
            return super().batch(generator, step)

    expected = fit(ToyStage(), replace(SHORT, validate_every=SHORT.steps), tmp_path / "whole", progress=False)
    assert expected.best_step == SHORT.steps
    for stage, removed in ((Removing(), "while it trains"), (ToyStage(), "afterwards")):
        if removed == "afterwards":
            (tmp_path / "best.pt").unlink()
        found = fit(stage, replace(SHORT, validate_every=SHORT.steps + 1), tmp_path, progress=False)
        assert found.best_step == SHORT.steps and found.start == expected.start, removed
        assert found.error == pytest.approx(expected.error, rel=1e-4)
        assert load_checkpoint(tmp_path / "best.pt")["best"] == load_checkpoint(tmp_path / "last.pt")["best"]
        best, last = (load_checkpoint(tmp_path / name)["network"] for name in ("best.pt", "last.pt"))
        for key, value in best.items():
            torch.testing.assert_close(value, last[key])
    assert sum("best.pt was removed" in record.message for record in caplog.records) == 1


def test_trained_weights_are_not_overwritten_where_the_last_checkpoint_is_lost(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    (tmp_path / "last.pt").unlink()
    step = load_checkpoint(tmp_path / "best.pt")["step"]
    with pytest.raises(
        CheckpointError, match=rf"no last\.pt, but a best\.pt of step {step}, .* copy best\.pt to last\.pt"
    ):
        fit(ToyStage(), SHORT, tmp_path, progress=False)
    (tmp_path / "last.pt").write_bytes((tmp_path / "best.pt").read_bytes())  # as the message says
    assert fit(ToyStage(), replace(SHORT, steps=80, ema_decay=0.9), tmp_path / "other", progress=False).step == 80
    with pytest.raises(CheckpointError, match="steps was 60, is 80"):
        fit(ToyStage(), replace(SHORT, steps=80), tmp_path, progress=False)
    result = fit(ToyStage(), SHORT, tmp_path, progress=False)
    assert result.step == SHORT.steps and math.isfinite(result.error)


def test_a_network_alone_is_gone_on_from(tmp_path: Path) -> None:
    config = replace(SHORT, steps=40, ema_decay=0.9, validate_every=10)
    fit(ToyStage(), config, tmp_path, progress=False)
    state = load_checkpoint(tmp_path / "last.pt")
    kept = {name: state[name] for name in ("stage", "best", "config", "resolved", "identity", "network")}
    save_checkpoint(tmp_path / "last.pt", {**kept, "step": 20})
    stage = ToyStage()
    assert fit(stage, config, tmp_path, progress=False).step == 40


def test_other_data_are_refused_and_other_options_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = {"resolved": {"margin": 1, "later": {"learning_rate": 1}}, "identity": {"scenes": ["a", "b"]}}
    fit(ToyStage(), SHORT, tmp_path, progress=False, **whole)
    with pytest.raises(CheckpointError, match=r"scenes was \['a', 'b'\], is \['c'\]"):
        fit(ToyStage(), SHORT, tmp_path, progress=False, identity={"scenes": ["c"]})
    caplog.clear()
    other = {"margin": 2, "later": {"learning_rate": 3}}
    fit(ToyStage(), SHORT, tmp_path, progress=False, resolved=other, identity=whole["identity"])
    assert [r.message for r in caplog.records if "margin was 1, is 2" in r.message and "later" not in r.message]


def test_a_checkpoint_of_another_size_or_without_its_parts_is_named(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    other = ToyStage()
    other.network = nn.Linear(3, 5)
    with pytest.raises(CheckpointError, match="another form .* choose another folder"):
        fit(other, SHORT, tmp_path, progress=False)
    save_checkpoint(tmp_path / "last.pt", {"step": 3})
    with pytest.raises(CheckpointError, match=r"lacks best, config, resolved, stage"):
        fit(ToyStage(), SHORT, tmp_path, progress=False)


def test_temporary_files_of_a_killed_training_are_removed(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "best.pt")
    fit(ToyStage(), replace(SHORT, steps=1), tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]


def test_a_second_signal_interrupts_at_once() -> None:
    request = StopRequest()
    request(signal.SIGTERM, None)
    assert request.number == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        request(signal.SIGINT, None)


def test_kill_9_at_any_moment_resumes_to_the_same_run(tmp_path: Path) -> None:
    config = {"steps": 60, "validate_every": 7, "checkpoint_every": 3, "log_every": 1}
    fit(ToyStage(), LoopConfig(**config), tmp_path / "whole", progress=False)
    command = [sys.executable, str(SCRIPT), "--config", json.dumps(config)]
    killed = tmp_path / "killed"
    for step in (8, 31):  # each process kills itself once it draws the batch of this step
        process = subprocess.run([*command, str(killed), "--kill-at", str(step)], check=False)
        assert process.returncode == -signal.SIGKILL
    fit(ToyStage(), LoopConfig(**config), killed, progress=False)
    assert trace(killed) == pytest.approx(trace(tmp_path / "whole"), rel=1e-4)
    one, other = (load_checkpoint(d / "last.pt") for d in (killed, tmp_path / "whole"))
    for key, value in one["network"].items():
        torch.testing.assert_close(value, other["network"][key], rtol=1e-4, atol=1e-5)
    assert one["best"]["step"] == other["best"]["step"]


def test_training_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    stage = ToyStage()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(stage, SHORT, tmp_path, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_the_average_takes_counters_as_they_are(tmp_path: Path) -> None:
    """A network with BatchNorm has an integer buffer, of which there is no moving average."""
    stage = ToyStage()
    stage.network = nn.Sequential(nn.BatchNorm1d(4), stage.network)
    result = fit(stage, LoopConfig(steps=12, ema_decay=0.9, validate_every=12), tmp_path, progress=False)
    assert int(load_checkpoint(result.last)["averaged"]["module.0.num_batches_tracked"]) == 12


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class BreaksAt33(ToyStage):
        def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            batch = super().batch(generator, step)
            return batch if step != 33 else {**batch, "y": batch["y"] * math.nan}

    with pytest.raises(TrainingDivergedError, match=r"toy, step 33: loss nan.*delete last\.pt and best\.pt in"):
        fit(BreaksAt33(), SHORT, tmp_path, progress=False)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 30
    assert all(v.isfinite().all() for v in state["network"].values())


def test_an_infinite_gradient_of_a_finite_loss_is_caught(tmp_path: Path) -> None:
    class Root(ToyStage):
        def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            return (self.network(batch["x"]) * 0).abs().sqrt().sum(), {}

    with pytest.raises(TrainingDivergedError, match=r"gradients that are not finite: 0\.weight"):
        fit(Root(), SHORT, tmp_path, progress=False)


def test_a_first_validation_without_a_number_is_not_the_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Blind(ToyStage):
        def __init__(self, *errors: float) -> None:
            super().__init__()
            self.errors = iter(errors)

        def validate(self) -> dict[str, float]:
            return {"error": next(self.errors)}

    config = LoopConfig(steps=4, validate_every=1, checkpoint_every=1)
    result = fit(Blind(math.nan, 0.5, math.nan, 0.3, math.inf), config, tmp_path / "a", progress=False)
    assert (result.error, result.best_step) == (0.3, 3)
    assert load_checkpoint(tmp_path / "a" / "best.pt")["step"] == 3
    assert sum("the validation error is nan" in m for m in caplog.messages) == 2
    with pytest.raises(TrainingDivergedError, match="no validation gave a finite error"):
        fit(Blind(*[math.nan] * 5), config, tmp_path / "b", progress=False)


def test_killed_before_its_second_checkpoint_a_run_keeps_its_first_validation(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Stops(), SHORT, tmp_path, progress=False)
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    lines = read_log(tmp_path / "log.jsonl")
    assert [e["step"] for e in lines if e["kind"] == "validation"] == [0, 20, 40, 60]
    fit(ToyStage(), SHORT, tmp_path, resume=False, progress=False)
    assert read_log(tmp_path / "log.jsonl")[0]["step"] == 0
    assert len(read_log(tmp_path / "log.jsonl")) == len(lines)


def test_the_result_is_that_of_the_returned_weights_after_a_kill(tmp_path: Path) -> None:
    """Killed between the best validation and the next checkpoint, and resumed with rarer validations."""

    class Scripted(ToyStage):
        def __init__(self, *errors: float | None) -> None:
            super().__init__()
            self.errors = iter(errors)

        def validate(self) -> dict[str, float]:
            error = next(self.errors)
            if error is None:
                raise KeyboardInterrupt
            return {"error": error}

    config = LoopConfig(steps=4, validate_every=1, checkpoint_every=4)
    with pytest.raises(KeyboardInterrupt):
        fit(Scripted(1.0, 0.5, None), config, tmp_path, progress=False)
    stage = Scripted(2.0)
    result = fit(stage, replace(config, validate_every=4), tmp_path, progress=False)
    best = load_checkpoint(tmp_path / "best.pt")
    assert (result.error, result.best_step, result.figures) == (0.5, 1, {"error": 0.5}) and best["step"] == 1
    assert all(torch.equal(value, best["network"][key]) for key, value in stage.network.state_dict().items())


def test_averaged_weights_are_validated_and_returned(tmp_path: Path) -> None:
    stage = ToyStage(dropout=0.0)
    config = LoopConfig(steps=40, validate_every=40, ema_decay=0.95, learning_rate=0.02)
    result = fit(stage, config, tmp_path, progress=False)
    last = load_checkpoint(tmp_path / "last.pt")
    averaged, raw = ToyStage(dropout=0.0), ToyStage(dropout=0.0)
    weights = {key.removeprefix("module."): value for key, value in last["averaged"].items() if "module." in key}
    averaged.network.load_state_dict(weights)
    raw.network.load_state_dict(last["network"])
    assert averaged.validate()["error"] == pytest.approx(result.error, rel=1e-6)
    assert raw.validate()["error"] != pytest.approx(result.error, rel=1e-3)


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_multiplies_in_bfloat16_only_where_that_is_fast(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    used = []

    class Watched(ToyStage):
        def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
            used.append(torch.is_autocast_enabled("cpu"))
            return super().loss(batch)

    for precision in ("bfloat16", "float32"):
        used.clear()
        config = LoopConfig(steps=2, precision=precision, learning_rate=0.02)  # type: ignore[arg-type]
        fit(Watched(), config, tmp_path / precision, progress=False)
        assert used and all(each == (fast and precision == "bfloat16") for each in used)


def test_bfloat16_trains_and_float16_needs_cuda(tmp_path: Path) -> None:
    stage = ToyStage(dropout=0.0)
    result = fit(stage, LoopConfig(steps=200, precision="bfloat16", learning_rate=0.02), tmp_path, progress=False)
    assert result.error < 0.1
    assert all(p.dtype == torch.float32 for p in stage.network.parameters())
    with pytest.raises(ConfigError, match="float16 needs CUDA"):
        fit(stage, LoopConfig(precision="float16"), tmp_path / "b", progress=False)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = LoopConfig(steps=110, warmup_steps=10, schedule="cosine", learning_rate=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 60) == pytest.approx(0.5)
    assert learning_rate(config, 110) == pytest.approx(0.0)
    line = LoopConfig(steps=110, warmup_steps=10, schedule="linear", learning_rate=1.0)
    assert learning_rate(line, 85) == pytest.approx(0.25)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    sgd = LoopConfig(steps=1, optimizer="sgd", momentum=0.0, learning_rate=1.0, clip_norm=1e-3)
    before, stage = ToyStage(), ToyStage()
    fit(stage, sgd, tmp_path, progress=False)
    stage.network.load_state_dict(load_checkpoint(tmp_path / "last.pt")["network"])
    pairs = zip(before.network.parameters(), stage.network.parameters(), strict=True)
    moved = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)


def test_resuming_with_other_options_names_them(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"learning_rate was 0\.02, is 0\.5"):
        fit(ToyStage(), LoopConfig(**{**SHORT.__dict__, "learning_rate": 0.5}), tmp_path, progress=False)
    other = ToyStage()
    other.name = "another"
    with pytest.raises(CheckpointError, match="of the stage 'toy', not of 'another'"):
        fit(other, SHORT, tmp_path, progress=False)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False)
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        fit(ToyStage(), SHORT, tmp_path, progress=False)
    assert fit(ToyStage(), SHORT, tmp_path, resume=False, progress=False).step == 60


def test_a_checkpoint_of_another_version_is_named(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="version 99, this package reads version 1"):
        fit(ToyStage(), SHORT, tmp_path, progress=False)


def test_a_checkpoint_records_the_resolved_configuration(tmp_path: Path) -> None:
    fit(ToyStage(), SHORT, tmp_path, progress=False, resolved={"recipe": "toy"})
    state = load_checkpoint(tmp_path / "best.pt")
    assert state["resolved"] == {"recipe": "toy"}
    assert state["config"]["learning_rate"] == 0.02


def test_tensorboard_files_are_written_where_asked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(ToyStage(), LoopConfig(steps=3, log_every=1, tensorboard=True), tmp_path, progress=False)
    assert [p.name for p in (tmp_path / "tensorboard").iterdir() if "tfevents" in p.name]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_learns_at_every_precision(tmp_path: Path, precision: Literal["float32", "bfloat16", "float16"]) -> None:
    stage = ToyStage(dropout=0.0, device="cuda")
    config = LoopConfig(steps=200, precision=precision, learning_rate=0.02, ema_decay=0.9, prefetch=True)
    assert fit(stage, config, tmp_path, progress=False).error < 0.1


def test_a_half_written_last_line_of_the_log_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\n{"step": 2, "lo')
    assert read_log(path) == [{"step": 1, "kind": "train"}]
    path.write_text('{"step": 1\n{"step": 2, "kind": "train"}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        read_log(path)
