"""Lens distortion by kornia is that of COLMAP, to which pycolmap is needed for rarer models only."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.training.data.cameras import Camera

PARAMS = {
    "SIMPLE_PINHOLE": (700.0, 322.0, 238.0),
    "PINHOLE": (700.0, 710.0, 322.0, 238.0),
    "SIMPLE_RADIAL": (700.0, 322.0, 238.0, -0.17),
    "RADIAL": (700.0, 322.0, 238.0, 0.05, -0.02),
    "OPENCV": (700.0, 710.0, 322.0, 238.0, -0.1, 0.03, 1e-3, -2e-3),
}


def camera(model: str, params: tuple[float, ...]) -> Camera:
    return Camera(model, params, (640, 480), np.eye(3), np.zeros(3))


@pytest.mark.parametrize("model", PARAMS)
def test_points_are_undistorted_as_by_colmap(model: str) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    made = camera(model, PARAMS[model])
    points = np.random.default_rng(0).uniform(0, [639, 479], (200, 2))
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=list(PARAMS[model]))
    k = theirs.calibration_matrix()
    k[:2, 2] -= 0.5
    assert np.allclose(made.intrinsics, k)
    expected = theirs.cam_from_img(points + 0.5) @ k[:2, :2].T + k[:2, 2]
    assert np.abs(made.undistort(points) - expected).max() < 1e-4


def test_a_rare_model_is_colmaps() -> None:
    pytest.importorskip("pycolmap")
    made = camera("SIMPLE_RADIAL_FISHEYE", (700.0, 320.0, 240.0, 0.0))
    middle = np.array([[319.5, 239.5]])
    assert np.allclose(made.undistort(middle), middle)


@pytest.mark.parametrize("model", PARAMS)
def test_a_wrong_number_of_parameters_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match=f"{model}.*parameters, got 2"):
        camera(model, (700.0, 320.0)).undistort(np.zeros((1, 2)))
