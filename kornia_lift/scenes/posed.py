"""Posed images with depth maps, in the layout of the Strecha scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._io import DamagedFileError, read_npz, read_text
from kornia_lift.scenes.images import (
    IMAGE_SUFFIXES,
    find_image,
    image_file_size,
    is_inside,
    read_depth_png,
    read_image,
)
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

#: Relative difference of depth up to which two measurements are of one surface.
DEPTH_TOLERANCE = 0.02
#: A visible point must come back to where it started within this many pixels.
ROUND_TRIP_TOLERANCE = 2.0
_LARGEST = 2**20  # width or height in pixels, inverse depths per metre


def interpolate_inverse_depth(inverse: NDArray[np.uint16], points: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Look up an inverse depth map between pixels.

    Inverse depth is what is interpolated because it is linear in the pixel position over any plane; between
    four neighbours that differ by more than 2 % runs a depth edge, where nothing is known.

    Args:
        inverse: inverse z-depth in any unit, 0 = unknown, shape (H, W).
        points: (x, y) in pixels, shape (N, 2); may lie outside.

    Returns:
        The values, shape (N,), NaN where unknown, and whether they are known, shape (N,).
    """
    height, width = inverse.shape
    usable = inside(points, (width, height))
    safe = np.where(usable[:, None], points, 0.0)
    x = np.clip(safe[:, 0], 0.0, width - 1)
    y = np.clip(safe[:, 1], 0.0, height - 1)
    x0 = np.minimum(x.astype(np.int64), width - 2)
    y0 = np.minimum(y.astype(np.int64), height - 2)
    fx, fy = x - x0, y - y0
    corners = np.stack([inverse[y0 + dy, x0 + dx] for dy in (0, 1) for dx in (0, 1)]).astype(np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    known = usable & (low > 0) & (high <= low * (1 + DEPTH_TOLERANCE))
    top = corners[0] * (1 - fx) + corners[1] * fx
    bottom = corners[2] * (1 - fx) + corners[3] * fx
    return np.where(known, top * (1 - fy) + bottom * fy, np.nan), known


class PosedScene:
    """Images with cameras and depth maps.

    Args:
        name: name of the scene.
        root: folder with ``images/`` and ``depth/``.
        names: image names without suffix, as in ``images/NAME.jpg`` and ``depth/NAME.png``.
        intrinsics: K, shape (n, 3, 3).
        rotations: R, shape (n, 3, 3).
        translations: t, shape (n, 3).
        size: width and height of every image in pixels.
        depth_scale: inverse depth of one gray level, 1 / metres.
        pairs: pairs to evaluate.

    Convention: x ~ K (R X + t), no lens distortion; pixel centres at integers; z-depth, not ray length.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        names: tuple[str, ...],
        intrinsics: FloatArray,
        rotations: FloatArray,
        translations: FloatArray,
        size: tuple[int, int],
        depth_scale: float,
        pairs: tuple[Pair, ...],
        skipped: tuple[SkippedPair, ...] = (),
    ) -> None:
        self.name = name
        self.root = root
        self.names = names
        self.intrinsics = intrinsics
        self.rotations = rotations
        self.translations = translations
        self.size = size
        self.depth_scale = depth_scale
        self.pairs = pairs
        self.skipped = skipped
        self._depth_maps: dict[int, NDArray[np.uint16]] = {}

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None) -> PosedScene:
        """Read a scene folder: ``cameras.npz``, ``images/``, ``depth/`` and, optionally, ``pairs.txt``.

        Without ``pairs.txt`` all pairs are taken. A pair one of whose files is missing is listed in ``skipped``.

        Args:
            folder: scene folder.
            name: name of the scene; the folder's name by default.

        Raises:
            FileNotFoundError: if the folder or ``cameras.npz`` is missing.
            ValueError: if ``cameras.npz`` is damaged or does not hold what the layout asks for.
        """
        root = Path(folder)
        path = root / "cameras.npz"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist. A posed scene is a folder with cameras.npz, images/ and depth/"
            )
        stored = _read_arrays(path)
        names = tuple(str(n) for n in stored["names"].reshape(-1))
        intrinsics, rotations, translations = (stored[k].astype(np.float64) for k in ("K", "R", "t"))
        size = (int(stored["width"]), int(stored["height"]))
        depth_scale = float(stored["depth_scale"])
        n = len(names)
        if intrinsics.shape != (n, 3, 3) or rotations.shape != (n, 3, 3) or translations.size != 3 * n:
            raise ValueError(
                f"{path}: K, R and t must have shape ({n}, 3, 3), ({n}, 3, 3) and ({n}, 3) for {n} names; "
                f"got {intrinsics.shape}, {rotations.shape} and {translations.shape}"
            )
        if len(set(names)) != n:
            raise ValueError(f"{path}: names must be unique; got {', '.join(names)}")
        _check_cameras(path, intrinsics, rotations, names)
        pairs, skipped = _check_files(root, names, _read_pairs(root / "pairs.txt", len(names)))
        return cls(
            name=name or root.resolve().name,
            root=root,
            names=names,
            intrinsics=intrinsics,
            rotations=rotations,
            translations=translations.reshape(n, 3),
            size=size,
            depth_scale=depth_scale,
            pairs=pairs,
            skipped=skipped,
        )

    def __len__(self) -> int:
        return len(self.names)

    def image_path(self, index: int) -> Path:
        """File of image ``index``."""
        return find_image(self.root / "images", self.names[index])

    def image(self, index: int) -> Tensor:
        """Image ``index``, float in [0, 1], shape (1, C, H, W).

        Raises:
            ValueError: if its size is not the one of the cameras.
        """
        image = read_image(self.image_path(index))
        self._check_size("image", index, (image.shape[-1], image.shape[-2]))
        return image

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, from the cameras and checked against the file."""
        self._check_size("image", index, image_file_size(self.image_path(index)))
        return self.size

    def depth(self, index: int, points: NDArray[np.floating] | Tensor) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Measured z-depth at points.

        Args:
            index: image.
            points: (x, y), shape (N, 2).

        Returns:
            Depth in metres, shape (N,), NaN where unknown, and whether it is known, shape (N,).
        """
        value, known = interpolate_inverse_depth(self._inverse_depth(index), as_points(points))
        return 1.0 / (value * self.depth_scale), known

    def relative_pose(self, i: int, j: int) -> tuple[FloatArray, FloatArray]:
        """Motion from camera ``i`` to camera ``j``: X_j = R X_i + t. Returns R (3, 3) and t (3,) in metres."""
        rotation = self.rotations[j] @ self.rotations[i].T
        return rotation, self.translations[j] - rotation @ self.translations[i]

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Carry points of image ``i`` to image ``j`` through the depth of ``i``.

        A point is visible if the depth of ``j`` there agrees within 2 % and the way back through that
        depth lands within 2 px of the start. It is unknown where either depth is, and where the depths agree
        but the way back does not (two measurements that contradict each other).

        Args:
            i: image of the points.
            j: image to carry them to.
            points: (x, y), shape (N, 2).

        Returns:
            Points in ``j`` and their status.
        """
        start = as_points(points)
        depth_i, known_i = self.depth(i, start)
        rotation, translation = self.relative_pose(i, j)
        moved, z = self._project(j, self._unproject(i, start, depth_i) @ rotation.T + translation)
        depth_j, known_j = self.depth(j, moved)
        lands = inside(moved, self.size) & (z > 0)
        with np.errstate(invalid="ignore"):
            agrees = np.abs(z / depth_j - 1.0) <= DEPTH_TOLERANCE
        back, _ = self._project(i, (self._unproject(j, moved, depth_j) - translation) @ rotation)
        with np.errstate(invalid="ignore"):
            returns = np.hypot(*(back - start).T) <= ROUND_TRIP_TOLERANCE
        status = np.full(len(start), UNKNOWN, dtype=np.int8)
        status[known_i & ~lands] = INVISIBLE
        status[known_i & lands & known_j & ~agrees] = INVISIBLE
        status[known_i & lands & known_j & agrees & returns] = VISIBLE
        return Transferred(moved, status)

    def undistort(self, index: int, points: FloatArray) -> FloatArray:
        """The same points (N, 2): these images have no lens distortion."""
        return points

    def local_affine(self, i: int, j: int, points: FloatArray) -> FloatArray:
        """Change of size around each point on the way from ``i`` to ``j``: focal length over depth, isotropic.

        Args:
            i: image of the points.
            j: image to carry them to.
            points: (x, y), shape (N, 2).

        Returns:
            A multiple of the identity for each point, shape (N, 2, 2); NaN where the depth is unknown.
        """
        depth, _ = self.depth(i, points)
        rotation, translation = self.relative_pose(i, j)
        _, z = self._project(j, self._unproject(i, points, depth) @ rotation.T + translation)
        focal_i, focal_j = (np.sqrt(self.intrinsics[k][0, 0] * self.intrinsics[k][1, 1]) for k in (i, j))
        ratio: FloatArray = (focal_j / z) / (focal_i / depth)
        return ratio[:, None, None] * np.eye(2)

    def _unproject(self, index: int, points: FloatArray, depth: FloatArray) -> FloatArray:
        rays = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.linalg.inv(self.intrinsics[index]).T
        return rays * depth[:, None]

    def _project(self, index: int, camera_points: FloatArray) -> tuple[FloatArray, FloatArray]:
        homogeneous = camera_points @ self.intrinsics[index].T
        z = homogeneous[:, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            projected = homogeneous[:, :2] / z[:, None]
        return np.where(np.isfinite(projected), projected, np.nan), z

    def _inverse_depth(self, index: int) -> NDArray[np.uint16]:
        if index not in self._depth_maps:
            inverse = read_depth_png(self.root / "depth" / f"{self.names[index]}.png")
            self._check_size("depth map", index, (inverse.shape[1], inverse.shape[0]))
            self._depth_maps[index] = inverse
        return self._depth_maps[index]

    def _check_size(self, what: str, index: int, size: tuple[int, int]) -> None:
        if size != self.size:
            raise ValueError(
                f"{self.name}: the {what} {self.names[index]!r} is {size[0]}x{size[1]}, the cameras are for "
                f"{self.size[0]}x{self.size[1]}. Resize one of them (and K with the images)"
            )


#: Kind of dtype and rank of what ``cameras.npz`` must hold.
_CAMERAS = {
    "K": ("fiu", 3), "R": ("fiu", 3), "t": ("fiu", -1), "names": ("U", -1), "width": ("fiu", -1),
    "height": ("fiu", -1), "depth_scale": ("fiu", -1),
}  # fmt: skip


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Everything that ``cameras.npz`` must hold.

    Raises:
        ValueError: if something is missing, of a wrong shape, or no number.

    """
    try:
        stored = read_npz(path, _CAMERAS)
    except DamagedFileError as error:
        raise ValueError(f"{error}; make or copy it again") from error
    for key in ("width", "height", "depth_scale"):
        value = stored[key]
        if value.size != 1 or not np.isfinite(value).all() or not 0 < float(value.reshape(-1)[0]) < _LARGEST:
            raise ValueError(f"{path}: {key} must be one positive number, got {np.array2string(value, threshold=4)}")
        stored[key] = value.reshape(())
    for key in ("K", "R", "t"):
        if not np.isfinite(stored[key].astype(np.float64)).all():
            raise ValueError(f"{path}: {key} is not finite")
    return stored


def _check_cameras(path: Path, intrinsics: FloatArray, rotations: FloatArray, names: tuple[str, ...]) -> None:
    """Check that cameras can be inverted, and that image names stay inside the scene.

    Raises:
        ValueError: naming the first that is wrong.

    """
    for name, k, r in zip(names, intrinsics, rotations, strict=True):
        if k[0, 0] <= 0 or k[1, 1] <= 0 or not np.allclose(k[2], [0, 0, k[2, 2]]) or k[2, 2] <= 0:
            raise ValueError(f"{path}: K of {name!r} is no camera matrix")
        if not np.allclose(r @ r.T, np.eye(3), atol=1e-3) or np.linalg.det(r) < 0:
            raise ValueError(f"{path}: R of {name!r} is no rotation")
        if not is_inside(name):
            raise ValueError(f"{path} names the image {name!r}, which is outside the scene's images/")


def _read_pairs(path: Path, count: int) -> tuple[Pair, ...]:
    if not path.is_file():
        return tuple(Pair(i, j) for i in range(count) for j in range(i + 1, count))
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        try:
            i, j = int(fields[0]), int(fields[1])
            overlap = float(fields[2]) if len(fields) > 2 else None
            angle = float(fields[3]) if len(fields) > 3 else None
        except (ValueError, IndexError):
            raise ValueError(
                f"{path}, line {number}: expected 'i j [overlap [angle_deg]]', got {line[:80]!r}"
            ) from None
        if not all(value is None or np.isfinite(value) for value in (overlap, angle)):
            raise ValueError(f"{path}, line {number}: overlap and angle must be finite")
        if not (0 <= i < count and 0 <= j < count and i != j):
            raise ValueError(f"{path}, line {number}: pair {i} {j} does not fit {count} images")
        pairs.append(Pair(i, j, angle_deg=angle, overlap=overlap))
    return tuple(pairs)


def _check_files(
    root: Path, names: tuple[str, ...], pairs: tuple[Pair, ...]
) -> tuple[tuple[Pair, ...], tuple[SkippedPair, ...]]:
    errors: dict[int, str] = {}
    for index, name in enumerate(names):
        if not any((root / "images" / f"{name}{suffix}").is_file() for suffix in IMAGE_SUFFIXES):
            errors[index] = f"image images/{name}.* is missing"
        elif not (root / "depth" / f"{name}.png").is_file():
            errors[index] = f"depth map depth/{name}.png is missing"
    good, skipped = [], []
    for pair in pairs:
        reasons = [errors[k] for k in (pair.i, pair.j) if k in errors]
        if reasons:
            skipped.append(SkippedPair(pair.i, pair.j, "; ".join(reasons)))
        else:
            good.append(pair)
    return tuple(good), tuple(skipped)
