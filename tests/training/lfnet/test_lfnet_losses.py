"""Losses of LF-Net's training against the oracle: two views of a plane with a square before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.losses import (
    MAX_SCALE,
    draw_negatives,
    hardest,
    inplane_rotation,
    mean_over_images,
    orientation_loss,
    pair_loss,
    pool_size,
    scale_loss,
    score_loss,
    target_map,
    too_near,
    triplet_hinge,
)
from kornia_lift.training.lfnet.views import fetch_bilinear, fetch_nearest


@pytest.fixture(scope="module")
def oracle(shared: Path) -> dict[str, Tensor]:
    with np.load(shared / "oracles" / "lfnet_training.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def landings(o: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Positions of the pixels of each view in the other one."""
    return o["xy_1to2"][None], o["xy_2to1"][None]


def vectors(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()])[None]


def fetch_vectors(angle: Tensor, xy: Tensor) -> Tensor:
    return torch.stack([fetch_nearest(part[None], xy)[0] for part in vectors(angle)[0]])[None]


def test_targets_and_score_loss_reproduce_the_oracle(oracle: dict[str, Tensor]) -> None:
    o, total = oracle, 0.0
    for n, xy in enumerate(landings(o), 1):
        visible = o[f"visible{n}_correct"].bool()[None]
        warped = fetch_bilinear(o[f"score{3 - n}"][None], xy) * visible
        target = target_map(warped, int(o["top_k"]))
        assert (target[0] - o[f"target{n}_correct"]).abs().max() < 1e-9
        total += float(score_loss(o[f"score{n}"][None], target, visible)) / 2
        upstream = o[f"visible{n}_upstream"].bool()[None]
        expected = float(o[f"score_loss{n}_upstream"])
        loss = score_loss(o[f"score{n}"][None], o[f"target{n}_upstream"][None], upstream)
        assert float(loss) == pytest.approx(expected, abs=1e-9)
    assert total == pytest.approx(float(o["score_loss_correct"]), abs=1e-9)


def dense_losses(o: dict[str, Tensor]) -> tuple[float, float]:
    """Orientation and scale losses, with the visibility that the oracle used."""
    phi = inplane_rotation(o["T21"][None, :3, :3])
    ratio = (o["K1"][0, 0] / o["K2"][0, 0])[None]
    both = landings(o)
    orientation = scale = 0.0
    for n, sign, focal in ((1, -1, ratio), (2, 1, 1 / ratio)):
        m, visible = 3 - n, o[f"visible{n}_upstream"].bool()[None]
        xy, back = both[n - 1], both[m - 1]
        loss = orientation_loss(vectors(o[f"angle{n}"]), fetch_vectors(o[f"angle{m}"], xy), sign * phi, visible)
        orientation += float(loss) / 2
        # what is nearer, or seen by a longer lens, is larger; depths beyond 500 stand for none
        mine, other = o[f"depth{m}"][None], fetch_nearest(o[f"depth{n}"][None], back)
        zoom = focal * mine.where(mine <= 500, 1.0) / (other.where(other <= 500, 1.0) + 1e-6)
        expected = fetch_nearest((o[f"scale{m}"][None] * zoom).clamp(1 / MAX_SCALE, MAX_SCALE), xy)
        error = (expected[0] - o[f"scale{n}_expected"]).abs()[visible[0]]
        assert error.max() < 1e-6
        scale += float(scale_loss(o[f"scale{n}"][None], expected, visible)) / 2
    return orientation, scale


def test_orientation_and_scale_losses_reproduce_the_oracle(oracle: dict[str, Tensor]) -> None:
    assert float(inplane_rotation(oracle["T21"][None, :3, :3])) == pytest.approx(float(oracle["inplane_rotation"]))
    orientation, scale = dense_losses(oracle)
    assert orientation == pytest.approx(float(oracle["orientation_loss"]), abs=1e-6)
    assert scale == pytest.approx(float(oracle["scale_loss"]), abs=1e-6)
    pair = float(pair_loss(oracle["feat1"], oracle["feat2"], oracle["visible_kp"].bool()))
    c = LFNetConfig()
    total = c.score * float(oracle["score_loss_upstream"]) + c.pair * pair
    total += c.orientation * orientation + c.consistent_scale * scale
    assert total == pytest.approx(float(oracle["detector_total"]), abs=1e-6)


