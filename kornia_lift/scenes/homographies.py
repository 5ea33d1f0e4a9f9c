"""Sequences of images related by homographies, in the layout of Oxford and HPatches."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._io import ImageFileError, load_image, read_text
from kornia_lift.scenes.images import IMAGE_SUFFIXES, find_image, image_file_size
from kornia_lift.scenes.scene import (
    INVISIBLE,
    UNKNOWN,
    VISIBLE,
    FloatArray,
    Pair,
    SkippedPair,
    Transferred,
    as_points,
    inside,
)

#: A homography is degenerate if its largest local change of area in the image is outside [1 / this, this].
MAX_AREA_CHANGE = 1e4
_IMAGE = re.compile(r"(?:img)?(\d+)")
_HOMOGRAPHY = re.compile(r"H_1_(\d+)|H1to(\d+)p")


def apply_homography(homography: FloatArray, points: FloatArray) -> FloatArray:
    """Map points (N, 2) by a homography (3, 3); NaN where a point goes behind the camera or to infinity.

    Convention: pixel centres at integers; the sign of H is that which makes H[2, 2] positive.
    """
    scaled = homography / homography[2, 2]
    mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ scaled.T
    front = mapped[:, 2] > np.finfo(np.float64).eps
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(front[:, None], mapped[:, :2] / mapped[:, 2:], np.nan)


def check_homography(homography: FloatArray, size: tuple[int, int]) -> str | None:
    """Why a homography cannot be ground truth for an image of this size, or None if it can."""
    if homography.shape != (3, 3):
        return f"homography has shape {homography.shape} instead of (3, 3)"
    if not np.isfinite(homography).all():
        return "homography is not finite"
    if abs(homography[2, 2]) <= 1e-12 * np.abs(homography).max():
        return "degenerate homography: H[2, 2] is 0"
    scaled = homography / homography[2, 2]
    width, height = size
    x, y = np.meshgrid(np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5))
    w = scaled[2, 0] * x.ravel() + scaled[2, 1] * y.ravel() + 1.0
    front = w > 0
    if not front.any():
        return "degenerate homography: the whole image goes behind the camera"
    # det of the Jacobian of a homography at a point is det(H) / w^3.
    with np.errstate(over="ignore", invalid="ignore"):
        area = np.linalg.det(scaled) / w[front] ** 3
    if np.isfinite(area).all() and area.max() < 0:
        return "degenerate homography: it mirrors the image"
    if not 1.0 / MAX_AREA_CHANGE <= area.max() <= MAX_AREA_CHANGE:  # also not NaN
        return f"degenerate homography: it changes areas by a factor of {area.max():.3g}"
    return None


class HomographySequence:
    """Images ``1..n`` of one plane (or from one spot) with the homographies from the first to each other.

    Args:
        name: name of the sequence.
        root: folder of the images.
        names: image names without suffix.
        homographies: for each image the map from the first, shape (3, 3); the identity for the first itself.
        pairs: pairs to evaluate.
        skipped: pairs without usable ground truth.

    Convention: ``H_1_k`` maps pixels of image 1 to pixels of image k; pixel centres at integers.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        names: tuple[str, ...],
        homographies: tuple[FloatArray | None, ...],
        pairs: tuple[Pair, ...],
        skipped: tuple[SkippedPair, ...] = (),
    ) -> None:
        self.name = name
        self.root = root
        self.names = names
        self.homographies = homographies
        self.pairs = pairs
        self.skipped = skipped
        self._sizes: dict[int, tuple[int, int]] = {}

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None, all_pairs: bool = False) -> HomographySequence:
        """Read a folder with images ``1..n`` and files ``H_1_k``, or ``img1..n`` and ``H1tokp`` (Oxford's own names).

        An image without homography, a homography without image, or a damaged file does not stop the reading: its
        pair is listed in ``skipped`` with the reason.

        Args:
            folder: sequence folder.
            name: name of the sequence; the folder's name by default.
            all_pairs: also pair images 2..n with each other; by default only (1, k) as in the literature.

        Raises:
            FileNotFoundError: if the folder has nothing to pair with image 1.
        """
        root = Path(folder)
        stems = _stems(root)
        numbers = sorted(stems)
        if len(numbers) < 2:
            raise FileNotFoundError(
                f"{root} is not a homography sequence: it needs images 1..n (e.g. 1.jpg or 1.ppm) and files H_1_k"
            )
        errors: dict[int, str] = {}
        homographies: list[FloatArray | None] = []
        for index, number in enumerate(numbers):
            homography, problem = _read_homography(root, number, stems[number])
            homographies.append(homography)
            if problem:
                errors[index] = problem
        pairs, skipped = [], []
        first = numbers.index(1)
        everything = [(i, j) for i in range(len(numbers)) for j in range(i + 1, len(numbers))]
        for i, j in everything if all_pairs else [(first, j) for j in range(len(numbers)) if j != first]:
            reasons = [errors[k] for k in (i, j) if k in errors]
            if reasons:
                skipped.append(SkippedPair(i, j, "; ".join(reasons)))
            else:
                pairs.append(Pair(i, j))
        return cls(
            name=name or root.resolve().name,
            root=root,
            names=tuple(stems[n] for n in numbers),
            homographies=tuple(homographies),
            pairs=tuple(pairs),
            skipped=tuple(skipped),
        )

    def __len__(self) -> int:
        return len(self.names)

    def image_path(self, index: int) -> Path:
        """File of image ``index``."""
        return find_image(self.root, self.names[index])

    def image(self, index: int) -> Tensor:
        """Image ``index``, float in [0, 1], shape (1, C, H, W)."""
        return load_image(self.image_path(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        if index not in self._sizes:
            self._sizes[index] = image_file_size(self.image_path(index))
        return self._sizes[index]

    def homography(self, i: int, j: int) -> FloatArray:
        """The map from image ``i`` to image ``j``, shape (3, 3), last element 1.

        Raises:
            ValueError: if the homography of one of the images is missing.
        """
        first, second = self.homographies[i], self.homographies[j]
        if first is None or second is None:
            lacking = self.names[i if first is None else j]
            raise ValueError(f"{self.name}: no usable homography for image {lacking}")
        homography = second @ np.linalg.inv(first)
        return homography / homography[2, 2]

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Carry points (N, 2) of image ``i`` to image ``j``; visible if they land inside it."""
        start = as_points(points)
        moved = apply_homography(self.homography(i, j), start)
        status = np.full(len(start), UNKNOWN, dtype=np.int8)
        known = inside(start, self.image_size(i))
        lands = inside(moved, self.image_size(j))
        status[known & lands] = VISIBLE
        status[known & ~lands] = INVISIBLE
        return Transferred(moved, status)

    def local_affine(self, i: int, j: int, points: FloatArray) -> FloatArray:
        """Derivative of the homography from ``i`` to ``j`` at points (N, 2), shape (N, 2, 2)."""
        return homography_jacobian(self.homography(i, j), points)


def homography_jacobian(homography: FloatArray, points: FloatArray) -> FloatArray:
    """Derivative of a homography (3, 3) at points (N, 2), shape (N, 2, 2)."""
    mapped = apply_homography(homography, points)
    w = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography[2]
    linear = homography[None, :2, :2] - mapped[:, :, None] * homography[2, :2]
    return np.asarray(linear / w[:, None, None])


def has_homographies(folder: Path) -> bool:
    """Whether a folder holds files ``H_1_k``, or ``H1tokp`` (Oxford's own names)."""
    return any(folder.glob("H_1_*")) or any(folder.glob("H1to*p"))


def has_numbered_images(folder: Path) -> bool:
    """Whether a folder holds an image ``1`` or ``img1`` and another of a number, as a sequence does."""
    found = {s[1] for p in folder.iterdir() if p.suffix in IMAGE_SUFFIXES and (s := _IMAGE.fullmatch(p.stem))}
    return "1" in found and len(found) > 1


def _stems(root: Path) -> dict[int, str]:
    """Names of the images present or named by a homography, by their number; image 1 is always among them."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    stems: dict[int, str] = {}
    named = set()
    for path in sorted(root.iterdir()):
        image, homography = _IMAGE.fullmatch(path.stem), _HOMOGRAPHY.fullmatch(path.name)
        if path.suffix in IMAGE_SUFFIXES and image:
            number = int(image[1])
            if path.stem == str(number) or number not in stems:
                stems[number] = path.stem
        elif homography:
            named.add(int(homography[1] or homography[2]))
    return {n: stems.get(n, str(n)) for n in ({*stems, *named, 1} if stems or named else ())}


def _read_homography(root: Path, number: int, stem: str) -> tuple[FloatArray | None, str | None]:
    try:
        size = image_file_size(find_image(root, stem))
    except FileNotFoundError:
        return None, f"image {number} is missing"
    except ImageFileError as error:
        return None, str(error)
    if number == 1:
        return np.eye(3), None
    path = next((p for p in (root / f"H_1_{number}", root / f"H1to{number}p") if p.is_file()), None)
    if path is None:
        return None, f"H_1_{number} is missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about an empty file, which the shape shows too
            homography = np.loadtxt(read_text(path, limit=2**16).splitlines(), dtype=np.float64)
    except (ValueError, OSError):
        return None, f"{path.name} does not hold a 3x3 matrix of numbers"
    problem = check_homography(homography, size)
    return (None, f"{path.name}: {problem}") if problem else (homography, None)
