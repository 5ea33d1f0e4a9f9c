"""What evaluation and training ask of a scene: images, pairs, and where a point of one lies in the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

#: The point lies in the other image and is seen there.
VISIBLE = 1
#: The point lies outside the other image, behind its camera, or something stands in front of it.
INVISIBLE = 0
#: The ground truth does not say, for example because no depth was measured. Never counts as a miss.
UNKNOWN = -1

FloatArray = NDArray[np.float64]
StatusArray = NDArray[np.int8]


class Transferred(NamedTuple):
    """Points carried from one image to another.

    Attributes:
        points: positions in the other image, shape (N, 2) as (x, y); NaN where there is no position at all.
        status: :data:`VISIBLE`, :data:`INVISIBLE` or :data:`UNKNOWN`, shape (N,).
    """

    points: FloatArray
    status: StatusArray


@dataclass(frozen=True)
class Pair:
    """Two images of a scene that see the same things.

    Attributes:
        i: index of the first image.
        j: index of the second image.
        angle_deg: angle between the viewing rays, median over the common points, degrees; None if not known.
        overlap: share of the view that is common, 0 to 1; None if not known.
    """

    i: int
    j: int
    angle_deg: float | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class SkippedPair:
    """A pair that cannot be evaluated because its ground truth is missing or broken."""

    i: int
    j: int
    reason: str


@runtime_checkable
class Scene(Protocol):
    """Images with known geometry.

    Convention: points are (x, y) in pixels, the centre of the top-left pixel is (0, 0), y points down.
    """

    @property
    def name(self) -> str:
        """Name of the scene, unique within a data set."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images; they are the keys of feature files."""
        ...

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs to evaluate."""
        ...

    @property
    def skipped(self) -> tuple[SkippedPair, ...]:
        """Pairs of the layout whose ground truth is missing or broken, with the reason."""
        ...

    def image(self, index: int) -> Tensor:
        """Return image ``index``, float in [0, 1], shape (1, C, H, W)."""
        ...

    def image_size(self, index: int) -> tuple[int, int]:
        """Return width and height of image ``index`` in pixels."""
        ...

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Carry points (N, 2) of image ``i`` to image ``j``."""
        ...


@runtime_checkable
class HasPose(Protocol):
    """A scene of images with known cameras."""

    @property
    def intrinsics(self) -> FloatArray:
        """K of each image, shape (n, 3, 3)."""
        ...

    def relative_pose(self, i: int, j: int) -> tuple[FloatArray, FloatArray]:
        """R (3, 3) and t (3,) with X_j = R X_i + t."""
        ...

    def undistort(self, index: int, points: FloatArray) -> FloatArray:
        """Points (N, 2) as a camera without lens distortion and with the same K would see them."""
        ...


@runtime_checkable
class HasLocalAffine(Protocol):
    """A scene that knows how the surroundings of a point are distorted on the way to another image."""

    def local_affine(self, i: int, j: int, points: FloatArray) -> FloatArray:
        """Linear part of the transfer around each point, shape (N, 2, 2)."""
        ...


def as_points(points: NDArray[np.floating] | Tensor) -> FloatArray:
    """Points as a float64 array of shape (N, 2).

    Raises:
        ValueError: if the shape is not (N, 2).
    """
    array = points.detach().cpu().numpy() if isinstance(points, Tensor) else np.asarray(points)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2) as (x, y); got {tuple(array.shape)}")
    return array.astype(np.float64)


def inside(points: FloatArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether points lie on the pixel grid [0, width-1] x [0, height-1]; NaN is outside."""
    width, height = size
    x, y = points[:, 0], points[:, 1]
    # Slack of 0.0005 pixels: a corner pixel that was warped exactly stays inside after rounding.
    eps = 5e-4
    return (x >= -eps) & (y >= -eps) & (x <= width - 1 + eps) & (y <= height - 1 + eps)
