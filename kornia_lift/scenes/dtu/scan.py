"""DTU's multi-view stereo data in their published layout: rectified images, calibration, point clouds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kornia_lift._io import read_text
from kornia_lift._words import counted
from kornia_lift.scenes.depth import InverseDepth
from kornia_lift.scenes.dtu.ply import read_ply_points
from kornia_lift.scenes.images import image_file_size
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import FloatArray, Pair, SkippedPair

#: Illumination of the images that are read: 0 to 6, or ``max``, the brightest of all.
ILLUMINATION = "3"
#: Largest angle between the viewing rays of a pair, degrees.
MAX_ANGLE = 45.0
#: A point is hidden by a neighbour that is nearer by more than this fraction of the depth.
_HIDDEN = 0.02
_CELL = 4  # pixels; side of the cells in which the nearest point is searched
_CODES = 60_000  # values of the inverse depth
_IMAGE = re.compile(r"rect_(\d{3})_(\d|max)(?:_r5000)?\.png")
_SCAN = re.compile(r"scan(\d+)")


def is_dtu_scan(folder: Path) -> bool:
    """Whether a folder holds the rectified images of a scan, ``rect_001_3_r5000.png`` and so on."""
    return any(_IMAGE.fullmatch(path.name) for path in folder.glob("rect_*.png"))


class DTUScan(PosedScene):
    """One scan of DTU's data (Jensen et al., CVPR 2014), with depth from its structured-light point cloud.

    Layout, as unpacked from ``Rectified.zip``, ``SampleSet.zip`` and ``Points.zip`` of
    https://roboimagedata.compute.dtu.dk/?page_id=36::

        Rectified/scan1/rect_001_3_r5000.png    position 1, illumination 3; also rect_001_max.png
        Calibration/cal18/pos_001.txt           the 3x4 matrix P of position 1, the same for all scans
        Points/stl/stl001_total.ply             the point cloud, millimetres

    ``Calibration`` and ``Points`` are looked for beside ``Rectified``, and in ``SampleSet/MVS Data`` and ``MVS Data``
    there.

    The depth of a pixel is that of the nearest points that project near it. It is unknown where there are none, which
    includes everything that the scanner could not see.

    Convention:
        The published pages do not say where the first pixel lies; its centre is taken to be (0, 0). Lengths are
        millimetres.
    """

    metric = False
    _cloud_path: Path
    _cloud: FloatArray | None = None

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None, illumination: str = ILLUMINATION) -> DTUScan:
        """Read a folder ``Rectified/scanN``.

        Args:
            folder: the folder of the images.
            name: name of the scene; that of the folder by default.
            illumination: ``"0"`` to ``"6"`` or ``"max"``.

        Raises:
            FileNotFoundError: if images of this illumination, the calibration or the point cloud are missing.
            ValueError: if a file is damaged, or the name of the folder has no number.

        """
        root = Path(folder)
        scan = _SCAN.fullmatch(root.resolve().name)
        if scan is None:
            raise ValueError(f"{root} holds rectified images of DTU; its name must be scanN, the number of the scan")
        found = {
            int(m[1]): p
            for p in sorted(root.glob("rect_*.png"))
            if (m := _IMAGE.fullmatch(p.name)) and m[2] == illumination
        }
        if len(found) < 2:
            raise FileNotFoundError(
                f"{root} holds {counted(len(found), 'image')} of illumination {illumination}, "
                f"rect_001_{illumination}*.png"
            )
        roots = _roots(root.resolve())
        calibration = _find(roots, Path("Calibration") / "cal18", "the calibration")
        cloud = _find(roots, Path("Points") / "stl" / f"stl{int(scan[1]):03d}_total.ply", "the point cloud")
        positions = sorted(found)
        cameras = [decompose_projection(_read_projection(calibration / f"pos_{k:03d}.txt")) for k in positions]
        intrinsics, rotations, translations = (np.stack(column) for column in zip(*cameras, strict=True))
        scene = cls(
            name=name or root.resolve().name,
            root=root,
            names=tuple(found[k].stem for k in positions),
            intrinsics=intrinsics,
            rotations=rotations,
            translations=translations,
            size=image_file_size(found[positions[0]]),
            depth_scale=1.0,
            pairs=(),
        )
        scene._cloud_path = cloud
        scene._set_pairs()
        return scene

    def image_path(self, index: int) -> Path:
        """File of image ``index``."""
        return self.root / f"{self.names[index]}.png"

    def _set_pairs(self) -> None:
        """Choose the pairs by the angle at the middle of the cloud, and the unit of the inverse depth."""
        cloud = self._points()
        middle = np.median(cloud, axis=0)
        centres = np.stack([-r.T @ t for r, t in zip(self.rotations, self.translations, strict=True)])
        rays = middle - centres
        distance = np.linalg.norm(rays, axis=1)
        rays /= distance[:, None]
        # nothing is nearer than 0.3 of the distance to the object
        self.depth_scale = 1.0 / (0.3 * float(distance.min()) * _CODES)
        angles = np.rad2deg(np.arccos(np.clip(rays @ rays.T, -1, 1)))
        count = len(self.names)
        near = [(i, j) for i in range(count) for j in range(i + 1, count) if angles[i, j] <= MAX_ANGLE]
        self.pairs = tuple(Pair(i, j, angle_deg=float(angles[i, j])) for i, j in near)
        self.skipped: tuple[SkippedPair, ...] = ()

    def _points(self) -> FloatArray:
        if self._cloud is None:
            self._cloud = read_ply_points(self._cloud_path)
            if len(self._cloud) < 4:
                raise ValueError(f"{self._cloud_path} holds {counted(len(self._cloud), 'point')}")
        return self._cloud

    def _inverse_depth(self, index: int) -> InverseDepth:
        if index not in self._depth_maps:
            camera = self._points() @ self.rotations[index].T + self.translations[index]
            inverse = splat_inverse_depth(camera, self.intrinsics[index], self.size)
            self._depth_maps[index] = np.clip(np.round(inverse / self.depth_scale), 0, 65535).astype(np.uint16)
        return self._depth_maps[index]


def splat_inverse_depth(points: FloatArray, intrinsics: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Inverse depth of the pixels from a point cloud.

    Points behind nearer points are left out; otherwise they would show through the gaps between those. A pixel without
    a point gets the mean of its neighbours if at least five of them are known.

    Args:
        points: in camera coordinates, shape (N, 3).
        intrinsics: K, shape (3, 3).
        size: width and height.

    Returns:
        Inverse z-depth, 0 where it is unknown, shape (H, W).

    """
    width, height = size
    front = points[points[:, 2] > 0]
    projected = front @ intrinsics.T
    xy = np.round(projected[:, :2] / projected[:, 2:]).astype(np.int64)
    inside = ((xy >= 0) & (xy < [width, height])).all(axis=1)
    (x, y), value = xy[inside].T, 1 / front[inside, 2]
    nearest = np.zeros((-(-height // _CELL) + 2, -(-width // _CELL) + 2))
    row, column = y // _CELL + 1, x // _CELL + 1
    np.maximum.at(nearest, (row, column), value)
    around = np.max(
        [nearest[dy : dy + len(nearest) - 2, dx : dx + nearest.shape[1] - 2] for dy in range(3) for dx in range(3)], 0
    )
    seen = value >= around[row - 1, column - 1] * (1 - _HIDDEN)
    inverse = np.zeros((height, width))
    np.maximum.at(inverse, (y[seen], x[seen]), value[seen])
    for _ in range(2):
        inverse = _filled(inverse)
    return inverse


def decompose_projection(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return K (3, 3), R (3, 3) and t (3,) of a camera matrix P = s K [R | t], (3, 4), K[2, 2] = 1.

    Raises:
        ValueError: if it is not a camera matrix.

    """
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :3])) < 1e-12:
        raise ValueError("expected a camera matrix of shape (3, 4) and rank 3")
    left = matrix[:, :3] * np.sign(np.linalg.det(matrix[:, :3]))
    # RQ by QR of the reversed rows
    q, r = np.linalg.qr(np.flipud(left).T)
    k, rotation = np.flipud(np.fliplr(r.T)), np.flipud(q.T)
    signs = np.diag(np.sign(np.diag(k)))
    k, rotation = k @ signs, signs @ rotation
    translation = np.linalg.solve(left, matrix[:, 3] * np.sign(np.linalg.det(matrix[:, :3])))
    return k / k[2, 2], rotation, rotation @ translation


def _filled(inverse: FloatArray) -> FloatArray:
    padded = np.pad(inverse, 1)
    windows = [padded[dy : dy + len(inverse), dx : dx + inverse.shape[1]] for dy in range(3) for dx in range(3)]
    known = np.sum([w > 0 for w in windows], axis=0)
    mean = np.sum(windows, axis=0) / np.maximum(known, 1)
    # beside a straight edge only three are known: silhouettes must not grow
    return np.where((inverse == 0) & (known >= 5), mean, inverse)


def _roots(scan: Path) -> list[Path]:
    """Where the other folders may lie: beside ``Rectified``, or inside the sample set there."""
    root = scan.parent.parent
    return [root, root / "SampleSet" / "MVS Data", root / "MVS Data"]


def _find(roots: Iterable[Path], part: Path, what: str) -> Path:
    for root in roots:
        if (root / part).exists():
            return root / part
    raise FileNotFoundError(f"{what} {part} of DTU's data is missing; looked in {', '.join(map(str, roots))}")


def _read_projection(path: Path) -> FloatArray:
    try:
        numbers = np.array(read_text(path, limit=2**16).split(), dtype=np.float64)
        return numbers.reshape(3, 4)
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(f"{path} is not a camera file of DTU: expected the 12 numbers of P ({error})") from None
