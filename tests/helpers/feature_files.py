"""Feature files that tests write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kornia_lift.features import Features
from kornia_lift.files import FeatureFile


@contextmanager
def writing(path: Path, options: Mapping[str, Any] | None = None) -> Iterator[FeatureFile]:
    """A file to which the block adds images; packed at its end."""
    with FeatureFile(path, options or {}) as file:
        yield file
        file.finish()


def random_features(count: int, seed: int = 0) -> Features:
    """Features of an image of 64 x 64 pixels that have everything a record can have."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        rng.uniform(0, 63, (count, 2)),
        descriptors,
        rng.uniform(0, 1, count),
        rng.uniform(1, 8, count),
        rng.uniform(-180, 180, count),
        (64, 64),
        2.0,
    )


def replace(path: Path, name: str, value: object) -> None:
    """Replace a dataset of a file."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = value
