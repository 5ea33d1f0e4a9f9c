"""Images and stores that the tests of the training make."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kornia_lift.training.data.store import Store, encode_jpeg

SIZE = 420


def picture(seed: int = 1, size: int = SIZE) -> np.ndarray:
    """Blobs of several sizes, uint8."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 110.0, dtype=np.float32)
    for sigma, strength in ((3.0, 12), (6.0, 25)):
        noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigma)
        image += strength * noise / noise.std()
    return image.clip(0, 255).astype(np.uint8)


def with_image(store: Store, index: int, image: np.ndarray, quality: int = 98) -> Store:
    """The same store with other pixels in one image."""
    images = list(store.images)
    images[index] = dataclasses.replace(images[index], jpeg=encode_jpeg(image, quality))
    return dataclasses.replace(store, images=tuple(images))


def as_single(store: Store) -> Store:
    """The first image of the store as a single one."""
    images = tuple(dataclasses.replace(image, kind="single", scene=image.name) for image in store.images)
    return dataclasses.replace(store, images=images, tracks=store.tracks.take(store.tracks.image == 0))
