"""A store of training data with exact geometry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg
from tests.helpers.training import picture


def plane_in_two_views(size: tuple[int, int] = (400, 300), seed: int = 0) -> tuple[Store, NDArray[np.float64]]:
    """A textured plane, the store of two views of it with cameras, and the homography between them."""
    cv2 = pytest.importorskip("cv2")
    width, height = size
    k = np.array([[350.0, 0, width / 2 - 0.5], [0, 350.0, height / 2 - 0.5], [0, 0, 1]])
    rotation, _ = cv2.Rodrigues(np.array([0.05, -0.2, 0.1]))
    translation, normal, distance = np.array([0.8, 0.1, 0.2]), np.array([0.0, 0.0, 1.0]), 5.0
    homography = k @ (rotation + np.outer(translation, normal) / distance) @ np.linalg.inv(k)
    homography /= homography[2, 2]
    base = cv2.resize(picture(3 + seed), size)
    second = cv2.warpPerspective(base, homography, size, borderMode=cv2.BORDER_REFLECT)
    rng = np.random.default_rng(seed)
    xy = rng.uniform(100, 200, (60, 2))
    moved = apply_homography(homography, xy)
    params = (350.0, 350.0, width / 2, height / 2)  # COLMAP's pixel centres
    cameras = [Camera("PINHOLE", params, size, r, t) for r, t in ((np.eye(3), np.zeros(3)), (rotation, translation))]
    images = tuple(
        StoredImage(f"wall/{n}", "wall", "sfm", encode_jpeg(image, 98), camera)
        for n, (image, camera) in enumerate(zip((base, second), cameras, strict=True))
    )
    ones = np.ones(120)
    tracks = Observations(
        np.repeat([0, 1], 60), np.tile(np.arange(60), 2), np.concatenate([xy, moved]), 0 * ones, 0 * ones, ones, ones
    )
    return Store(images, tracks, Observations.none()), homography
