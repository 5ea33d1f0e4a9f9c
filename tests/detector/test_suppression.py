"""Suppression across levels equals going through the keypoints one by one, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTDetector, ScaleSpaceConfig
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector import suppression
from kornia_lift.detector.suppression import pairs_by_cells, pairs_by_comparison, suppress
from kornia_lift.geometry import lift_from_lafs
from tests.helpers.pictures import texture


def one_by_one(image: Tensor, xy: Tensor, score: Tensor, radius: Tensor) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(score)), key=lambda k: (image[k].item(), -score[k].item(), k)):
        if all(image[i] != image[j] or (xy[i] - xy[j]).square().sum() >= radius[j].square() for j in kept):
            kept.append(i)
    return kept


def keypoints(seed: int, number: int = 300) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crowded keypoints of three images with equal scores among them, some of them without a radius."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 3, (number,), generator=generator)
    xy = 100 * torch.rand(number, 2, generator=generator) - 20
    score = (5 * torch.randn(number, generator=generator)).round()
    return image, xy, score, (14 * torch.rand(number, generator=generator) - 2).clamp(min=0)


@pytest.mark.parametrize("seed", range(8))
def test_suppression_is_the_greedy_one(seed: int) -> None:
    every = keypoints(seed)
    expected = one_by_one(*every)
    assert 20 < len(expected) < 250
    assert suppress(*every).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_comparing_all_pairs_finds_those_of_neighbouring_cells(seed: int) -> None:
    image, xy, _, radius = keypoints(seed)
    image = image.sort().values
    by_cells = torch.stack(pairs_by_cells(image, xy, radius), 1).tolist()
    counts = torch.bincount(image, minlength=5).tolist()  # two images have none
    by_comparison = torch.stack(pairs_by_comparison(counts, xy, radius), 1).tolist()
    assert len(by_cells) > 100
    assert sorted(by_cells) == sorted(by_comparison)


def test_a_few_of_the_strongest_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "FIRST_LOOK", 4)  # it has to look again
    image, *rest = keypoints(1)
    found, expected = suppress(image, *rest, count=9).tolist(), one_by_one(image, *rest)
    for b in range(3):
        assert [i for i in found if image[i] == b][:9] == [i for i in expected if image[i] == b][:9]


def test_without_keypoints_or_radius_everything_stays() -> None:
    image, xy, score, radius = keypoints(2)
    assert suppress(image[:0], xy[:0], score[:0], radius[:0]).shape == (0,)
    assert len(suppress(image, xy, score, 0 * radius)) == len(image)


@pytest.mark.parametrize(("sigma", "pixels"), [(1.5, 0.0), (0.0, 6.0), (1.0, 5.0)])
def test_keypoints_of_the_detector_keep_their_distance(sigma: float, pixels: float) -> None:
    torch.manual_seed(0)
    config = ScaleSpaceConfig(suppression_sigma=sigma, suppression_pixels=pixels)
    image = texture(120, 140, batch=2)
    with torch.no_grad():
        detector = LIFTDetector(2000, config, pretrained=False).eval()
        lafs, _ = detector(image)
        detector.config = ScaleSpaceConfig(suppression_sigma=0.0, suppression_pixels=0.0)
        crowded, _ = detector(image)
    for frames, other in zip(lafs, crowded, strict=True):
        frames, other = (f[None, laf_is_filled(f[None])[0]] for f in (frames, other))
        xy, scale, _ = lift_from_lafs(frames)
        apart = torch.cdist(xy[0], xy[0], compute_mode="donot_use_mm_for_euclid_dist")
        radius = (sigma * scale[0]).clamp(min=pixels) - 1e-3
        later = torch.ones_like(apart, dtype=torch.bool).triu(1)  # keypoints come by decreasing response
        assert len(xy[0]) > 10
        assert (apart >= radius[:, None])[later].all()
        assert other.shape[1] > 1.2 * len(xy[0])


def test_the_release_suppresses_nothing_across_levels() -> None:
    assert ScaleSpaceConfig.lift().suppression_sigma == ScaleSpaceConfig.lift().suppression_pixels == 0


def test_memory_of_many_candidates_is_bounded_by_those_in_reach() -> None:
    generator = torch.Generator().manual_seed(0)
    number = 100_000
    xy = torch.rand(number, 2, generator=generator) * torch.tensor([1600.0, 1200.0])
    score, image = torch.rand(number, generator=generator), torch.zeros(number, dtype=torch.long)
    radius = 3 * torch.exp2(3 * torch.rand(number, generator=generator).square())
    found = suppress(image, xy, score, radius, count=1000)
    assert len(found) >= 1000
    assert (score[found].diff() <= 0).all()
