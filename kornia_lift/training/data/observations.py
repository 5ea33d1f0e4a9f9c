"""Views of locations in images: the table from which the samples of a training are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observations:
    """Views of locations, a row each.

    Args:
        image: index of the image, int32, shape (M,).
        point: number of the location; views with one number show one location; -1 for none. int32, shape (M,).
        xy: centre in pixels, pixel centres at integers, float32, shape (M, 2).
        sigma: SIFT scale in pixels; 0 where no keypoint with its whole support is confirmed. float32, shape (M,).
        theta: SIFT angle in radians, clockwise on screen, float32, shape (M,).
        zoom: pixels per unit of length at the location, float32, shape (M,); only ratios within a location have a
            meaning. By default the SIFT scale.
        angle: clockwise angle of the common frame of the location in this image, radians, float32, shape (M,). By
            default the SIFT angle.

    """

    image: NDArray[np.integer]
    point: NDArray[np.integer]
    xy: NDArray[np.floating]
    sigma: NDArray[np.floating]
    theta: NDArray[np.floating]
    zoom: NDArray[np.floating] = None  # type: ignore[assignment]
    angle: NDArray[np.floating] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, default in (("zoom", self.sigma), ("angle", self.theta)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for item in dataclasses.fields(self):
            dtype = np.int32 if item.name in ("image", "point") else np.float32
            shape = (-1, 2) if item.name == "xy" else (-1,)
            object.__setattr__(self, item.name, np.asarray(getattr(self, item.name), dtype=dtype).reshape(shape))
            if len(getattr(self, item.name)) != len(self.image):
                raise ValueError(f"{item.name} has {len(getattr(self, item.name))} rows, image {len(self.image)}")

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def none(cls) -> Observations:
        """Return a table without rows."""
        whole, real = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return cls(whole, whole, np.zeros((0, 2)), real, real)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Observations:
        """Return the chosen rows."""
        return Observations(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def join_observations(parts: Sequence[Observations]) -> Observations:
    """Concatenate tables."""
    names = [f.name for f in dataclasses.fields(Observations)]
    return Observations(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
