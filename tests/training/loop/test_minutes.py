"""Training by the clock: minutes, what they pay for, and rates that end with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.loop import fit
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.loop.log import read_log
from kornia_lift.training.loop.optimization import learning_rate
from tests.training.loop.toy_stage import Stops, ToyStage


class Clock:
    """Says that every step takes a second: each drawn batch moves it on; a validation as long as it is given."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def stage(self, validation: float = 0.0, **options: Any) -> ToyStage:
        stage = ToyStage(**options)
        draw, validate = stage.batch, stage.validate

        def batch(generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            self.now += 1
            return draw(generator, step)

        def slow() -> dict[str, float]:
            self.now += validation
            return validate()

        stage.batch, stage.validate = batch, slow  # type: ignore[method-assign]
        return stage


def test_max_minutes_stops_after_saving_and_can_be_raised(tmp_path: Path) -> None:
    clock = Clock()
    result = fit(clock.stage(), LoopConfig(steps=10**6, max_minutes=1), tmp_path, progress=False, clock=clock)
    assert (result.stopped, result.step) == ("time", 61)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 61
    more = fit(clock.stage(), LoopConfig(steps=10**6, max_minutes=1.5), tmp_path, progress=False, clock=clock)
    assert (more.stopped, more.step) == ("time", 91)


def test_a_time_budget_is_validated_every_tenth(tmp_path: Path) -> None:
    clock = Clock()
    config = LoopConfig(steps=10**6, max_minutes=1, validate_every=10**6)
    fit(clock.stage(), config, tmp_path, progress=False, clock=clock)
    steps = [e["step"] for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "validation"]
    assert steps == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 61]


def test_validations_take_a_quarter_of_a_time_budget_at_most(tmp_path: Path) -> None:
    clock = Clock()
    stage = clock.stage(validation=5)
    config = LoopConfig(steps=10**6, max_minutes=1, validate_every=10**6)
    result = fit(stage, config, tmp_path, progress=False, clock=clock)
    steps = [e["step"] for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "validation"]
    # after 24, 42 and 60 of 60 seconds, and the last step; every tenth of them there were two steps between them
    assert steps == [0, 24, 37, 50, 51] and result.step == 51


def test_the_validation_before_the_first_step_takes_nothing_of_the_minutes(tmp_path: Path) -> None:
    clock = Clock()
    stage = clock.stage(validation=100)
    config = LoopConfig(steps=10**6, max_minutes=1, validate_every=10**6, log_every=1)
    result = fit(stage, config, tmp_path, progress=False, clock=clock)
    # nor is there another one before the last step: it would use up what the steps need
    assert (result.stopped, result.step) == ("time", 61)
    first = next(e for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "train")
    assert first["samples_per_s"] == pytest.approx(stage.size)


def test_the_clock_saves_where_the_steps_do_not(tmp_path: Path) -> None:
    clock = Clock()
    stage = clock.stage()
    draw = stage.batch

    def batch(generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
        if step == 250:
            raise RuntimeError("the machine is gone")
        return draw(generator, step)

    stage.batch = batch  # type: ignore[method-assign]
    config = LoopConfig(steps=1000, checkpoint_every=1000, checkpoint_minutes=2, validate_every=1000)
    with pytest.raises(RuntimeError, match="gone"):
        fit(stage, config, tmp_path, progress=False, clock=clock)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 240


def test_decaying_rate_ends_with_the_minutes(tmp_path: Path) -> None:
    clock = Clock()
    config = LoopConfig(steps=10**6, schedule="cosine", learning_rate=1e-3, max_minutes=2, log_every=1)
    fit(clock.stage(), config, tmp_path, progress=False, clock=clock)
    rates = [
        r["lr"] for r in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()) if r["kind"] == "train"
    ]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-6


def test_a_warm_up_ends_with_a_tenth_of_the_minutes() -> None:
    config = LoopConfig(steps=2000, warmup_steps=50, schedule="linear", learning_rate=1.0, max_minutes=0.5)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.02)
    assert learning_rate(config, 4, 1.5) == pytest.approx(0.5)
    assert learning_rate(config, 10, 15.0) == pytest.approx(0.5)
    assert learning_rate(config, 40, 0.95 * 30) == pytest.approx(0.05)
    assert learning_rate(config, 50, 30.0) == 0.0
    constant = LoopConfig(steps=2000, warmup_steps=50, learning_rate=1.0, max_minutes=0.5)
    assert learning_rate(constant, 3, 4.0) == 1.0


def test_more_minutes_for_a_decaying_rate_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for schedule in ("constant", "cosine"):
        clock = Clock()
        config = LoopConfig(steps=10**6, schedule=schedule, max_minutes=0.3)  # type: ignore[arg-type]
        fit(clock.stage(), config, tmp_path / schedule, progress=False, clock=clock)
        again = fit(clock.stage(), config, tmp_path / schedule, progress=False, clock=clock)
        assert again.stopped == "time"
        assert not caplog.messages
        with pytest.raises(KeyboardInterrupt):
            fit(Stops(), replace(config, max_minutes=1000), tmp_path / schedule, progress=False)
    assert len(caplog.messages) == 1
    said = "continues with max_minutes 1000 instead of 0.3: its decaying rate changes from 0 to 0.001"
    assert said in caplog.messages[0]
