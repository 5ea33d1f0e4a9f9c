"""Patches of known points: the layout of Brown et al. (PhotoTour), and plain npz files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_lift._io import opened, read_npz, read_text

#: Side of a patch and patches per side of a sheet in Brown's layout.
BROWN_PATCH, BROWN_GRID = 64, 16


@dataclass(frozen=True)
class PatchSet:
    """Gray patches and the 3-D point that each shows.

    Args:
        patches: uint8, shape (N, S, S).
        point_ids: shape (N,).
        pairs: list of pairs that comes with the set, indices of patches (M, 2); None if there is none.
        same: whether the pairs match, shape (M,).

    Raises:
        ValueError: if the shapes do not fit.
    """

    patches: NDArray[np.uint8]
    point_ids: NDArray[np.int64]
    pairs: NDArray[np.int64] | None = None
    same: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.patches.ndim != 3 or self.patches.shape[1] != self.patches.shape[2] or self.patches.dtype != np.uint8:
            raise ValueError(f"patches must be uint8 (N, S, S); got {self.patches.dtype} {self.patches.shape}")
        if self.point_ids.shape != (len(self.patches),):
            raise ValueError(f"point_ids must have shape ({len(self.patches)},); got {self.point_ids.shape}")

    @classmethod
    def from_npz(cls, path: str | Path) -> PatchSet:
        """Read ``patches`` and ``point_ids`` of an npz file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or holds something else.
        """
        arrays = read_npz(Path(path), {"patches": ("u", 3), "point_ids": ("iu", 1)})
        return cls(arrays["patches"], arrays["point_ids"].astype(np.int64))

    @classmethod
    def from_brown(cls, folder: str | Path, pairs: str | None = "m50_100000_100000_0.txt") -> PatchSet:
        """Read ``liberty``, ``notredame`` or ``yosemite``: ``info.txt``, ``patchesNNNN.bmp`` and a list of pairs.

        Args:
            folder: folder of one scene.
            pairs: file name of the list; None, or a file that is not there: no list.

        Raises:
            FileNotFoundError: if ``info.txt`` or a sheet of patches is missing.
            ValueError: if there are fewer patches than ``info.txt`` names.
        """
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder")
        if not (root / "info.txt").is_file():
            raise FileNotFoundError(f"{root} is not a PhotoTour folder: it lacks info.txt")
        point_ids = _columns(root / "info.txt", 1)[:, 0]
        sheets = sorted(root.glob("patches*.bmp"))
        per_sheet = BROWN_GRID * BROWN_GRID
        if len(sheets) * per_sheet < len(point_ids):
            raise ValueError(f"{root}: {len(sheets)} sheets hold {len(sheets) * per_sheet} of {len(point_ids)} patches")
        patches = np.empty((len(sheets) * per_sheet, BROWN_PATCH, BROWN_PATCH), np.uint8)
        for k, sheet in enumerate(sheets):
            pixels = _sheet(sheet)
            tiles = pixels.reshape(BROWN_GRID, BROWN_PATCH, BROWN_GRID, BROWN_PATCH).swapaxes(1, 2)
            patches[k * per_sheet : (k + 1) * per_sheet] = tiles.reshape(-1, BROWN_PATCH, BROWN_PATCH)
        listed, same = None, None
        if pairs is not None and (root / pairs).is_file():
            rows = _columns(root / pairs, 5)
            listed, same = rows[:, [0, 3]], rows[:, 1] == rows[:, 4]
            if len(listed) and not 0 <= listed.min() <= listed.max() < len(point_ids):
                raise ValueError(f"{root / pairs} names patches that the set does not have")
        return cls(patches[: len(point_ids)], point_ids, listed, same)


def _columns(path: Path, count: int) -> NDArray[np.int64]:
    """The first ``count`` columns of a file of whole numbers, (N, count)."""
    try:
        rows = [[int(value) for value in line.split()[:count]] for line in read_text(path).splitlines() if line.strip()]
        if any(len(row) != count for row in rows):
            raise ValueError(f"a line has fewer than {count} numbers")
        return np.array(rows, dtype=np.int64).reshape(-1, count)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} does not hold whole numbers ({error})") from None


def _sheet(path: Path) -> NDArray[np.uint8]:
    """Pixels of one sheet of patches."""
    side = BROWN_GRID * BROWN_PATCH
    try:
        with opened(path) as image:
            if image.size != (side, side):
                raise ValueError(f"{image.width}x{image.height} pixels, expected {side}x{side}")
            return np.asarray(image.convert("L"))
    except Exception as error:  # decoders raise anything for damaged bytes
        raise ValueError(f"cannot read the sheet of patches {path}: {error}") from error
