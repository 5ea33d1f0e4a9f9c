"""The compact recipe: views that show the same location, losses worked out by hand, stages that learn, a whole run."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor

from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.descriptor import ViewDescriptorStage
from kornia_lift.training.compact.observations import Observations, ViewConfig, load_observations
from kornia_lift.training.compact.orientation import AgreementOrientationStage, agreement
from kornia_lift.training.compact.views import (
    ViewPairs,
    rotate_frames,
    wrap_angle,
)
from kornia_lift.training.data.store import Observations as TrackTable
from kornia_lift.training.data.store import Store
from kornia_lift.training.modern.pairs import WarpConfig
from tests.helpers.pictures import texture
from tests.helpers.training import as_single

PHOTOMETRIC = {"gain": 1.0, "gamma": 1.0, "offset": 0.0, "noise": 0.0, "blur": 0.0, "shadow": 0.0, "jpeg": 0.0}
STILL = WarpConfig(**PHOTOMETRIC, angle=0.0, scale=1.0, shift=0.0, stretch=1.0)  # type: ignore[arg-type]
VIEWS = ViewConfig(min_reach=9.0, max_reach=20.0, largest_view=45.0)


def two_views(locations: int = 40, size: int = 160) -> Observations:
    """A texture, and the same texture twice as large and rotated clockwise by 90 degrees."""
    image = texture(size, size)
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear").rot90(-1, (2, 3))
    generator = torch.Generator().manual_seed(2)
    xy = torch.rand(locations, 2, generator=generator) * (size - 60) + 30
    # pixel centres of the enlarged image, then the rotation (x, y) -> (height - 1 - y, x)
    twice = (xy + 0.5) * 2 - 0.5
    moved = torch.stack([2 * size - 1 - twice[:, 1], twice[:, 0]], 1)
    return Observations(
        tuple((i[0, 0] * 255).round().to(torch.uint8) for i in (image, large)),
        torch.arange(2).repeat_interleave(locations),
        torch.arange(locations).repeat(2),
        torch.cat([xy, moved]),
        torch.cat([torch.ones(locations), torch.full((locations,), 2.0)]),
        torch.cat([torch.zeros(locations), torch.full((locations,), math.pi / 2)]),
        torch.zeros(2 * locations),
    )


def pairs(warp: WarpConfig = STILL, per_group: int = 20) -> ViewPairs:
    return ViewPairs(two_views(), 2, per_group, warp, VIEWS)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def test_pairs_show_the_same_location_at_the_same_size_and_angle() -> None:
    source, generator = pairs(), torch.Generator().manual_seed(0)
    anchor, positive, reach, other = source.draw(generator)
    assert (source.seen.track[anchor] == source.seen.track[positive]).all()
    assert (source.seen.image[anchor] != source.seen.image[positive]).all()
    angle = torch.rand(len(anchor), generator=generator) * 6
    one = torch.ones(len(anchor))
    a = source.cut(anchor, source.frames(anchor, reach, angle, generator, one))
    b = source.cut(positive, source.frames(positive, other, angle, generator, one))
    assert (correlation(a, b) > 0.98).all()
    c = source.cut(positive, source.frames(positive, other, angle + 0.7, generator, one))
    assert correlation(a, c).median() < 0.8


def test_regions_have_the_wanted_size_and_lie_in_the_images() -> None:
    source, generator = pairs(), torch.Generator().manual_seed(0)
    for _ in range(5):
        anchor, positive, reach, other = source.draw(generator)
        smaller = torch.minimum(reach, other)
        assert (smaller >= 9 - 1e-4).all() and (smaller <= 20 + 1e-4).all()
        assert (torch.maximum(reach, other) <= 45 + 1e-4).all()
        for index, half in ((anchor, reach), (positive, other)):
            side = torch.tensor([i.shape[0] for i in source.seen.images])[source.seen.image[index]][:, None]
            xy = source.seen.xy[index]
            assert (xy >= half[:, None] - 1e-3).all() and (xy <= side - 1 - half[:, None] + 1e-3).all()


@pytest.mark.parametrize("size", [32, 48])
def test_patches_are_those_of_the_run_time(size: int) -> None:
    source = pairs()
    generator = torch.Generator().manual_seed(1)
    lafs = laf_from_center_scale_ori(
        torch.rand(1, 30, 2, generator=generator) * 300,
        4 * 30 ** torch.rand(1, 30, 1, 1, generator=generator),
        360 * torch.rand(1, 30, 1, generator=generator),
    )
    found = source.cut(torch.full((30,), 79), lafs[0], size)  # an observation of the second image
    expected = PatchPyramid(source.seen.images[1][None, None].float() / 255).cut(lafs, size)[0]
    assert (found - expected).abs().max() < 0.01  # two roundings to 8 bits, and positions to 1/32 pixel


def test_frames_rotate_like_angles() -> None:
    source, index = pairs(), torch.arange(10)
    theta, reach = torch.linspace(-3, 3, 10), torch.full((10,), 12.0)
    generator = torch.Generator()
    one = torch.ones(10)
    straight = source.frames(index, reach, theta + 0.4, generator, one)
    rotated = rotate_frames(source.frames(index, reach, torch.full((10,), 0.4), generator, one), theta)
    assert torch.allclose(straight, rotated, atol=1e-3)
    assert torch.allclose(wrap_angle(theta + 4 * math.pi), theta, atol=1e-5)


def test_near_locations_of_one_image_are_no_negatives() -> None:
    seen = Observations(
        (torch.zeros(100, 100, dtype=torch.uint8), torch.zeros(100, 100, dtype=torch.uint8)),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([[50.0, 50.0], [52.0, 50.0], [60.0, 50.0], [50.0, 50.0]]),
        torch.ones(4),
        torch.zeros(4),
        torch.zeros(4),
    )
    found = ViewPairs(seen, 1, 2, STILL, VIEWS).ambiguous(torch.arange(4), torch.full((4,), 12.0))
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = True  # 2 pixels < 12 / 4; 8 are not, and the last is another image
    assert torch.equal(found, expected)


def test_views_come_from_the_tracks_of_a_store(tiny_store: Store) -> None:
    seen = load_observations(tiny_store, ViewConfig())
    assert len(seen.images) == 3 and len(seen) == len(tiny_store.tracks)
    for row in (0, 45):
        other = int(torch.nonzero((seen.track == seen.track[row]) & (seen.image != seen.image[row]))[0])
        later = seen.image[row] < seen.image[other]
        angle = (seen.angle[other] - seen.angle[row]).rad2deg().item() * (1 if later else -1)
        assert angle == pytest.approx(40, abs=1e-2)
    single = load_observations(as_single(tiny_store), ViewConfig(points_per_image=7))
    assert len(single) == 7
    with pytest.raises(ValueError, match="no location to learn from"):
        load_observations(dataclasses.replace(tiny_store, tracks=TrackTable.none()), ViewConfig())


def test_agreement_of_sharp_and_of_ambiguous_directions() -> None:
    def at(*bins: int) -> Tensor:
        p = torch.zeros(1, 36)
        p[0, list(bins)] = 1 / len(bins)
        return p

    ten = torch.tensor([math.radians(10)])
    # a frame rotated clockwise by 30 degrees sees the direction 3 bins earlier
    assert agreement(at(2), at(5), 3 * ten, 0.1) == pytest.approx(1.0)
    assert agreement(at(2), at(5), 2 * ten, 0.1) == pytest.approx(math.exp((math.cos(ten) - 1) / 0.01), rel=1e-5)
    assert agreement(at(35), at(0), ten, 0.1) == pytest.approx(1.0, abs=1e-5)
    assert agreement(at(0, 18), at(0, 18), 0 * ten, 0.1) == pytest.approx(0.5)
    assert agreement(at(9), at(0), 0 * ten, 0.1) == pytest.approx(0.0, abs=1e-6)


def losses(stage: AgreementOrientationStage | ViewDescriptorStage, steps: int, rate: float) -> list[float]:
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    optimizer = torch.optim.AdamW(stage.network.parameters(), rate)
    found = []
    for _ in range(steps):
        loss, _ = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_orientation_learns_and_is_validated() -> None:
    torch.manual_seed(0)
    stage = AgreementOrientationStage(PolarOrientation(False, width=8), pairs(), pairs(), context=1.0)
    found = losses(stage, 15, 3e-3)
    assert found[-1] < found[0] - 0.5
    figures = stage.validate(batches=1)
    assert 0 <= figures["error"] <= figures["off10"] <= 1
    assert stage.network.training


def test_descriptor_learns_and_is_validated() -> None:
    torch.manual_seed(0)
    stage = ViewDescriptorStage(CompactDescriptor(False), pairs(), pairs())
    found = losses(stage, 4, 1e-3)
    assert found[-1] < 0.5 * found[0]
    assert set(stage.validate(batches=1)) == {"error", "upright", "coarse"}


def test_at_estimated_angles_patches_of_a_pair_agree_as_well_as_the_estimates() -> None:
    class Exact(PolarOrientation):
        """Knows the texture: the angle at which the upright patch is seen."""

        def forward(self, patch: Tensor) -> Tensor:
            return -0.3 * torch.ones(len(patch))

    stage = ViewDescriptorStage(CompactDescriptor(False), pairs(), pairs(), orientation=Exact(False), upright_share=0.0)
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    assert (correlation(batch["anchor"], batch["positive"]) > 0.98).all()
    without = ViewDescriptorStage(CompactDescriptor(False), pairs(), pairs(), upright_share=0.0, coarse_share=0.0)
    plain = without.batch(torch.Generator().manual_seed(0), 0)
    assert correlation(batch["anchor"], plain["anchor"]).median() < 0.95  # they were rotated by what was estimated
