"""Quadruplets show what they say, rotated and moved as they say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from kornia_lift.geometry import crop_rotate
from kornia_lift.training.data.prepare.negatives import SUPPORT
from kornia_lift.training.data.store import Store
from kornia_lift.training.paper.quadruplets import QuadrupletSampler, SyntheticView, draw_angle, draw_shift
from tests.helpers.training import as_single

STILL = SyntheticView(
    gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0, stretch=1.0, zoom=1.0, rotation=0.0
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = (t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def test_p1_and_p2_are_two_views_of_a_point_p3_of_another_p4_of_none(sampler: QuadrupletSampler) -> None:
    drawn = sampler.draw(generator(), 40)
    assert sorted(drawn.point.tolist()) == list(range(40))
    assert (drawn.image[:, 0] != drawn.image[:, 1]).all()
    assert (drawn.other_point != drawn.point).all()
    assert (drawn.image[:, 3] == 2).all()
    assert set(sampler.draw(generator(), 500).other_point.tolist()) <= set(range(40))


def test_every_other_point_can_be_p3(sampler: QuadrupletSampler) -> None:
    source, seen = generator(), set()
    for _ in range(300):
        drawn = sampler.draw(source, 40)
        seen |= set(drawn.other_point[drawn.point == 5].tolist())
    assert seen <= set(range(40)) - {5}
    assert {0, 39} <= seen
    assert len(seen) > 30


def test_descriptor_patches_of_a_point_look_alike_and_of_two_do_not(sampler: QuadrupletSampler) -> None:
    patches = sampler.descriptor_patches(sampler.draw(generator(), 40), (0, 1, 2), generator())
    assert patches.shape == (40, 3, 64, 64)
    assert correlation(patches[:, 0], patches[:, 1]).min() > 0.95
    assert correlation(patches[:, 0], patches[:, 2]).median() < 0.5


def test_rotation_and_shift_of_a_patch_can_be_undone(sampler: QuadrupletSampler) -> None:
    """A rotated, moved patch, cropped at the keypoint at SIFT's angle plus the rotation, is the descriptor's patch."""
    source = generator()
    drawn = sampler.draw(source, 40)
    angle, shift = draw_angle(source, 40, 2, True), draw_shift(source, 40, 2)
    big = sampler.moved_patches(drawn, (0, 1), angle, shift, source)
    assert big.shape == (40, 2, 128, 128)
    for i in (0, 1):
        undone = crop_rotate(big[:, i : i + 1], shift[:, i], drawn.theta[:, i] + angle[:, i])
        direct = sampler.descriptor_patches(drawn, (i,), source)
        assert (undone - direct).abs().mean() < 0.01
        assert correlation(undone, direct).min() > 0.99


def test_a_rotated_patch_is_no_smaller_view(sampler: QuadrupletSampler) -> None:
    """The support stays 24 sigma at any rotation, and all of it lies in the image (the sqrt(2) pitfall)."""
    source = generator()
    drawn = sampler.draw(source, 40)
    angle = torch.full((40, 1), math.radians(33.0))
    none = torch.zeros(40, 1, 2)
    rotated = sampler.moved_patches(drawn, (0,), angle, none, source)
    upright = sampler.moved_patches(drawn, (0,), torch.zeros(40, 1), none, source)
    # rotate the upright patch ourselves, only its inscribed disc is known
    mine = crop_rotate(upright, torch.zeros(40, 2), -angle[:, 0], size=128, ratio=1.0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc = (x**2 + y**2) < 0.95
    assert (mine - rotated)[:, 0][:, disc].abs().mean() < 0.01


def test_the_detector_sees_the_same_at_48_pixels(sampler: QuadrupletSampler) -> None:
    source = generator()
    drawn = sampler.draw(source, 20)
    angle, shift = draw_angle(source, 20, 4, True), draw_shift(source, 20, 4)
    small = sampler.moved_patches(drawn, (0, 1, 2, 3), angle, shift, source, 48)
    big = sampler.moved_patches(drawn, (0,), angle[:, :1], shift[:, :1], source)
    resized = crop_rotate(big, torch.zeros(20, 2), torch.zeros(20), size=48, ratio=1.0)
    assert (resized - small[:, :1]).abs().mean() < 0.01


def test_perturbation_is_a_fifth_of_the_patch() -> None:
    shift = draw_shift(generator(), 2000, 2)
    assert shift.abs().max() <= 0.2
    assert shift.std() == pytest.approx(0.4 / math.sqrt(12), rel=0.05)
    assert (draw_angle(generator(), 5, 2, full_circle=False) == 0).all()


def test_second_views_are_made_where_there_is_one_image(single_views: QuadrupletSampler) -> None:
    source = generator()
    drawn = single_views.draw(source, 40)
    assert torch.equal(drawn.image[:, 0], drawn.image[:, 1])
    assert torch.equal(drawn.warp[:, 0], torch.eye(2).expand(40, 2, 2))
    assert not torch.isclose(drawn.warp[:, 1], torch.eye(2)).all(dim=2).all(dim=1).any()
    # the support of the made view stays in the image
    largest = torch.linalg.matrix_norm(drawn.warp[:, 1], ord=2) * SUPPORT * drawn.sigma[:, 1]
    room = torch.minimum(drawn.xy[:, 1], 419 - drawn.xy[:, 1]).amin(1)
    assert (largest <= room + 1e-3).all()
    patches = single_views.descriptor_patches(drawn, (0, 1), source)
    alike = correlation(patches[:, 0], patches[:, 1])
    assert 0.3 < alike.median() < 0.999


def test_a_synthetic_view_takes_the_angle_of_its_location_along(tiny_store: Store) -> None:
    """A view that is rotated and nothing else shows the same patch at the angle it is given."""
    rotation_only = dataclasses.replace(STILL, rotation=math.pi / 6)
    single = QuadrupletSampler(as_single(tiny_store), synthetic=rotation_only)
    source = generator()
    drawn = single.draw(source, 40)
    assert (drawn.theta[:, 0] - drawn.theta[:, 1]).abs().max() > 0.3
    first, second = single.descriptor_patches(drawn, (0, 1), source).unbind(1)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_the_same_generator_gives_the_same_patches(single_views: QuadrupletSampler) -> None:
    def patches() -> torch.Tensor:
        source = generator()
        return single_views.descriptor_patches(single_views.draw(source, 10), (0, 1, 2), source)

    assert torch.equal(patches(), patches())


def test_a_store_that_cannot_give_quadruplets_says_why(tiny_store: Store) -> None:
    none = tiny_store.empty.take(np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="no region free of keypoints"):
        QuadrupletSampler(dataclasses.replace(tiny_store, empty=none))
    one = tiny_store.tracks.take(tiny_store.tracks.point == 3)
    with pytest.raises(ValueError, match="at least two points, the store has 1"):
        QuadrupletSampler(dataclasses.replace(tiny_store, tracks=one))
