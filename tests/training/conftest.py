"""A store small enough to train on in seconds: one picture, seen through known similarities."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kornia_lift.training.data.store import Places, Store, encode_jpeg
from kornia_lift.training.paper.quadruplets import QuadrupletSampler

TURNS = (0.0, 40.0)
ZOOM = 1.2
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


@pytest.fixture(scope="session")
def tiny_store() -> Store:
    """40 places in two views: the second is turned clockwise by 40 degrees and zoomed; the empty regions are flat."""
    cv2 = pytest.importorskip("cv2")
    base = picture()
    middle = (SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -TURNS[1], ZOOM)
    second = cv2.warpAffine(base, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    flat = np.full((200, 200), 110, dtype=np.uint8)
    rng = np.random.default_rng(2)
    radius, angle = rng.uniform(0, 95, 40), rng.uniform(0, 2 * np.pi, 40)
    xy = middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    moved = xy @ matrix[:, :2].T + matrix[:, 2]
    sigma, theta = rng.uniform(2, 3, 40), rng.uniform(0, 2 * np.pi, 40)
    number = np.arange(40)
    places = Places(
        np.repeat([0, 1], 40),
        np.concatenate([number, number]),
        np.concatenate([xy, moved]),
        np.concatenate([sigma, ZOOM * sigma]),
        np.concatenate([theta, theta + np.radians(TURNS[1])]),
    )
    empty = Places(np.full(8, 2), np.full(8, -1), rng.uniform(60, 140, (8, 2)), np.full(8, 2.5), np.zeros(8))
    jpeg = tuple(encode_jpeg(p, 98) for p in (base, second, flat))
    return Store(("turned/0", "turned/1", "flat/0"), jpeg, places, empty)


@pytest.fixture(scope="session")
def hard_store(tiny_store: Store) -> Store:
    """The same places, the second view unevenly lit and noisy: an untrained network fails on it."""
    second = tiny_store.decode(1).numpy().astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] / 20.0
    noise = np.random.default_rng(3).standard_normal(second.shape) * 10
    bad = (second * 0.7 + 20 * np.sin(x) * np.cos(1.3 * y) + 40 + noise).clip(0, 255).astype(np.uint8)
    return dataclasses.replace(tiny_store, jpeg=(tiny_store.jpeg[0], encode_jpeg(bad, 98), tiny_store.jpeg[2]))


@pytest.fixture(scope="session")
def hard_sampler(hard_store: Store) -> QuadrupletSampler:
    return QuadrupletSampler(hard_store)


@pytest.fixture(scope="session")
def sampler(tiny_store: Store) -> QuadrupletSampler:
    return QuadrupletSampler(tiny_store)


@pytest.fixture(scope="session")
def single_views(tiny_store: Store) -> QuadrupletSampler:
    """Only the first view of every place: second views have to be made."""
    return QuadrupletSampler(dataclasses.replace(tiny_store, places=tiny_store.places.take(np.arange(40))))
