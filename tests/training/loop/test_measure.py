"""What a validation error is, its value by chance, and what is said where it tells nothing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.paired import PairedParts
from kornia_lift.training.modern.hardest import hardest_in_batch_loss, nearest_measure
from kornia_lift.training.modern.orientation import EquivariantOrientationStage
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage
from kornia_lift.training.paper.detector import DetectorOptions, OverlapDetectorStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from kornia_lift.training.stage import Measure, measure_of
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from tests.helpers.training import picture
from tests.training.loop.real_stages import patch_pairs, real_stage
from tests.training.loop.toy_stage import ToyStage

MEASURE = Measure("pairs that are wrong", 0.9, 400)


def test_changes_are_told_from_chance_by_the_number_of_samples() -> None:
    assert MEASURE.is_change(0.5, 0.4) and not MEASURE.is_change(0.5, 0.46)
    assert not Measure("", 0.9, 20).is_change(0.5, 0.4)
    assert not MEASURE.is_change(0.0, 0.0) and MEASURE.is_change(0.0, 0.2)
    assert MEASURE.as_text() == "pairs that are wrong, of 400; by chance 0.900"
    assert MEASURE.beats_chance(0.86) and not MEASURE.beats_chance(0.88) and not MEASURE.beats_chance(0.95)


@pytest.mark.parametrize("samples", [100, 400, 2500])
@pytest.mark.parametrize("wrong", [0.1, 0.3, 0.5])
def test_the_limits_enclose_the_test_of_paired_samples(samples: int, wrong: float) -> None:
    """Whatever number of samples changed: what is called a change is one by McNemar's test, what is not may not be."""
    measure = Measure("", 0.9, samples)
    for net in range(1, int(wrong * samples) + 1):
        errors = wrong, wrong - net / samples
        # of the pairs that changed, at least the net ones did, at most as many as in two independent sets
        independent = samples * (errors[0] * (1 - errors[1]) + errors[1] * (1 - errors[0]))
        paired = [net > 2 * math.sqrt(changed) for changed in (net, max(net, independent))]
        assert paired[1] <= measure.is_change(*errors) + (abs(net - 2 * math.sqrt(independent)) < 1)
        assert measure.may_be_change(*errors) == paired[0] or net == 4
        assert measure.may_be_change(*errors) or not measure.is_change(*errors)


@pytest.mark.parametrize(
    ("start", "error", "best", "remarks"),
    [
        (0.5, 0.5, 0, ["nothing learned"]),
        (
            0.5,
            0.47,
            10,
            ["from 0.5000 to 0.4700, a net change of about 12 of 400 held-out samples: little, and possibly"],
        ),
        (
            0.5,
            0.4925,
            10,
            ["validation set too small to tell: the error went from 0.5000 to 0.4925, a net change of about 3"],
        ),
        (0.5, 0.3, 10, []),
        (0.99, 0.9, 10, ["no better than chance"]),
        (0.91, 0.91, 0, ["nothing learned", "no better than chance"]),
    ],
)
def test_an_end_that_tells_nothing_is_called_so(start: float, error: float, best: int, remarks: list[str]) -> None:
    result = Result(10, "steps", error, start, best, {}, Path(), Path(), MEASURE)
    assert len(result.remarks) == len(remarks)
    assert all(part in said for part, said in zip(remarks, result.remarks, strict=True))


@pytest.mark.parametrize(("stopped", "step", "said"), [("time", 19, 1), ("time", 20, 0), ("steps", 19, 0)])
def test_a_stage_that_hardly_began_is_called_so(stopped: Literal["steps", "time"], step: int, said: int) -> None:
    result = Result(step, stopped, 0.3, 0.5, 10, {}, Path(), Path(), MEASURE, steps=1000)
    assert len(result.remarks) == said
    assert all(
        text.startswith("only 19 steps of 1000 in its minutes") and "--max-minutes" in text for text in result.remarks
    )


@pytest.mark.parametrize("name", ["modern", "modern_orientation", "crops"])
def test_the_error_is_the_mean_of_the_parts(name: str, tmp_path: Path) -> None:
    stage: Any
    if name == "crops":
        pixels = torch.from_numpy(picture(1, 200))
        crops = WarpedCrops([[pixels]], CropConfig(size=80, per_image=2, max_step=1.5))
        stage = RepeatableDetectorStage(LIFTResponse(False), crops, crops, num_images=1)
    else:
        stage = real_stage(name, tmp_path)
    error = stage.validate()["error"]
    assert len(stage.parts) >= 3 and sum(stage.parts) / len(stage.parts) == pytest.approx(error)
    assert stage.validate()["error"] == error  # of the same samples


