"""Refined matches: known maps between two images, what may change between them, and what must stay as it was."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kornia.feature import laf_from_center_scale_ori
from kornia.geometry.transform import warp_affine
from torch import Tensor

from kornia_lift import LIFTFeature, match_images
from kornia_lift._kornia import ShapeError
from kornia_lift.cli import main
from kornia_lift.evaluation import evaluate_feature
from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.results import describe_options
from kornia_lift.evaluation.runner import SKIPPED, evaluate
from kornia_lift.features import Features
from kornia_lift.files import UnreadableImageError
from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.matching import MatchRefiner, extract_features, match_pair
from kornia_lift.matching.refinement import refined_positions
from kornia_lift.scenes.scene import Pair
from kornia_lift.training.held_out.scenes import StoredPlanes
from tests.helpers.pictures import texture

ANGLE = math.radians(25)
#: Maps pixels of the image to pixels of its copy: rotated, reduced in one direction, moved.
MAP = torch.tensor(
    [[0.95 * math.cos(ANGLE), -0.8 * math.sin(ANGLE), 48.3], [0.95 * math.sin(ANGLE), 0.8 * math.cos(ANGLE), -11.6]]
)


def copy_of(image: Tensor) -> Tensor:
    return warp_affine(image, MAP[None].to(image), image.shape[-2:], mode="bicubic", align_corners=True)


def known_matches(count: int = 40, shift: float = 0.8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Frames of the image, frames of the copy as a detector finds them, and the true ones."""
    generator = torch.Generator().manual_seed(seed)
    at = 60 + 80 * torch.rand(count, 2, generator=generator)
    angles = 360 * torch.rand(count, generator=generator)
    lafs = laf_from_center_scale_ori(at[None], torch.full((1, count, 1, 1), 14.0), angles[None, :, None])
    true = torch.cat([MAP[:, :2] @ lafs[..., :2], (MAP[:, :2] @ lafs[..., 2:]) + MAP[:, 2:]], -1)
    found = laf_from_center_scale_ori(
        true[..., 2] + shift * torch.randn(1, count, 2, generator=generator),
        torch.full((1, count, 1, 1), 12.0),
        angles[None, :, None] - 25 + 6 * torch.randn(1, count, 1, generator=generator),
    )
    return lafs, found, true


def errors(lafs: Tensor, true: Tensor) -> Tensor:
    return (lafs[..., 2] - true[..., 2]).norm(dim=-1)


def test_frames_move_to_where_the_copy_shows_them() -> None:
    image = texture(200, 200)
    lafs, found, true = known_matches()
    moved, similarity = MatchRefiner(steps=12)(image, copy_of(image), lafs, found)
    assert errors(found, true).median() > 0.7
    assert errors(moved, true).median() < 0.05
    assert similarity.median() > 0.98
    # the whole frame covers what the first one covers
    close = errors(moved, true)[0] < 0.1
    assert close.float().mean() > 0.8
    assert (moved - true)[0, close, :, :2].abs().median() < 0.15  # of 14 pixels


def test_contrast_brightness_and_noise_hardly_matter() -> None:
    image = texture(200, 200)
    lafs, found, true = known_matches()
    noise = 0.01 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    darker = 0.3 * copy_of(image) + 0.1 + noise
    moved, _ = MatchRefiner(steps=12)(image, darker, lafs, found)
    assert errors(moved, true).median() < 0.08


def test_what_does_not_match_stays() -> None:
    image, other = texture(200, 200), texture(200, 200, seed=5)
    lafs, found, _ = known_matches()
    moved, similarity = MatchRefiner(similarity=0.95)(image, other, lafs, found)
    assert (similarity < 0.95).float().mean() > 0.9
    torch.testing.assert_close(moved[similarity < 0.95], found[similarity < 0.95], rtol=0, atol=0)
    flat = torch.full_like(image, 0.4)
    for pair in ((image, flat), (flat, image), (flat, flat)):
        moved, similarity = MatchRefiner()(*pair, lafs, found)
        torch.testing.assert_close(moved, found, rtol=0, atol=0)
        assert similarity.abs().max() < 1e-3