def test_descriptor_losses_reproduce_the_oracle(oracle: dict[str, Tensor]) -> None:
    o = oracle
    visible = o["visible_kp"].bool()
    pool = hardest(o["feat1"], o["feat2"], too_near(o["kpts2"], float(o["geom_thresh"])), 5)
    assert (pool == o["pool"]).all()
    hinge = triplet_hinge(o["feat1"], o["feat2"], o["feat2"][o["neg_index"]])
    loss = mean_over_images(hinge, visible, torch.zeros(len(hinge), dtype=torch.long), 1)
    assert float(loss) == pytest.approx(float(o["triplet_loss_visible_only"]), abs=1e-9)
    assert float(pair_loss(o["feat1"], o["feat2"], visible)) == pytest.approx(float(o["pair_loss"]), abs=1e-9)
    share = torch.rand(len(pool), generator=torch.Generator().manual_seed(0))
    drawn = draw_negatives(o["feat1"], o["feat2"], o["kpts2"], 5, share)
    assert all(int(d) in row for d, row in zip(drawn, pool.tolist(), strict=True))
    assert len({row.index(int(d)) for d, row in zip(drawn, pool.tolist(), strict=True)}) > 1


def test_negatives_are_never_drawn_from_the_same_place() -> None:
    """Also where the pool is larger than what is left, and where nothing is left."""
    generator = torch.Generator().manual_seed(0)
    descriptors = torch.randn(12, 8, generator=generator)
    positions = torch.tensor([[10.0, 10.0]] * 6 + [[200.0, 10.0]] * 6)
    for _ in range(20):
        share = torch.rand(12, generator=generator)
        drawn = draw_negatives(descriptors, descriptors, positions, 64, share)
        assert ((drawn < 6) != (torch.arange(12) < 6)).all()
    alone = draw_negatives(descriptors, descriptors, torch.zeros(12, 2), 64, share)
    assert (alone == torch.arange(12)).all()


def test_negatives_and_losses_of_a_batch_are_those_of_its_images() -> None:
    """One image with seven anchors, one with five, one with one that counts for nothing; pools of different sizes."""
    generator = torch.Generator().manual_seed(1)
    sizes = (7, 5, 1)
    first, second = (torch.randn(sum(sizes), 8, generator=generator, dtype=torch.float64) for _ in range(2))
    positions = torch.rand(sum(sizes), 2, generator=generator, dtype=torch.float64) * 100
    share = torch.rand(sum(sizes), generator=generator)
    visible = torch.rand(sum(sizes), generator=generator) < 0.7
    image = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    pool = torch.tensor([2, 64, 5])
    negative = draw_negatives(first, second, positions, pool[image], share, 20.0, image)
    found = mean_over_images(triplet_hinge(first, second, second[negative]), visible, image, 3)
    losses = []
    for n in range(2):
        rows = image == n
        one, other = first[rows], second[rows]
        alone = draw_negatives(one, other, positions[rows], int(pool[n]), share[rows], 20.0)
        assert torch.equal(other[alone], second[negative[rows]])
        near, far = (one - other).square().sum(1), (one - other[alone]).square().sum(1)
        losses.append((1 + near - far).clamp(min=0)[visible[rows]].mean())
    assert float(found) == pytest.approx(float(sum(losses)) / 2)


def test_pool_of_negatives_shrinks_as_in_the_authors_code(oracle: dict[str, Tensor]) -> None:
    """The oracle counts both optimisers' steps: twice our iterations."""
    steps = oracle["pool_steps"].tolist()
    for step, size in zip(steps, oracle["pool_size_release"].tolist(), strict=True):
        if step % 2 == 0:
            assert pool_size(step // 2) == size
    assert pool_size(10**6) == 5


def test_nothing_visible_gives_zero_and_finite_gradients() -> None:
    score = torch.rand(2, 20, 20, requires_grad=True)
    hidden = torch.zeros(2, 20, 20, dtype=torch.bool)
    loss = score_loss(score, target_map(torch.zeros(2, 20, 20)), hidden)
    loss.backward()
    assert loss == 0 and score.grad is not None and (score.grad == 0).all()
