"""Patches of known points: the layout of Brown et al. (PhotoTour), and plain npz files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require

#: Side of a patch and patches per side of a sheet in Brown's layout.
BROWN_PATCH, BROWN_GRID = 64, 16


@dataclass(frozen=True)
class PatchSet:
    """Grey patches and the 3-D point that each shows.

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
            raise ValueError(f"patches must be uint8 (N, S, S); got {self.patches.dtype} {self.patches.shape}.")
        if self.point_ids.shape != (len(self.patches),):
            raise ValueError(f"point_ids must have shape ({len(self.patches)},); got {self.point_ids.shape}.")

    @classmethod
    def from_npz(cls, path: str | Path) -> PatchSet:
        """Read ``patches`` and ``point_ids`` of an npz file."""
        with np.load(path, allow_pickle=False) as file:
            missing = {"patches", "point_ids"} - set(file)
            if missing:
                raise ValueError(f"{path} lacks {', '.join(sorted(missing))}.")
            return cls(file["patches"], file["point_ids"].astype(np.int64))

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
        if not (root / "info.txt").is_file():
            raise FileNotFoundError(f"{root} is no PhotoTour folder: it lacks info.txt.")
        point_ids = np.loadtxt(root / "info.txt", dtype=np.int64, usecols=0, ndmin=1)
        sheets = sorted(root.glob("patches*.bmp"))
        per_sheet = BROWN_GRID * BROWN_GRID
        if len(sheets) * per_sheet < len(point_ids):
            raise ValueError(
                f"{root}: {len(sheets)} sheets hold {len(sheets) * per_sheet} of {len(point_ids)} patches."
            )
        image = require("PIL.Image", extra="eval")
        patches = np.empty((len(sheets) * per_sheet, BROWN_PATCH, BROWN_PATCH), np.uint8)
        for k, sheet in enumerate(sheets):
            with image.open(sheet) as opened:
                pixels = np.asarray(opened.convert("L"))
            tiles = pixels.reshape(BROWN_GRID, BROWN_PATCH, BROWN_GRID, BROWN_PATCH).swapaxes(1, 2)
            patches[k * per_sheet : (k + 1) * per_sheet] = tiles.reshape(-1, BROWN_PATCH, BROWN_PATCH)
        listed, same = None, None
        if pairs is not None and (root / pairs).is_file():
            rows = np.loadtxt(root / pairs, dtype=np.int64, ndmin=2)
            listed, same = rows[:, [0, 3]], rows[:, 1] == rows[:, 4]
        return cls(patches[: len(point_ids)], point_ids, listed, same)