def test_the_interval_is_that_of_paired_samples() -> None:
    """Samples that are hard before are hard after: the parts tell a change that independent samples would hide."""
    rng = np.random.default_rng(0)
    found = dict.fromkeys((0.0, 0.025), 0)
    for change in found:
        for _ in range(400):
            hard = rng.random((8, 256)) < 0.3
            before, after = (np.where(rng.random(hard.shape) < 0.05, ~hard, hard) for _ in range(2))
            after &= rng.random(hard.shape) >= change / 0.3
            paired = PairedParts()
            assert paired.interval(SimpleNamespace(parts=before.mean(1)), 0) == 0
            interval = paired.interval(SimpleNamespace(parts=after.mean(1)), 1)
            assert interval is not None
            found[change] += abs(after.mean() - before.mean()) > interval
    assert found[0.0] < 0.09 * 400  # 5 % and what 400 draws add
    assert found[0.025] > 0.7 * 400 and not Measure("", 1.0, 8 * 256).is_change(0.3, 0.275)


@pytest.mark.parametrize(("error", "said"), [(0.47, ["too small to tell"]), (0.44, [])])
def test_the_change_is_compared_with_its_interval(error: float, said: list[str]) -> None:
    result = Result(10, "steps", error, 0.5, 10, {}, Path(), Path(), MEASURE, interval=0.05)
    assert len(result.remarks) == len(said)
    assert all(
        "from 0.5000 to 0.4700, and these held-out samples leave an uncertainty of 0.0500" in s for s in result.remarks
    )


def test_no_interval_without_comparable_parts() -> None:
    paired = PairedParts()
    assert paired.interval(ToyStage(), 0) is None and paired.interval(SimpleNamespace(parts=[1.0] * 4), 1) is None
    assert paired.interval(SimpleNamespace(parts=[0.5, 0.4]), 0) is None  # too few
    paired.interval(SimpleNamespace(parts=[0.5] * 4), 0)
    assert paired.interval(SimpleNamespace(parts=[0.5] * 5), 1) is None
    assert paired.interval(SimpleNamespace(parts=[0.4, 0.5, 0.6, 0.3]), 1) == pytest.approx(
        3.182 * 0.1291 / 2, rel=1e-3
    )


def test_a_stage_without_a_measure_is_only_compared_with_its_start(tmp_path: Path) -> None:
    assert measure_of(ToyStage()) is None
    result = fit(ToyStage(), LoopConfig(steps=3), tmp_path, progress=False)
    assert result.measure is None and all("chance" not in said for said in result.remarks)


def test_the_measure_is_said_once_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Measured(ToyStage):
        measure = MEASURE

    config = LoopConfig(steps=2, validate_every=1)
    fit(Measured(), config, tmp_path)
    fit(Measured(), config, tmp_path)  # done already: nothing to explain
    said = capsys.readouterr().err
    assert said.count("toy: validation error: pairs that are wrong, of 400; by chance 0.900") == 1
    assert "\r" not in said  # lines, not a bar, where there is no terminal


def test_chance_of_nearest_neighbours() -> None:
    generator, wrong = torch.Generator().manual_seed(0), 0.0
    for _ in range(600):
        a, p = torch.nn.functional.normalize(torch.randn(2, 8, 6, generator=generator), dim=2)
        wrong += float((~hardest_in_batch_loss(a, p, torch.eye(8).bool())[1]).float().mean()) / 600
    assert wrong == pytest.approx(nearest_measure(2, 4, 100).chance, abs=0.02)


def test_chance_of_angles() -> None:
    class Random(LIFTOrientation):
        def forward(self, patch: Tensor) -> Tensor:
            return torch.rand(len(patch)) * 6.2832

    stage = EquivariantOrientationStage(Random(False), patch_pairs(), patch_pairs())
    assert stage.validate(batches=60)["error"] == pytest.approx(stage.measure.chance, abs=0.06)
    assert stage.measure.samples == 7


def test_chance_of_locations_and_scores(hard_sampler: QuadrupletSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = OverlapDetectorStage(
        LIFTResponse(False), hard_sampler, hard_sampler, DetectorOptions(validation_quadruplets=40)
    )

    def locate(batch: dict[str, Tensor]) -> Any:
        count = len(batch["patches"])
        return torch.rand(count, 4, 2) - 0.5, torch.rand(count, 4)

    monkeypatch.setattr(stage, "_locate", locate)
    errors = [stage.validate()["error"] for _ in range(20)]
    assert sum(errors) / len(errors) == pytest.approx(stage.measure.chance, abs=0.06)
