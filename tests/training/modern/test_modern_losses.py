"""The modern recipe's losses and samplers against answers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kornia_lift.networks.contrast import LocalContrast
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.modern.hardest import hardest_in_batch_loss
from kornia_lift.training.modern.orientation import direction_loss
from kornia_lift.training.modern.pairs import PatchPairs, WarpConfig
from kornia_lift.training.modern.recipe import init_as_blob_detector
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage
from kornia_lift.training.modern.tracks import CONTEXT, STORED_SIZE, PatchTracks, join_tracks
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig, warp_grid
from kornia_lift.training.warped.maxima import (
    budget_threshold,
    expected_repeatability,
    keypoint_probability,
    local_maxima,
    repeated_maxima,
)
from tests.helpers.pictures import texture

STILL = WarpConfig(
    gain=1.0,
    gamma=1.0,
    offset=0.0,
    noise=0.0,
    blur=0.0,
    shadow=0.0,
    jpeg=0.0,
    angle=0.0,
    scale=1.0,
    shift=0.0,
    stretch=1.0,
)


def gamma_free(patch: Tensor) -> Tensor:
    """Undo what the illumination changes monotonically: compare patterns, not grey values."""
    flat = patch.flatten(1)
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)


def test_hardest_negative_is_taken_from_rows_and_columns() -> None:
    axes = torch.eye(3)
    loss, right = hardest_in_batch_loss(axes, axes, torch.eye(3, dtype=torch.bool), margin=1.0)
    # matching distance 0 (1e-3 by the root's floor), hardest negative sqrt(2): below the margin, no loss
    assert loss == 0 and right.all()
    positive = torch.stack([axes[1], axes[0], axes[2]])  # the first two exchanged
    loss, right = hardest_in_batch_loss(axes, positive, torch.eye(3, dtype=torch.bool), margin=1.0)
    assert loss == pytest.approx(2 * (1 + math.sqrt(2)) / 3, abs=2e-3)
    assert right.tolist() == [False, False, True]


def test_pairs_that_are_no_negatives_do_not_count() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    excluded = torch.ones(2, 2, dtype=torch.bool)
    assert hardest_in_batch_loss(same, same, excluded)[0] == 0
    assert hardest_in_batch_loss(same, same, torch.eye(2, dtype=torch.bool))[0] == pytest.approx(1.0, abs=1e-6)


def test_direction_loss_is_the_chord_and_ignores_lengths() -> None:
    angles = torch.tensor([0.0, math.pi / 2, math.pi])
    second = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [0.2]])
    loss, error = direction_loss(torch.tensor([[2.0, 0.0]]).expand(3, 2), second)
    assert torch.allclose(loss, torch.tensor([0.0, math.sqrt(2), 2.0]), atol=4e-3)
    assert torch.allclose(error, angles, atol=1e-3)


def test_probability_of_a_lone_peak_and_of_a_flat_map() -> None:
    score = torch.zeros(1, 1, 31, 31)
    score[0, 0, 15, 15] = 30.0
    inside = torch.ones_like(score)
    p = keypoint_probability(score, torch.tensor([0.0]), inside)
    assert p[0, 0, 15, 15] == pytest.approx(1.0, abs=1e-5)
    assert p[0, 0, 14, 15] < 1e-10
    # far from the peak: one of 81 equal pixels, and half above a threshold equal to the score
    assert p[0, 0, 5, 5] == pytest.approx(0.5 / 81, rel=1e-4)
    assert (keypoint_probability(score + 500, torch.tensor([500.0]), inside) - p).abs().max() < 1e-4


def test_expected_repeatability_of_perfect_near_and_lost_keypoints() -> None:
    size = 41
    p = torch.zeros(1, 1, size, size)
    p[0, 0, 20, 20] = 1.0
    visible = torch.ones_like(p)

    def shifted_by(dx: float) -> Tensor:
        grid = warp_grid(torch.eye(3)[None], size) + torch.tensor([dx, 0.0])
        return expected_repeatability(p, p, grid, visible, tolerance=0.7)

    assert shifted_by(0) == pytest.approx(1.0)
    assert shifted_by(1) == pytest.approx(math.exp(-0.5 / 0.49), rel=1e-4)
    assert shifted_by(2) == pytest.approx(math.exp(-2.0 / 0.49), rel=1e-4)
    assert shifted_by(10) == 0


def test_maxima_found_again_are_counted_one_to_one_and_at_sub_pixel_positions() -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")

    def peaks(*locations: tuple[float, float]) -> Tensor:
        return sum(torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in locations)[None, None]

    first, second = peaks((20.4, 20), (40, 40)), peaks((21, 20), (48, 40))
    everywhere = torch.ones_like(first)
    figures = repeated_maxima((first, second), [everywhere, everywhere], torch.eye(3)[None], num_images=1, budget=2)
    assert figures["repeated_1px"] == 0.5
    assert figures["error_px"] == pytest.approx(0.6, abs=0.05)
    # three maxima within a pixel of one: it serves a single one of them, however the others are scored
    crowd = torch.zeros(1, 1, 60, 60)
    crowd[0, 0, 20, [16, 20, 24]] = 1.0
    squeeze = torch.tensor([[[0.1, 0, 18.0], [0, 1, 0], [0, 0, 1]]])  # to 19.6, 20.0 and 20.4
    other = peaks((20, 20), (48, 48), (8, 48))
    figures = repeated_maxima((crowd, other), [everywhere, everywhere], squeeze, num_images=1, budget=3)
    assert figures["repeated_1px"] == pytest.approx(1 / 3)
    assert figures["error_px"] == pytest.approx(0.0, abs=1e-3)


def test_budget_threshold_is_the_score_of_the_last_chosen_maximum() -> None:
    score = torch.zeros(2, 1, 40, 40) - 1.0
    for value, (crop, row, col) in enumerate([(0, 5, 5), (0, 5, 30), (1, 20, 20), (1, 33, 7)], start=1):
        score[crop, 0, row, col] = value
    inside = torch.ones_like(score)
    assert budget_threshold(score, inside, num_images=1, budget=2).tolist() == [3, 3]  # over both crops of an image
    assert budget_threshold(score, inside, num_images=2, budget=1).tolist() == [2, 4]
    assert local_maxima(score)[score > 0].all()


def crops(seed: int = 0, **options: float) -> WarpedCrops:
    config = CropConfig(size=72, per_image=2, min_step=1.0, max_step=1.5, shift=3.0, **options)  # type: ignore[arg-type]
    image = (texture(160, 180)[0, 0] * 255).to(torch.uint8)
    return WarpedCrops([[image]], config, STILL)


@pytest.mark.parametrize("contrast", [None, LocalContrast("filter"), LocalContrast("gaussian")])
def test_gradient_through_few_windows_is_that_of_the_dense_network(contrast: LocalContrast | None) -> None:
    torch.manual_seed(0)
    network = LIFTResponse(False, contrast=contrast)
    init_as_blob_detector(network, strength=60.0)
    every = RepeatableDetectorStage(network, crops(), crops(), num_images=2, budget=(8, 8))
    batch = every.batch(torch.Generator().manual_seed(1), 0)
    every.pixels_per_crop = 72 * 72
    every.loss(batch)[0].backward()
    sparse = network.conv.weight.grad.clone()  # type: ignore[union-attr]
    network.zero_grad()
    images = torch.cat([batch["first"], batch["second"]])
    every.crop_loss(network.score_normalized(network.normalize(images)), batch)[0].backward()
    dense = network.conv.weight.grad
    assert dense is not None and dense.abs().max() > 0
    assert (sparse - dense).norm() < 1e-4 * dense.norm()


def test_detector_learns_to_repeat_itself() -> None:
    torch.manual_seed(0)
    network = LIFTResponse(False)
    init_as_blob_detector(network, strength=40.0)
    stage = RepeatableDetectorStage(network, crops(), crops(), num_images=2, budget=(8, 8))
    batch = stage.batch(torch.Generator().manual_seed(1), 0)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(15):
        loss, _ = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def tracks() -> PatchTracks:
    """Two images with three locations each, the first location of both seen twice."""
    size = STORED_SIZE
    pixels = (texture(size, size, batch=4)[:, 0] * 255).to(torch.uint8)
    pixels = pixels[[0, 1, 2, 0]]
    one = PatchTracks(
        pixels,
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([[10.0, 10, 2], [12, 10, 2], [80, 80, 2], [40, 40, 2]]),
    )
    return join_tracks([one, one])


def test_positives_are_other_views_and_neighbours_are_no_negatives() -> None:
    pairs = PatchPairs(tracks(), groups=2, per_group=3, warp=STILL)
    anchor, positive = pairs.draw(torch.Generator().manual_seed(0))
    assert len(anchor) == 6 and (pairs.tracks.track[anchor] == pairs.tracks.track[positive]).all()
    twice = pairs.track_count[pairs.tracks.track[anchor]] == 2
    assert (anchor != positive)[twice].all() and (anchor == positive)[~twice].all()
    near = pairs.ambiguous(torch.tensor([0, 1, 2]))
    # locations 0 and 1 are 2 px apart at sigma 2: one location; location 2 is far away
    assert near.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_patches_are_cut_clockwise() -> None:
    pairs = PatchPairs(tracks(), groups=2, per_group=3, warp=STILL)
    index = torch.tensor([0, 0])
    upright, rotated = pairs.cut(index, torch.tensor([0.0, math.pi / 2]), torch.Generator().manual_seed(0))
    # the patch's x axis points down in the image: its first row is the image's last column, read downwards
    expected = torch.rot90(upright, 1, (1, 2))
    score = (gamma_free(rotated[None]) * gamma_free(expected[None])).mean()
    wrong = (gamma_free(rotated[None]) * gamma_free(torch.rot90(upright, -1, (1, 2))[None])).mean()
    assert score > 0.97 and wrong < 0.7
    assert pytest.approx(STORED_SIZE / 64) == CONTEXT
