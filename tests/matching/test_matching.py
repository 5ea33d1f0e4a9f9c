"""From images to verified matches, on features whose frames are known."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor, nn

from kornia_lift import LIFTFeature
from kornia_lift.features import Features
from kornia_lift.matching import StageClock, extract_features, match_descriptors, match_pair, shrink, verify
from kornia_lift.matching.overlap import log_false_alarms
from tests.helpers.pictures import texture

pytest.importorskip("cv2")


class Centroid(nn.Module):
    """One frame at the centre of mass of the image, with its spread as scale; the second slot is empty."""

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        assert image.shape[:2] == (1, 1)
        weight = image[0, 0] / image.sum()
        y, x = (torch.arange(n, dtype=image.dtype, device=image.device) for n in weight.shape)
        centre = torch.stack([(weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()])
        spread = ((weight.sum(0) * (x - centre[0]) ** 2).sum()).sqrt()
        laf = laf_from_center_scale_ori(centre[None, None], spread[None, None, None, None], torch.zeros(1, 1, 1).to(x))
        lafs = torch.cat([laf, torch.zeros_like(laf)], 1)
        return lafs, torch.ones(1, 2).to(x), torch.full((1, 2, 128), 3.0).to(x)


def blob(height: int, width: int, x: float, y: float, sigma: float) -> Tensor:
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))[None, None]


@pytest.mark.parametrize("max_size", [0, 200, 80])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_back_to_the_original(max_size: int, channels: int) -> None:
    """Pixel centres at integers: a naive scaling by 200/80 would be off by 0.75 px."""
    original = blob(150, 200, 70.3, 61.8, 9.0).expand(-1, channels, -1, -1)
    reduced = shrink(original, max_size)
    found = extract_features(Centroid(), reduced, (200, 150))
    assert len(found) == 1  # the empty slot is dropped
    assert found.image_size == (200, 150)
    np.testing.assert_allclose(found.keypoints, [[70.3, 61.8]], atol=0.02)
    assert float(found.lafs[0, 0, 0]) == pytest.approx(9.0, rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [((150, 200), 100, (75, 100)), ((200, 150), 100, (100, 75)), ((50, 60), 100, (50, 60)), ((3, 900), 100, (1, 100))],
)
def test_shrink_keeps_the_shape(size: tuple[int, int], max_size: int, expected: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    assert tuple(shrink(image, max_size).shape[-2:]) == expected
    assert shrink(image, 0) is image


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_mutual_neighbours_and_ratio() -> None:
    first = unit([1, 0, 0], [0, 1, 0], [0, 0, 1])
    second = unit([0, 1, 0.1], [1, 0.2, 0], [0, 1, -0.11], [0.3, 0.8, 1])
    pairs, confidence = match_descriptors(first, second, 1)
    assert pairs.tolist() == [[1, 0], [0, 1], [2, 3]]
    assert (np.diff(confidence) <= 0).all()
    # (0, 1, 0) has two nearly equal neighbours: it fails the ratio test, the others pass.
    assert sorted(match_descriptors(first, second, 0.8)[0].tolist()) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("ratio", [0.9, 1])
@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_too_few_descriptors(ratio: float, counts: tuple[int, int]) -> None:
    first, second = (torch.nn.functional.normalize(torch.ones(n, 8), dim=1) for n in counts)
    pairs, confidence = match_descriptors(first, second, ratio)
    assert pairs.shape == (1 if ratio == 1 and counts == (1, 1) else 0, 2)
    assert len(confidence) == len(pairs)


@pytest.mark.parametrize("ratio", [0.9, 1.0])
def test_descriptors_that_require_a_gradient_are_matched(ratio: float) -> None:
    first, second = torch.rand(20, 8), torch.rand(20, 8)
    expected = match_descriptors(first, second, ratio)
    found = match_descriptors(first.requires_grad_(), second.requires_grad_(), ratio)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("geometry", ["homography", "fundamental"])
def test_verification_separates_inliers_from_outliers(geometry: str) -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 600, (200, 2)).astype(np.float32)
    if geometry == "homography":
        ground = np.array([[0.9, -0.2, 30], [0.15, 1.05, -12], [1e-4, -2e-4, 1]])
        lifted = np.c_[first, np.ones(200)] @ ground.T
        second = (lifted[:, :2] / lifted[:, 2:]).astype(np.float32)
    else:  # two cameras side by side see points of random depth
        second = first - np.c_[rng.uniform(20, 120, 200), np.zeros(200)].astype(np.float32)
    wrong = np.arange(200) % 4 == 0
    second[wrong] += rng.choice([-1, 1], (wrong.sum(), 2)) * rng.uniform(30, 90, (wrong.sum(), 2))
    verified, model = verify(first, second.astype(np.float32), geometry, 2.0)  # type: ignore[arg-type]
    assert model is not None
    assert model.shape == (3, 3)
    assert verified[~wrong].all()
    assert verified[wrong].mean() < 0.15


def test_too_few_matches_verify_nothing() -> None:
    points = np.random.default_rng(0).uniform(0, 99, (4, 2)).astype(np.float32)
    verified, model = verify(points, points, "homography", 2.0)
    assert model is None
    assert verified.tolist() == [False] * 4


def test_match_pair_times_its_stages() -> None:
    empty = Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    clock = StageClock()
    match = match_pair(empty, empty, clock=clock)
    assert len(match.pairs) == len(match.verified) == 0
    assert list(clock.seconds) == ["matching", "verification"]


def test_clock_times_the_parts_of_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    class Slow(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: Tensor) -> Tensor:
            nonlocal now
            now += self.seconds
            return x

    feature = nn.Sequential()
    feature.add_module("detector", Slow(0.5))
    feature.add_module("descriptor", Slow(1.0))
    clock = StageClock()
    for _ in range(2):
        with clock.stages_of(feature):
            feature(torch.zeros(1))
    feature(torch.zeros(1))  # outside: not counted
    assert clock.seconds == {"detector": 1.0, "descriptor": 2.0}


@pytest.mark.parametrize("affine", [False, True])
def test_parts_that_do_nothing_are_no_stages(affine: bool) -> None:
    clock, feature = StageClock(), LIFTFeature(20, True, pretrained=False, affine=affine).eval()
    with clock.stages_of(feature), torch.inference_mode():
        feature(texture(80, 80))
    assert list(clock.seconds) == ["detector", *(["affine"] if affine else []), "descriptor"]


def test_several_angles_are_timed_as_the_orientation() -> None:
    clock, feature = StageClock(), LIFTFeature(20, pretrained="lift-plus")
    before = set(vars(feature.orienter))
    for _ in range(2):
        with clock.stages_of(feature), torch.inference_mode():
            feature(texture(80, 80))
    assert list(clock.seconds) == ["detector", "orienter", "descriptor"]
    assert clock.seconds["orienter"] > 0
    assert set(vars(feature.orienter)) == before


def test_false_alarms_by_hand() -> None:
    """n = 10, k = 6, m = 4: 6 * C(10, 6) * C(6, 4) * alpha^2 with the disc of 2 px in 100 x 50 pixels."""
    alpha = np.pi * 4 / 5000
    expected = np.log10(6 * 210 * 15 * alpha**2)
    assert log_false_alarms(10, 6, "homography", 2.0, [(200, 100), (100, 50)]) == pytest.approx(expected)
    assert log_false_alarms(10, 4, "homography", 2.0, [(100, 50)] * 2) == np.inf
    assert log_false_alarms(500, 400, "fundamental", np.inf, [(100, 50)] * 2) > 0
    assert log_false_alarms(0, 0, "fundamental", 2.0, [(100, 50)] * 2) == np.inf


@pytest.mark.parametrize("geometry", ["homography", "fundamental"])
def test_random_matches_are_no_overlap_and_true_ones_are(geometry: str) -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows(rng, 150)

    def at(points: np.ndarray) -> Features:
        return Features(points, rows, image_size=(600, 600))

    for trial in range(5):
        first, second = (at(rng.uniform(0, 600, (150, 2))) for _ in "ab")
        random = match_pair(first, second, ratio=1, geometry=geometry)  # type: ignore[arg-type]
        assert len(random.pairs) == 150
        assert not random.overlap, trial
    moved = second.keypoints.copy()
    shift = 7.0 if geometry == "homography" else np.c_[rng.uniform(5, 40, 40), np.zeros(40)]
    moved[:40] = first.keypoints[:40] + shift
    partly = match_pair(first, at(moved), ratio=1, geometry=geometry)  # type: ignore[arg-type]
    assert 40 <= partly.verified.sum() < 70
    assert partly.overlap


@pytest.mark.parametrize(("count", "undecided"), [(0, True), (30, True), (199, True), (200, False)])
def test_few_keypoints_cannot_tell(count: int, undecided: bool) -> None:
    rng = np.random.default_rng(1)
    first, second = (
        Features(rng.uniform(0, 600, (n, 2)), unit_rows(rng, n), image_size=(600, 600)) for n in (300, count)
    )
    match = match_pair(first, second)
    assert not match.overlap
    assert match.undecided is undecided


def test_reprs_are_short() -> None:
    """A notebook shows what a cell returns: thousands of numbers say nothing."""
    rng = np.random.default_rng(0)
    features = Features(rng.uniform(0, 600, (150, 2)), unit_rows(rng, 150), image_size=(640, 480))
    assert repr(features) == "Features(150 keypoints, descriptors of 32 float32, image of 640x480 pixels)"
    assert "unknown size" in repr(Features(features.keypoints, features.descriptors))
    match = match_pair(features, features)
    assert repr(match) == "PairMatch(150 matches, 150 verified, of 150 and 150 keypoints, overlap=True)"


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.normal(size=(count, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
