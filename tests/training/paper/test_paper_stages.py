"""Every stage of the paper's recipe learns: it overfits a handful of locations, alone and one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kornia.feature import SIFTDescriptor

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store
from kornia_lift.training.loop import fit
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.loop.log import read_log
from kornia_lift.training.paper.descriptor import DescriptorOptions, PaperDescriptorStage
from kornia_lift.training.paper.detector import DetectorOptions, JointStage, OverlapDetectorStage, PaperDetectorStage
from kornia_lift.training.paper.orientation import OrientationOptions, PaperOrientationStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe
from kornia_lift.training.stage import Stage

GRAY = {"mean": 0.43, "std": 0.11}
FEW = DetectorOptions(quadruplets=8, mining_ratio=2, validation_quadruplets=40)


def descriptor() -> LIFTDescriptor:
    return LIFTDescriptor(False, normalize=False, **GRAY)


def errors(folder: Path) -> list[float]:
    return [e["error"] for e in read_log(folder / "log.jsonl") if e["kind"] == "validation"]


def detector_loss(recipe: PaperRecipe, checkpoint: Path, batches: int = 5) -> float:
    """Mean loss of the detector stage with the detector of a checkpoint, over the same training batches."""
    response = LIFTResponse(False)
    response.load_state_dict(load_checkpoint(checkpoint)["network"])
    stage = PaperDetectorStage(response, recipe.orientation, recipe.descriptor, recipe.train, recipe.train, FEW)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        return sum(float(stage.loss(stage.mine(stage.batch(draw, 10**6)))[0]) for _ in range(batches)) / batches


def short(steps: int, **more: object) -> LoopConfig:
    return LoopConfig(**({"steps": steps, "validate_every": 5, "log_every": 1, "clip_norm": 10.0} | more))


def test_all_stages_satisfy_the_protocol(sampler: QuadrupletSampler) -> None:
    both = (sampler, sampler)
    stages = [
        PaperDescriptorStage(descriptor(), *both),
        PaperOrientationStage(LIFTOrientation(False), descriptor(), *both),
        OverlapDetectorStage(LIFTResponse(False), *both),
        PaperDetectorStage(LIFTResponse(False), LIFTOrientation(False), descriptor(), *both),
        JointStage(LIFTResponse(False), LIFTOrientation(False), descriptor(), *both),
    ]
    assert all(isinstance(s, Stage) for s in stages)
    assert len({s.name for s in stages}) == len(stages)


class SameBatch:
    """A stage that always sees one batch: what has no error can learn it by heart."""

    def __init__(self, stage: Stage, seed: int = 1) -> None:
        self.name, self.network, self.loss = stage.name, stage.network, stage.loss
        self._batch = stage.batch(torch.Generator().manual_seed(seed), 0)

    def batch(self, generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
        return self._batch

    def validate(self) -> dict[str, float]:
        return {"error": float(self.loss(self._batch)[0])}


def overfit(stage: Stage, folder: Path, steps: int, rate: float) -> float:
    """Final over first loss."""
    torch.manual_seed(7)
    fit(SameBatch(stage), short(steps, learning_rate=rate, validate_every=10**6), folder, progress=False)
    losses = [e["loss"] for e in read_log(folder / "log.jsonl") if e["kind"] == "train"]
    return min(losses[-3:]) / losses[0]


@pytest.mark.slow
def test_the_descriptor_overfits(hard_sampler: QuadrupletSampler, tmp_path: Path) -> None:
    torch.manual_seed(1)
    stage = PaperDescriptorStage(descriptor(), hard_sampler, hard_sampler, DescriptorOptions(pairs=6))
    assert overfit(stage, tmp_path, 25, 1e-3) < 0.5


def test_mined_descriptor_batches_keep_the_hardest(sampler: QuadrupletSampler) -> None:
    options = DescriptorOptions(pairs=6, mining_every=10, mining_cap=4)
    stage = PaperDescriptorStage(descriptor(), sampler, sampler, options)
    source = torch.Generator().manual_seed(1)
    assert len(stage.batch(source, 9)["patches"]) == 6
    batch = stage.batch(source, 25)
    assert len(batch["patches"]) == 24
    d = torch.stack([stage.network(batch["patches"][:, i : i + 1]) for i in range(3)])
    positive, negative = (d[0] - d[1]).norm(dim=1), (4 - (d[0] - d[2]).norm(dim=1)).clamp(min=0)
    expected = positive.topk(6).values.mean() + negative.topk(6).values.mean()
    assert stage.loss(stage.mine(batch))[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_normalising_descriptor_is_refused(sampler: QuadrupletSampler) -> None:
    with pytest.raises(ValueError, match="normalize=False"):
        PaperDescriptorStage(LIFTDescriptor(False), sampler, sampler)


@pytest.mark.parametrize("kind", [pytest.param("lift", marks=pytest.mark.slow), "sift"])
def test_the_orientation_overfits_with_any_descriptor(sampler: QuadrupletSampler, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(3)
    frozen = descriptor() if kind == "lift" else SIFTDescriptor(41, rootsift=False)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    network = LIFTOrientation(False, **GRAY)
    stage = PaperOrientationStage(network, frozen, sampler, sampler, OrientationOptions(pairs=5))
    assert overfit(stage, tmp_path, 25, 5e-4) < {"lift": 0.85, "sift": 0.95}[kind]  # measured 0.73, 0.89
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())


def test_sifts_own_angles_agree_with_the_rotations(sampler: QuadrupletSampler) -> None:
    """What the orientation is compared with is right: with the true angles every pair is matched."""
    torch.manual_seed(3)
    options = OrientationOptions(validation_pairs=40)
    stage = PaperOrientationStage(LIFTOrientation(False, **GRAY), descriptor(), sampler, sampler, options)
    figures = stage.validate()
    assert figures["sift"] > 0.95
    assert figures["error"] == pytest.approx(1 - figures["nearest"])
    assert figures["within20"] < 0.5


def test_the_detector_overfits_by_overlap(sampler: QuadrupletSampler, tmp_path: Path) -> None:
    torch.manual_seed(4)
    options = DetectorOptions(quadruplets=5, mining_ratio=1)
    stage = OverlapDetectorStage(LIFTResponse(False, **GRAY), sampler, sampler, options)
    assert overfit(stage, tmp_path, 40, 3e-3) < 0.5


def test_overlap_is_perfect_where_the_detector_finds_the_truth(sampler: QuadrupletSampler) -> None:
    """Offsets of rotated patches are compared in one frame."""
    options = DetectorOptions(quadruplets=10, mining_ratio=1, full_circle=True)
    stage = OverlapDetectorStage(LIFTResponse(False), sampler, sampler, options)
    batch = stage.batch(torch.Generator().manual_seed(5), 0)
    assert (batch["xy"][:, 3] == 0).all()
    assert stage._overlap(batch, batch["xy"]).abs().max() < 1e-5
    off = batch["xy"].clone()
    off[:, 0, 0] += 0.5
    assert stage._overlap(batch, off).min() > 0.3


@pytest.mark.slow
def test_the_detector_overfits_through_the_frozen_rest(sampler: QuadrupletSampler, tmp_path: Path) -> None:
    torch.manual_seed(5)
    networks = LIFTResponse(False, **GRAY), LIFTOrientation(False, **GRAY), descriptor()
    options = DetectorOptions(quadruplets=4, mining_ratio=1)
    stage = PaperDetectorStage(*networks, sampler, sampler, options)
    assert overfit(stage, tmp_path, 25, 3e-3) < 0.9  # measured 0.80


def test_joint_tuning_moves_all_three_networks(sampler: QuadrupletSampler, tmp_path: Path) -> None:
    networks = LIFTResponse(False, **GRAY), LIFTOrientation(False, **GRAY), descriptor()
    stage = JointStage(*networks, sampler, sampler, DetectorOptions(quadruplets=4, mining_ratio=1))
    loss, _ = stage.loss(stage.batch(torch.Generator().manual_seed(1), 0))
    loss.backward()
    for network in networks:
        assert sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0


def test_the_whole_recipe_in_a_short_run(hard_store: Store, tmp_path: Path) -> None:
    """All stages after one another, each from the one before; the errors fall."""
    config = PaperConfig(
        dropout=0.0,
        descriptor=short(20),
        orientation=short(32, learning_rate=5e-4),
        overlap=short(25, learning_rate=8e-3),
        detector=short(18, learning_rate=4e-3, validate_every=9),
        descriptor_options=DescriptorOptions(pairs=10, validation_pairs=40),
        orientation_options=OrientationOptions(pairs=12, validation_pairs=40),
        detector_options=FEW,
    )
    recipe = PaperRecipe(hard_store, tmp_path, config, validation=hard_store)
    results = recipe.run(progress=False)
    assert list(results) == ["descriptor", "orientation", "overlap", "detector"]
    limits = {"descriptor": 0.4, "orientation": 0.85, "overlap": 0.9}  # measured 0.26, 0.75, 0.86
    for name, limit in limits.items():
        assert results[name].error < limit * errors(tmp_path / name)[0], name
    # the losses of single steps hide the fall: every batch has other locations
    before, after = tmp_path / "overlap" / "best.pt", tmp_path / "detector" / "last.pt"
    assert detector_loss(recipe, after) < detector_loss(recipe, before)  # measured 4.34, 4.65
    pytest.importorskip("safetensors")
    recipe.save(tmp_path / "mine.safetensors", {"recipe": "paper"})
    for network in (LIFTResponse, LIFTOrientation, LIFTDescriptor):
        network(tmp_path / "mine.safetensors")
    # a second run of the same folder has nothing left to do and holds the same weights
    again = PaperRecipe(hard_store, tmp_path, config, validation=hard_store)
    again.run(["detector"], progress=False)
    for one, other in ((recipe.descriptor, again.descriptor), (recipe.response, again.response)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_weights_put_into_a_network_are_given(hard_store: Store, tmp_path: Path) -> None:
    """A stage trains through what the caller has loaded, and does not read it from the folder."""
    config = PaperConfig(detector=short(1), detector_options=FEW)
    recipe = PaperRecipe(hard_store, tmp_path, config, validation=hard_store)
    before = {k: v.clone() for k, v in recipe.descriptor.state_dict().items()}
    with pytest.raises(ValueError, match=r"'detector' learns through the network that the stage 'orientation'"):
        recipe.run(["detector"], given=["descriptor"])
    results = recipe.run(["detector"], given=["descriptor", "orientation"], progress=False)
    assert list(results) == ["detector"]
    assert all(torch.equal(v, before[k]) for k, v in recipe.descriptor.state_dict().items())


def test_an_unknown_stage_is_named(tiny_store: Store, tmp_path: Path) -> None:
    recipe = PaperRecipe(tiny_store, tmp_path, validation=tiny_store)
    with pytest.raises(ValueError, match=r"unknown stages describer; the stages are descriptor, .*joint"):
        recipe.run(["describer"])
