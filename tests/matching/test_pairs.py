"""``match_images``: from paths or tensors to verified matches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kornia_lift import LIFTFeature, draw_matches, load_image, match_images
from kornia_lift._kornia import ShapeError
from tests.helpers.pictures import texture

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def feature() -> LIFTFeature:
    return LIFTFeature(300)


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """A texture, and the same moved by (12, 7) pixels."""
    large = texture(220, 260)
    return large[..., 10:210, 5:245], large[..., 3:203, 17:257][..., :243]


def test_a_shift_is_found(feature: LIFTFeature, pair: tuple[Tensor, Tensor]) -> None:
    match = match_images(*pair, feature, geometry="homography")
    assert match.verified.sum() > 100
    assert match.model is not None
    expected = np.array([[1, 0, -12], [0, 1, 7], [0, 0, 1]])
    np.testing.assert_allclose(match.model / match.model[2, 2], expected, atol=0.3)
    first, second = (points[match.verified] for points in match.points)
    np.testing.assert_allclose(np.median(first - second, axis=0), [12, -7], atol=0.1)


def test_paths_and_tensors_give_the_same(tmp_path: Path, feature: LIFTFeature, pair: tuple[Tensor, Tensor]) -> None:
    image = pytest.importorskip("PIL.Image")
    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    for path, tensor in zip(paths, pair, strict=True):
        image.fromarray((tensor[0, 0] * 255).round().byte().numpy()).save(path)
    tensors = [load_image(path) for path in paths]
    expected = match_images(*tensors, feature)
    assert np.array_equal(match_images(paths[0], str(paths[1]), feature).pairs, expected.pairs)
    colour = [tensor[0].expand(3, -1, -1) for tensor in tensors]
    assert len(match_images(*colour, feature).pairs) == pytest.approx(len(expected.pairs), abs=5)
    picture = draw_matches(*tensors, expected)
    assert picture.shape == (200, 240 + 8 + 240, 3)
    assert (picture != draw_matches(*tensors, tuple(torch.zeros(0, 2, 3) for _ in paths))).any()


def test_no_gradient_is_recorded_and_the_default_is_lift(pair: tuple[Tensor, Tensor]) -> None:
    match = match_images(pair[0].requires_grad_(), pair[1])
    assert not match.first.lafs.requires_grad
    assert len(match.first) > 100  # one keypoint per location of a small image; the other slots are dropped


def test_any_kornia_feature() -> None:
    from kornia.feature import SIFTFeature

    feature: nn.Module = SIFTFeature(200)
    assert match_images(texture(120, 160), texture(120, 160), feature).verified.sum() > 50


def test_refusals(tmp_path: Path, feature: LIFTFeature) -> None:
    image = texture(60, 60)
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg does not exist"):
        match_images(tmp_path / "absent.jpg", image, feature)
    with pytest.raises(ShapeError, match=r"expects one image, \(1, 1\|3, H, W\), got \(2, 1, 60, 60\)"):
        match_images(image, image.expand(2, -1, -1, -1), feature)
    with pytest.raises(ValueError, match=r"pixel values in \[0, 1\]"):
        match_images(image * 255, image, feature)
    with pytest.raises(TypeError, match="floating-point"):
        match_images((image * 255).byte(), image, feature)


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_threads_may_share_a_feature(model: str) -> None:
    """Nothing is hung into the parts of a feature that other threads run."""
    shared = LIFTFeature(60, pretrained=model)
    images = [texture(100, 100 + 4 * n, seed=n) for n in range(8)]
    alone = [match_images(image, images[0], shared).pairs for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: match_images(image, images[0], shared).pairs, images))
    assert [len(pairs) for pairs in found] == [len(pairs) for pairs in alone]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in shared.modules())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"feature": "lift-plus"}, TypeError, "such as LIFTFeature.2000, pretrained='lift-plus'., got str"),
        ({"feature": LIFTFeature}, TypeError, "got the class LIFTFeature"),
        ({"geometry": "essential"}, ValueError, "fundamental, homography, got 'essential'"),
        ({"max_size": None}, ValueError, "max_size expects a longer side in pixels, or 0 for any, got None"),
        ({"max_size": -1}, ValueError, "got -1"),
        ({"threshold": -3}, ValueError, "threshold expects an error in pixels above 0, got -3"),
        ({"threshold": 0}, ValueError, "got 0"),
        ({"threshold": float("nan")}, ValueError, "got nan"),
        ({"ratio": -1}, ValueError, "ratio expects a number above 0 and at most 1"),
        ({"ratio": 80}, ValueError, "got 80"),
        ({"keep": "learned"}, TypeError, "keep=CorrespondenceFilter.*got str 'learned'"),
        ({"first": np.zeros((40, 40, 3), np.uint8)}, TypeError, "a path or a tensor .* got ndarray"),
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"first": texture(60, 60), "second": texture(60, 60), "feature": nn.Identity()} | options
    with pytest.raises(error, match=message):
        match_images(**given)  # type: ignore[arg-type]