def test_matches_move_by_no_more_than_the_reach() -> None:
    image = texture(200, 200)
    lafs, found, _ = known_matches(shift=2.0)
    for reach in (0.05, 0.2):
        moved, _ = MatchRefiner(reach=reach)(image, copy_of(image), lafs, found)
        # distances of a frame of 12 pixels, which has no affine shape
        assert errors(moved, found).max() <= 12 * reach + 1e-3


def test_an_image_of_coarser_pixels_is_compared_at_its_own_sharpness() -> None:
    """Without a common sharpness, half of the gain is lost."""
    image = texture(200, 200)
    lafs, _, _ = known_matches()
    noise = torch.randn(1, 1, 50, 50, generator=torch.Generator().manual_seed(2))
    small = torch.nn.functional.interpolate(image, scale_factor=0.25, mode="bilinear", antialias=True) + 0.005 * noise
    true = torch.cat([0.25 * lafs[..., :2], 0.25 * (lafs[..., 2:] + 0.5) - 0.5], -1)
    found = true.clone()
    found[..., 2] += 0.3 * torch.randn(1, 40, 2, generator=torch.Generator().manual_seed(3))
    for first, second, pair, start, end in (
        (image, small, lafs, found, true),
        (small, image, true, torch.cat([lafs[..., :2], lafs[..., 2:] + 4 * (found - true)[..., 2:]], -1), lafs),
    ):
        moved, _ = MatchRefiner()(first, second, pair, start)
        assert errors(moved, end).median() < 0.25 * errors(start, end).median()


