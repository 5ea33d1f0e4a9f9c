"""A store that is made in no time."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg
from tests.helpers.rotated_scene import texture


@pytest.fixture
def tiny_store() -> Store:
    """Three images of different sizes; point 0 in two of them, points 1 and 2 in one."""
    pictures = [texture(120, 160, 2), texture(100, 90, 3), texture(80, 80, 4)]
    tracks = Observations(
        np.array([0, 1, 0, 2]),
        np.array([0, 0, 1, 2]),
        np.array([[60.0, 50], [40, 45], [100, 70], [40, 40]]),
        np.array([2.0, 1.5, 2.0, 1.5]),
        np.array([0.0, 0.5, 1.0, 2.0]),
    )
    empty = Observations(np.array([2]), np.array([-1]), np.array([[40.0, 40]]), np.array([2.0]), np.array([0.0]))
    names = ("a/1", "a/2", "b/3")
    images = tuple(StoredImage(n, n[0], "sfm", encode_jpeg(p, 95)) for n, p in zip(names, pictures, strict=True))
    return Store(images, tracks, empty, {"a": {"found": 2, "images": 2}})
