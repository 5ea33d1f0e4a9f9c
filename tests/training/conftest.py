"""A store small enough to train on in seconds: one picture, seen through known similarities."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from tests.helpers.training import (
    SIZE,
    as_single,
    do_not_match_single_images,
    picture,
    validate_on_few_pairs,
    with_image,
)

ROTATIONS = (0.0, 40.0)
ZOOM = 1.2


@pytest.fixture(autouse=True)
def _single_images_are_not_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for the tests of that warning are single images matched whenever they are read: it takes 2 s each time."""
    do_not_match_single_images(monkeypatch)


@pytest.fixture
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation batches of the compact recipe as small as those of a short training, of which they are most."""
    validate_on_few_pairs(monkeypatch)


@pytest.fixture(scope="session")
def tiny_store() -> Store:
    """40 locations in two views, the second rotated clockwise by 40 degrees and zoomed; the empty regions are flat."""
    cv2 = pytest.importorskip("cv2")
    base = picture()
    middle = (SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -ROTATIONS[1], ZOOM)
    second = cv2.warpAffine(base, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    flat = np.full((200, 200), 110, dtype=np.uint8)
    rng = np.random.default_rng(2)
    radius, angle = rng.uniform(0, 95, 40), rng.uniform(0, 2 * np.pi, 40)
    xy = middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    moved = xy @ matrix[:, :2].T + matrix[:, 2]
    sigma, theta = rng.uniform(2, 3, 40), rng.uniform(0, 2 * np.pi, 40)
    number = np.arange(40)
    tracks = Observations(
        np.repeat([0, 1], 40),
        np.concatenate([number, number]),
        np.concatenate([xy, moved]),
        np.concatenate([sigma, ZOOM * sigma]),
        np.concatenate([theta, theta + np.radians(ROTATIONS[1])]),
    )
    empty = Observations(np.full(8, 2), np.full(8, -1), rng.uniform(60, 140, (8, 2)), np.full(8, 2.5), np.zeros(8))
    names = (("rotated/0", base), ("rotated/1", second), ("flat/0", flat))
    images = tuple(StoredImage(name, name[:-2], "sfm", encode_jpeg(image, 98)) for name, image in names)
    return Store(images, tracks, empty)


@pytest.fixture(scope="session")
def hard_store(tiny_store: Store) -> Store:
    """The same locations, the second view unevenly illuminated and noisy: an untrained network fails on it."""
    second = tiny_store.decode(1).numpy().astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] / 20.0
    noise = np.random.default_rng(3).standard_normal(second.shape) * 10
    bad = (second * 0.7 + 20 * np.sin(x) * np.cos(1.3 * y) + 40 + noise).clip(0, 255).astype(np.uint8)
    return with_image(tiny_store, 1, bad)


@pytest.fixture(scope="session")
def hard_sampler(hard_store: Store) -> QuadrupletSampler:
    return QuadrupletSampler(hard_store)


@pytest.fixture(scope="session")
def sampler(tiny_store: Store) -> QuadrupletSampler:
    return QuadrupletSampler(tiny_store)


@pytest.fixture(scope="session")
def single_views(tiny_store: Store) -> QuadrupletSampler:
    """Only the first view of every location: second views are synthetic."""
    return QuadrupletSampler(as_single(tiny_store))
