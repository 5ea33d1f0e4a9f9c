"""Posed images with depth maps, in the layout of the Strecha scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._io import load_image
from kornia_lift.scenes.depth import DEPTH_TOLERANCE, InverseDepth, interpolate_inverse_depth
from kornia_lift.scenes.images import find_image, image_file_size, read_depth_png
from kornia_lift.scenes.posed_files import check_cameras, check_files, read_arrays, read_pairs
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

#: A visible point must come back to where it started within this many pixels.
ROUND_TRIP_TOLERANCE = 2.0


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
        skipped: pairs that lack a file.

    Convention: x ~ K (R X + t), no lens distortion; pixel centres at integers; z-depth, not ray length.
    """

    #: Whether lengths are in metres.
    metric = True

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
        self._depth_maps: dict[int, InverseDepth] = {}

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
                f"{path} does not exist; a posed scene is a folder with cameras.npz, images/ and depth/"
            )
        stored = read_arrays(path)
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
        check_cameras(path, intrinsics, rotations, names)
        intrinsics = intrinsics / intrinsics[:, 2:, 2:]
        pairs, skipped = check_files(root, names, read_pairs(root / "pairs.txt", len(names)))
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

    def camera_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels that the camera of image ``index`` is for."""
        return self.size

    def image_path(self, index: int) -> Path:
        """File of image ``index``."""
        return find_image(self.root / "images", self.names[index])

    def image(self, index: int) -> Tensor:
        """Image ``index``, float in [0, 1], shape (1, C, H, W).

        Raises:
            ValueError: if its size is not the one of the cameras.
        """
        image = load_image(self.image_path(index))
        self._check_size("image", index, (image.shape[-1], image.shape[-2]))
        return image

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, from the cameras and checked against the file."""
        self._check_size("image", index, image_file_size(self.image_path(index)))
        return self.camera_size(index)

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
        lands = inside(moved, self.camera_size(j)) & (z > 0)
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

    def _inverse_depth(self, index: int) -> InverseDepth:
        if index not in self._depth_maps:
            inverse = read_depth_png(self.root / "depth" / f"{self.names[index]}.png")
            self._check_size("depth map", index, (inverse.shape[1], inverse.shape[0]))
            self._depth_maps[index] = inverse
        return self._depth_maps[index]

    def _check_size(self, what: str, index: int, size: tuple[int, int]) -> None:
        expected = self.camera_size(index)
        if size != expected:
            raise ValueError(
                f"{self.name}: the {what} {self.names[index]!r} is {size[0]}x{size[1]}, the cameras are for "
                f"{expected[0]}x{expected[1]}; resize one of them (and K with the images)"
            )
