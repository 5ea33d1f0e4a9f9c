"""Features as OpenCV's keypoints: the same circles, in OpenCV's convention."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.features import Features
from kornia_lift.integrations.opencv import from_opencv, to_opencv

cv2 = pytest.importorskip("cv2")


def some_features(count: int = 5) -> Features:
    rng = np.random.default_rng(0)
    return Features(
        keypoints=rng.uniform(0, 100, (count, 2)),
        descriptors=rng.random((count, 128)).astype(np.float32),
        scores=rng.random(count),
        scales=rng.uniform(1, 8, count),
        angles=rng.uniform(-180, 180, count),
        image_size=(120, 110),
    )


def test_there_and_back() -> None:
    features = some_features()
    keypoints, descriptors = to_opencv(features)
    assert all(isinstance(k, cv2.KeyPoint) for k in keypoints)
    assert all(0 <= k.angle < 360 for k in keypoints)
    back = from_opencv(keypoints, descriptors, features.image_size)
    for name in ("keypoints", "descriptors", "scores", "scales", "angles"):
        np.testing.assert_allclose(getattr(back, name), getattr(features, name), rtol=1e-5, err_msg=name)
    assert back.image_size == features.image_size


def test_convention_is_that_of_opencvs_sift() -> None:
    """A blob of sigma s has the size 2 s; a ramp that becomes brighter downwards has the angle 90, ours is -90."""
    y, x = np.mgrid[:101, :101]
    blob = 255 * np.exp(-((x - 50.0) ** 2 + (y - 50.0) ** 2) / (2 * 8**2))
    (found,) = [k for k in cv2.SIFT_create().detect(blob.astype(np.uint8)) if abs(k.pt[0] - 50) < 2][:1]
    features = from_opencv([found], np.zeros((1, 128), np.float32))
    assert features.scales is not None
    assert features.scales[0] == pytest.approx(8, rel=0.15)
    down = cv2.KeyPoint(50, 50, 4, 90)
    assert from_opencv([down], np.zeros((1, 128), np.float32)).angles == pytest.approx([-90])


@pytest.mark.parametrize("angle", [0.0, 1e-20, 1e-6, -1e-6, 180.0, -180.0, 360.0])
def test_angles_stay_below_360_in_single_precision(angle: float) -> None:
    features = Features(np.zeros((1, 2)), np.zeros((1, 4), np.float32), scales=np.ones(1), angles=np.array([angle]))
    (keypoint,), _ = to_opencv(features)
    assert 0 <= keypoint.angle < 360
    assert np.cos(np.radians(keypoint.angle)) == pytest.approx(np.cos(np.radians(angle)), abs=1e-6)


def test_matcher_of_opencv_takes_them() -> None:
    _, descriptors = to_opencv(some_features())
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(descriptors, descriptors[::-1].copy())
    assert [m.trainIdx for m in matches] == [4, 3, 2, 1, 0]


def test_nothing_found() -> None:
    assert to_opencv(from_opencv([], None))[0] == []


def test_refusals() -> None:
    features = some_features()
    with pytest.raises(ValueError, match="2 keypoints and 5 descriptors"):
        from_opencv(to_opencv(features)[0][:2], features.descriptors)
    without = Features(keypoints=features.keypoints, descriptors=features.descriptors)
    with pytest.raises(ValueError, match="expects features with scales"):
        to_opencv(without)
    assert from_opencv([cv2.KeyPoint(1, 2, 3)], np.zeros((1, 8), np.float32)).angles is None
