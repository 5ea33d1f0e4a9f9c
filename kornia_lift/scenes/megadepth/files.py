"""Where MegaDepth's files lie, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_lift.files.h5 import H5File

#: Names under which the reconstructions were published.
SFM_NAMES = ("MegaDepth_v1_SfM", "MegaDepth_SfM_v1")
UNDISTORTED = "Undistorted_SfM"
_DENSE = re.compile(r"dense(\d+)")
_LEVELS = 6  # from dense0 up to the folder that phoenix/S6/zl548/MegaDepth_v1 was unpacked into


class NoDepthError(ValueError):
    """A depth file that holds an ordinal mask, foreground against background, instead of depth."""


def is_dense_folder(folder: Path) -> bool:
    """Whether a folder is one of MegaDepth's ``dense0``, ``dense1``, ..., with ``imgs`` and ``depths``."""
    named = _DENSE.fullmatch(folder.resolve().name) is not None
    return named and (folder / "imgs").is_dir() and (folder / "depths").is_dir()


def dense_folders(folder: Path) -> list[Path]:
    """Return the dense folders of a scene such as ``MegaDepth_v1/0015``, or the folder itself if it is one."""
    if is_dense_folder(folder):
        return [folder]
    return sorted(p for p in folder.glob("dense*") if is_dense_folder(p))


def dense_name(folder: Path) -> str:
    """Return the name of a dense folder within the data set: ``0015-dense0``."""
    there = folder.resolve()
    return f"{there.parent.name}-{there.name}"


def find_model(folder: Path) -> Path:
    """Return the folder of the COLMAP model of a dense folder.

    Raises:
        FileNotFoundError: naming where it was looked for.

    """
    there = folder.resolve()
    match, scene = _DENSE.fullmatch(there.name), there.parent.name
    number = match[1] if match else "0"
    parts = [Path(name) / scene / "sparse" / "manhattan" / number for name in SFM_NAMES]
    if number == "0":  # D2-Net's preprocessing has no other parts
        parts += [Path(UNDISTORTED) / scene / name for name in ("sparse", "sparse-txt")]
    above = there.parents[1 : _LEVELS + 1]
    for base in above:
        for part in parts:
            if any((base / part / f"points3D{suffix}").is_file() for suffix in (".bin", ".txt")):
                return base / part
    raise FileNotFoundError(
        f"{folder} has no cameras: they are in {parts[0]} of MegaDepth_SfM_v1.tar.xz, which belongs beside "
        f"MegaDepth_v1 or a folder above it (looked in {above[0]}, ..., {above[-1]})"
    )


def read_inverse_depth(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Read a depth file.

    Args:
        path: ``depths/NAME.h5``, whose array ``depth`` holds z-depth, 0 where it is unknown.
        size: width and height of the image.

    Returns:
        Inverse depth, 0 where it is unknown, shape (H, W).

    Raises:
        FileNotFoundError: if it does not exist.
        NoDepthError: if it holds negative values: an ordinal mask.
        ValueError: if it is damaged, of another size than its image, or has no valid depth.

    """
    with H5File(path) as file:
        depth = file.array(file.root, "depth", ndim=(2,)).astype(np.float32)
    if depth.shape != size[::-1]:
        raise ValueError(
            f"{path} is {depth.shape[1]}x{depth.shape[0]}, its image {size[0]}x{size[1]}; both must be from the "
            "same release, as published"
        )
    if (depth < 0).any():
        raise NoDepthError(f"{path} holds an ordinal mask instead of depth")
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise ValueError(f"{path} has no valid depth")
    inverse = np.zeros_like(depth)
    np.divide(1, depth, out=inverse, where=known)
    return inverse