def test_hardly_anything_moves_along_a_straight_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge says nothing about the position along it."""
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
    edge = torch.sigmoid((x - 60 + 0.2 * (y - 60)) / 1.5)[None, None]
    noise = 0.02 * torch.randn(2, 1, 120, 120, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([[60.0 - 0.2 * k, 60.0 + k] for k in range(-20, 21, 2)])
    lafs = laf_from_center_scale_ori(at[None], torch.full((1, len(at), 1, 1), 12.0))
    drift = errors(MatchRefiner()(edge + noise[:1], edge + noise[1:], lafs, lafs)[0], lafs)
    assert drift.square().mean().sqrt() < 0.4 and drift.max() < 0.9
    monkeypatch.setattr("kornia_lift.matching.refinement.DAMPING", 1e-6)
    undamped = errors(MatchRefiner()(edge + noise[:1], edge + noise[1:], lafs, lafs)[0], lafs)
    assert undamped.square().mean().sqrt() > 1.4 * drift.square().mean().sqrt()


def test_regions_that_leave_the_image_stay() -> None:
    image = texture(200, 200)
    at = torch.tensor([[[3.0, 100.0], [100.0, 3.0], [197.0, 100.0], [100.0, 197.0], [100.0, 100.0]]])
    lafs = laf_from_center_scale_ori(at, torch.full((1, 5, 1, 1), 14.0))
    start = torch.cat([lafs[..., :2], lafs[..., 2:] + 0.4], -1)
    moved, _ = MatchRefiner()(image, image, lafs, start)
    torch.testing.assert_close(moved[0, :4], start[0, :4], rtol=0, atol=0)
    assert errors(moved, lafs)[0, 4] < 0.05


def test_frames_are_neither_mirrored_nor_torn() -> None:
    image, other = texture(200, 200), texture(200, 200, seed=5)
    lafs, found, _ = known_matches(200)
    moved, _ = MatchRefiner(similarity=-1.0, reach=10.0)(image, other, lafs, found)
    singular = torch.linalg.svdvals(moved[0, :, :, :2])
    assert (moved[0, :, :, :2].det() * found[0, :, :, :2].det() > 0).all()
    assert (singular[:, 0] / singular[:, 1]).max() < 4.01


def test_the_correlation_is_that_of_the_frame_that_is_returned() -> None:
    image = texture(200, 200)
    lafs, _, _ = known_matches()
    start = torch.cat([lafs[..., :2], lafs[..., 2:] + torch.tensor([2.5, 0.0])[:, None]], -1)
    stays, similarity = MatchRefiner(reach=0.05)(image, image, lafs, start)
    torch.testing.assert_close(stays, start, rtol=0, atol=0)
    _, again = MatchRefiner(similarity=1.0, reach=1e-6)(image, image, lafs, start)
    torch.testing.assert_close(similarity, again)
    moved, best = MatchRefiner(reach=1.0)(image, image, lafs, start)
    assert errors(moved, lafs).median() < 0.05 and best.median() > 0.999 > similarity.median()


def test_empty_slots_stay_empty() -> None:
    image = texture(200, 200)
    lafs, found, _ = known_matches(10)
    lafs, found = lafs.clone(), found.clone()
    lafs[0, 4:6] = found[0, 4:6] = 0
    moved, similarity = MatchRefiner()(image, copy_of(image), lafs, found)
    assert moved[0, 4:6].eq(0).all() and similarity[0, 4:6].eq(0).all()
    assert moved.isfinite().all()
    none = MatchRefiner()(image, image, lafs[:, :0], found[:, :0])
    assert none[0].shape == (1, 0, 2, 3) and none[1].shape == (1, 0)
    nobody = MatchRefiner()(image[:0], image[:0], lafs[:0], found[:0])
    assert nobody[0].shape == (0, 10, 2, 3) and nobody[1].shape == (0, 10)


def test_batches_and_many_matches_are_refined_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.cat([texture(200, 200, seed=seed) for seed in (0, 1)])
    lafs, found, _ = known_matches()
    both = MatchRefiner()(images, copy_of(images), lafs.expand(2, -1, -1, -1), found.expand(2, -1, -1, -1))
    monkeypatch.setattr("kornia_lift.matching.refinement.CHUNK", 7)
    for k in range(2):
        view, copy = PatchPyramid(images[k : k + 1]), PatchPyramid(copy_of(images[k : k + 1]))
        moved, similarity = MatchRefiner()(view, copy, lafs, found)
        torch.testing.assert_close(both[0][k : k + 1], moved, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(both[1][k : k + 1], similarity, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_number_format_follows_the_frames(dtype: torch.dtype) -> None:
    image = texture(200, 200)
    lafs, found, true = known_matches()
    moved, similarity = MatchRefiner(steps=12)(image, copy_of(image), lafs.to(dtype), found.to(dtype))
    assert moved.dtype == similarity.dtype == dtype
    mixed, _ = MatchRefiner(steps=12)(image.double(), copy_of(image), lafs.to(dtype), found.to(dtype))
    torch.testing.assert_close(mixed, moved, rtol=0.01, atol=0.01)
    rounding = 0.5 if dtype == torch.bfloat16 else 0.1  # of positions near 128
    assert errors(moved.float(), true).median() < rounding


def test_gradients_reach_images_and_frames() -> None:
    image = texture(200, 200).requires_grad_()
    copy = copy_of(image.detach()).requires_grad_()
    lafs, found, _ = known_matches(6)
    lafs = lafs.requires_grad_()
    moved, _ = MatchRefiner()(image, copy, lafs, found)
    moved[..., 2].square().sum().backward()
    for tensor in (image, copy, lafs):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0


def test_a_moved_first_keypoint_moves_the_second_one() -> None:
    """The gradient of the found position to the position of the first keypoint is the map between the images."""
    image = texture(200, 200)
    copy = copy_of(image)
    lafs, _, true = known_matches(20)
    shift = torch.zeros(2, requires_grad=True)
    moved, _ = MatchRefiner(steps=12)(image, copy, torch.cat([lafs[..., :2], lafs[..., 2:] + shift[:, None]], -1), true)
    close = errors(moved, true)[0] < 0.03
    for axis in range(2):
        (slope,) = torch.autograd.grad(moved[0, close, axis, 2].mean(), shift, retain_graph=True)
        torch.testing.assert_close(slope, MAP[axis, :2], atol=0.25, rtol=0)


def test_wrong_arguments_are_refused() -> None:
    image = texture(64, 64)
    lafs, found, _ = known_matches(3)
    with pytest.raises(ShapeError, match=r"slot by slot; got \(1, 3, 2, 3\) and \(1, 2, 2, 3\)"):
        MatchRefiner()(image, image, lafs, found[:, :2])
    with pytest.raises(ShapeError):
        MatchRefiner()(image.expand(1, 3, -1, -1), image, lafs, found)
    for one, two in ((image.expand(2, -1, -1, -1), image), (image, image.expand(2, -1, -1, -1))):
        with pytest.raises(ShapeError, match=r"got 1 for 2 (first|second) images"):
            MatchRefiner()(one, two, lafs, found)
    for wrong in ({"region": 0.0}, {"reach": -1.0}, {"size": 2}, {"steps": 0}, {"similarity": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} expects"):
            MatchRefiner(**wrong)  # type: ignore[arg-type]


def test_matched_images_are_refined_unless_switched_off() -> None:
    image = texture(200, 200)
    copy = copy_of(image)
    feature = LIFTFeature(200)
    found = {
        refine: match_images(image, copy, feature, geometry="homography", refine=refine) for refine in (True, False)
    }
    error = {}
    for refine, match in found.items():
        here, there = match.points
        error[refine] = np.median(np.linalg.norm(here @ MAP[:, :2].numpy().T + MAP[:, 2].numpy() - there, axis=1))
        first, second = match.lafs
        np.testing.assert_allclose(first[:, :, 2], here, atol=1e-4)
        np.testing.assert_allclose(second[:, :, 2], there, atol=1e-4)
    assert found[False].refined is None
    np.testing.assert_array_equal(found[False].points[1], found[False].second.keypoints[found[False].pairs[:, 1]])
    assert error[True] < 0.6 * error[False]
    # the keypoints of the images themselves stay
    np.testing.assert_array_equal(found[True].second.keypoints, found[False].second.keypoints)


def test_positions_are_in_pixels_of_the_image_given_at_any_size() -> None:
    image = texture(200, 200)
    copy = copy_of(image)
    large = torch.nn.functional.interpolate(copy, scale_factor=2, mode="bicubic", align_corners=False).clamp(0, 1)
    match = match_images(image, large, LIFTFeature(200), max_size=200, geometry="homography")
    here, there = match.points
    error = np.linalg.norm(2 * (here @ MAP[:, :2].numpy().T + MAP[:, 2].numpy() + 0.5) - 0.5 - there, axis=1)
    assert np.median(error) < 0.5  # of pixels of half the size


def test_features_without_scales_keep_their_positions() -> None:
    image = texture(128, 160)
    features = extract_features(LIFTFeature(60), image, (160, 128))
    bare = dataclasses.replace(features, scales=None, angles=None)
    pairs = np.stack([np.arange(len(bare))] * 2, 1)
    assert refined_positions((image, image), (bare, features), pairs) is None
    assert match_pair(bare, features, images=(image, image)).refined is None
    assert refined_positions((image, image), (features, features), pairs[:0]).shape == (0, 2)
    same = refined_positions((image, image), (features, features), pairs)
    np.testing.assert_allclose(same, features.keypoints, atol=0.01)


def test_any_kind_of_indices_will_do() -> None:
    image = texture(128, 160)
    features = extract_features(LIFTFeature(60), image, (160, 128))
    pairs = np.stack([np.arange(20), np.arange(20)], 1)
    expected = refined_positions((image, image), (features, features), pairs)
    assert expected is not None
    for kind in (np.uint8, np.int32, np.uint64):
        found = refined_positions((image, image), (features, features), pairs.astype(kind)[::-1])
        np.testing.assert_allclose(found, expected[::-1], atol=1e-3)  # type: ignore[arg-type]


def test_images_of_another_size_and_lists_of_another_length_are_refused() -> None:
    image = texture(128, 160)
    features = extract_features(LIFTFeature(60), image, (160, 128))
    with pytest.raises(ValueError, match=r"features are of an image of \(160, 128\) pixels, got .*\(80, 64\)"):
        match_pair(features, features, images=(image, image[..., ::2, ::2]))
    match = match_pair(features, features, images=(image, image))
    with pytest.raises(ValueError, match="one refined position for each match"):
        dataclasses.replace(match, pairs=match.pairs[:3])


def test_a_match_of_features_is_refined_where_images_are_given() -> None:
    image = texture(128, 160)
    one = extract_features(LIFTFeature(60), image, (160, 128))
    moved = Features(one.keypoints + 0.7, one.descriptors, one.scores, one.scales, one.angles, one.image_size)
    match = match_pair(one, moved, images=(image, image.expand(1, 3, -1, -1)))
    here, there = match.points
    assert np.median(np.abs(there - here)) < 0.05


def test_the_evaluation_measures_refined_positions() -> None:
    image = texture(200, 200)
    scene = StoredPlanes("plane", ["a", "b"], [image, copy_of(image)], [np.eye(3), as_homography()], [Pair(0, 1)])
    feature = LIFTFeature(200)
    estimator = Estimator(orders=1)
    cache: dict[tuple[str, str], Features] = {}
    with torch.inference_mode():
        before, after = (
            evaluate_feature(feature, [scene], 200, estimator=estimator, refine=refine, cache=cache)
            for refine in (False, True)
        )
    assert after["median_error"] < 0.6 * before["median_error"]
    assert after["mma"][0] > before["mma"][0]
    assert after["homography_error"] < before["homography_error"]
    for measure in ("repeatability", "matching_score", "crowding"):  # those of the keypoints are the same
        assert after[measure] == before[measure]

    # an image that cannot be read leaves its pair out, as everywhere
    class Unreadable(StoredPlanes):
        def image(self, index: int) -> Tensor:
            raise UnreadableImageError("no such image")

    held = {(scene.name, name): cache[scene.name, name] for name in scene.names}
    source = SimpleNamespace(read=lambda scene, name: held[scene, name])
    broken = Unreadable("plane", ["a", "b"], [image, copy_of(image)], [np.eye(3), as_homography()], [Pair(0, 1)])
    (result,) = evaluate(source, [broken], Options(200, estimator=None, refine=True))
    assert result.status == SKIPPED and "no such image" in result.reason
    # a file says that it holds refined ones, and files without the option stay comparable
    assert describe_options(Options(refine=True))["refine"] is True
    assert "refine" not in describe_options(Options())


def as_homography() -> np.ndarray:
    return np.concatenate([MAP.double().numpy(), [[0.0, 0.0, 1.0]]])


def test_the_command_refines_unless_it_is_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = texture(160, 160)
    for name, view in (("a", pixels), ("b", copy_of(texture(200, 200))[..., 40:180, 40:180])):
        image.fromarray((view[0, 0].clamp(0, 1) * 255).round().byte().numpy()).save(tmp_path / f"{name}.png")
    reports = []
    for option in ([], ["--no-refine"]):
        main(["match", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "-n", "150", "--json", *option])
        reports.append(json.loads(capsys.readouterr().out))
    assert [report["refined"] for report in reports] == [True, False]
    assert ["refinement" in report["seconds"] for report in reports] == [True, False]
    rows = [np.array(report["matches"]["rows"], dtype=float) for report in reports]
    np.testing.assert_array_equal(rows[0][:, :2], rows[1][:, :2])
    assert 0 < np.abs(rows[0][:, 2:4] - rows[1][:, 2:4]).max() < 30
