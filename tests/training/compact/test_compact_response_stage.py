"""The response stage of the compact recipe: its loss, its start, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kornia_lift.networks.compact_response import CompactResponse
from kornia_lift.training.compact import response as room
from kornia_lift.training.compact.response import CompactResponseStage, init_as_corner_detector
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.crops import CropConfig, WarpedCrops
from kornia_lift.training.warped.maxima import keypoint_probability
from kornia_lift.training.warped.shapes import draw_shapes

pytest.importorskip("cv2")


def crops(seed: int = 0) -> WarpedCrops:
    config = CropConfig(size=96, per_image=1, min_step=0.9, max_step=1.5)
    return WarpedCrops([[image] for image in draw_shapes(3, seed)], config, Photometric(jpeg=0.0, shadow=0.0))


def peaks(*locations: tuple[float, float]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    maps = [torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in locations]
    return torch.stack(maps).sum(0)[None, None]


def test_probabilities_do_not_depend_on_how_far_the_best_score_is() -> None:
    score, inside = torch.zeros(1, 1, 31, 31), torch.ones(1, 1, 31, 31)
    score[..., 10, 10], score[..., 20, 20] = 5.0, 3000.0  # the second used to leave nothing of the first
    p = keypoint_probability(score, torch.tensor([1.0]), inside, radius=3)
    assert p[0, 0, 10, 10] == pytest.approx(float(torch.tensor(4.0).sigmoid() * 0.7557), abs=0.01)
    assert p[0, 0, 20, 20] == pytest.approx(1.0, abs=1e-3)


def test_the_distance_is_that_of_the_same_keypoint_and_has_a_gradient() -> None:
    first, second = peaks((20.4, 20), (40, 40)).requires_grad_(), peaks((21, 20), (48, 40))
    everywhere, limit = torch.ones_like(first), torch.tensor([0.5])
    distance = room._distance((first, second), (limit, limit), (everywhere, everywhere), torch.eye(3)[None])
    assert float(distance.detach()) == pytest.approx(
        0.5, abs=0.06
    )  # .6 px, less the smoothing at 0; the other pair is 8 px apart
    (gradient,) = torch.autograd.grad(distance, first)
    assert gradient[0, 0, 20, 21] < 0 < gradient[0, 0, 20, 19]  # the peak moves towards 21
    nothing = room._distance((first, second), (limit + 9, limit), (everywhere, everywhere), torch.eye(3)[None])
    assert nothing == 0 and nothing.requires_grad


def test_starts_at_corners() -> None:
    torch.manual_seed(0)
    network, drawn = CompactResponse(), crops()
    init_as_corner_detector(network, drawn, steps=25)
    batch = crops(1).draw(torch.Generator().manual_seed(5), 4)
    with torch.no_grad():
        z = network.normalize(batch["first"])
        found, wanted = network(batch["first"])[..., 12:-12, 12:-12], room._corner_score(z)[..., 12:-12, 12:-12]
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.5


def test_learns_on_one_batch_and_says_how_well_it_finds_keypoints_again() -> None:
    torch.manual_seed(0)
    network = CompactResponse()
    stage = CompactResponseStage(network, crops(), crops(1), budget=(8, 16))
    init_as_corner_detector(network, stage.crops, steps=15)
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    assert {len(value) for value in batch.values()} == {2}
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        loss, figures = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert figures["distance_px"] >= 0
    assert sum(losses[-5:]) < sum(losses[:5]) * 0.97
    found = stage.validate(batches=2)
    assert found["error"] == pytest.approx(1 - found["repeated_1px"])
    assert network.training


def test_a_budget_that_no_crop_can_fill_gives_a_finite_loss() -> None:
    torch.manual_seed(0)
    stage = CompactResponseStage(CompactResponse(), crops(), crops(1), budget=(5000, 5000))
    loss, _ = stage.loss(stage.batch(torch.Generator().manual_seed(0), 0))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.network.parameters())
