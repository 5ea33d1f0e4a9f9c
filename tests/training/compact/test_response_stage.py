"""The response stage of the compact recipe: its loss, and that it learns."""

from __future__ import annotations

import pytest
import torch

from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.response import stage as room
from kornia_lift.training.compact.response.levels import LevelGrid
from kornia_lift.training.compact.response.matches import KeypointMatcher
from kornia_lift.training.compact.response.stage import ScaleSpaceResponseStage
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.training.warped.maxima import keypoint_probability
from kornia_lift.training.warped.shapes import draw_shapes

pytest.importorskip("cv2")
SIZE, GRID = 96, LevelGrid(96, count=3)
STEPS = 20


def crops(seed: int = 0) -> WarpedCrops:
    config = CropConfig(per_image=1, size=SIZE, min_step=0.9, max_step=1.5, scale=1.4)
    return WarpedCrops([[image] for image in draw_shapes(3, seed)], config, Photometric(jpeg=0.0, shadow=0.0))


def response() -> LIFTResponse:
    return LIFTResponse("lift").requires_grad_(True).train()


def make_stage(**options: object) -> ScaleSpaceResponseStage:
    torch.manual_seed(0)
    given = {"images": 2, "budget": (8, 16), "grid": GRID} | options
    return ScaleSpaceResponseStage(response(), crops(), crops(1), **given)  # type: ignore[arg-type]


def learn(
    stage: ScaleSpaceResponseStage, batch: dict[str, torch.Tensor], rate: float, steps: int
) -> tuple[list[float], dict[str, float]]:
    """Losses of steps on one batch, and the figures of the last."""
    optimizer = torch.optim.Adam(stage.response.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss, figures = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.response.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, figures


def falls(losses: list[float]) -> bool:
    """Whether the loss has fallen by more than the keypoints that change from step to step move it."""
    return sum(losses[-10:]) / 10 < 0.95 * sum(losses[:5]) / 5  # .79 to .86 with one and two threads


def test_probabilities_do_not_depend_on_how_far_the_best_score_is() -> None:
    score, inside = torch.zeros(1, 1, 31, 31), torch.ones(1, 1, 31, 31)
    score[..., 10, 10], score[..., 20, 20] = 5.0, 3000.0  # the second used to leave nothing of the first
    p = keypoint_probability(score, torch.tensor([1.0]), inside, radius=3)
    assert p[0, 0, 10, 10] == pytest.approx(float(torch.tensor(4.0).sigmoid() * 0.7557), abs=0.01)
    assert p[0, 0, 20, 20] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("budget", [12, 30])
def test_the_gradient_gains_nothing_by_higher_or_larger_scores(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They change no keypoint; by a threshold that stayed where it is, more pixels would exceed it."""
    monkeypatch.setattr(room, "SCALE_WEIGHT", 0.0)
    stage = make_stage(precision_weight=0.0)
    batch = stage.batch(torch.Generator().manual_seed(0), 0) | {"budget": torch.full((2,), budget)}
    smooth = torch.nn.AvgPool2d(5, 1, 2)
    random = torch.Generator().manual_seed(1)
    scores = [smooth(torch.randn(4, 1, side, side, generator=random)).requires_grad_() for side in GRID.sides]
    loss, _ = stage.warped_loss(scores, batch)
    gradients = torch.autograd.grad(loss, scores)
    flat = torch.cat([g.flatten() for g in gradients])
    larger = sum((score.detach() * gradient).sum() for score, gradient in zip(scores, gradients, strict=True))
    assert flat.abs().sum() > 0.1
    assert abs(flat.sum()) < 1e-3 * flat.abs().sum()
    with torch.no_grad():
        size = torch.cat([score.flatten() for score in scores]).abs().mean()
    assert abs(larger) < 0.05 * size * flat.abs().sum()


@pytest.mark.parametrize("matched", [False, True])
def test_learns_on_one_batch_and_says_how_well_it_finds_keypoints_again(matched: bool) -> None:
    matcher = None
    if matched:
        torch.manual_seed(1)
        matcher = KeypointMatcher(
            PatchOrienter(PolarOrientation(False)), PatchDescriptor(CompactDescriptor(False)), GRID
        )
    stage = make_stage(matcher=matcher)
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    assert {len(value) for value in batch.values()} == {2}
    # what matches of random descriptors are worth changes from step to step: there is nothing to see in many of them
    losses, figures = learn(stage, batch, rate=1e-3, steps=3 if matched else STEPS)
    assert figures["distance_px"] >= 0
    assert ("mismatched" in figures) == matched
    if not matched:
        assert falls(losses)
    found = stage.validate(batches=2)
    assert found["error"] == pytest.approx(1 - found["repeated"])
    assert stage.network.training


def test_the_same_crop_twice_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage()
    stage.response.eval()
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    same = torch.eye(3).expand(2, 3, 3)
    batch |= {"second": batch["first"], "inside_second": batch["inside_first"], "to_first": same, "to_second": same}
    with torch.no_grad():
        _, figures = stage.loss(batch)
    assert figures["repeated"] == 1.0
    assert figures["error_px"] < 0.05


def test_a_budget_that_no_crop_can_fill_gives_a_finite_loss() -> None:
    stage = make_stage(budget=(50000, 50000))
    loss, _ = stage.loss(stage.batch(torch.Generator().manual_seed(0), 0))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.network.parameters())


@pytest.mark.parametrize(("per_image", "size"), [(2, SIZE), (1, 128)])
def test_expects_crops_of_the_size_of_the_levels_and_as_many_held_out_ones(per_image: int, size: int) -> None:
    images = [[image] for image in draw_shapes(1)]
    other = WarpedCrops(images, CropConfig(per_image=per_image, size=size))
    with pytest.raises(
        ValueError, match=f"1 crops of 96 pixels of each image, got per_image {per_image} and size {size}"
    ):
        ScaleSpaceResponseStage(response(), crops(), other, grid=GRID)


def test_crops_of_an_image_share_a_budget() -> None:
    images = [[image] for image in draw_shapes(2)]
    several = WarpedCrops(images, CropConfig(per_image=3, size=SIZE))
    stage = ScaleSpaceResponseStage(response(), several, several, images=2, budget=(4, 40), grid=GRID)
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    assert {len(value) for value in batch.values()} == {6}
    first, second = batch["budget"].view(2, 3)
    assert first.unique().numel() == second.unique().numel() == 1
    assert first[0] != second[0]
