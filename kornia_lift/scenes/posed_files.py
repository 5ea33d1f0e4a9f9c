"""The files of a posed scene: cameras, pairs, and which images and depth maps there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._io import DamagedFileError, read_npz, read_text
from kornia_lift.scenes.images import IMAGE_SUFFIXES, is_inside
from kornia_lift.scenes.scene import FloatArray, Pair, SkippedPair

_LARGEST = 2**20  # width or height in pixels, inverse depths per metre
#: Kind of dtype and rank of what ``cameras.npz`` must hold.
_CAMERAS = {
    "K": ("fiu", 3), "R": ("fiu", 3), "t": ("fiu", -1), "names": ("U", -1), "width": ("fiu", -1),
    "height": ("fiu", -1), "depth_scale": ("fiu", -1),
}  # fmt: skip


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read everything that ``cameras.npz`` must hold.

    Raises:
        ValueError: if something is missing, has a wrong shape, or is not a number.

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


def check_cameras(path: Path, intrinsics: FloatArray, rotations: FloatArray, names: tuple[str, ...]) -> None:
    """Check that cameras can be inverted, and that image names stay inside the scene.

    Raises:
        ValueError: naming the first that is wrong.

    """
    for name, k, r in zip(names, intrinsics, rotations, strict=True):
        if k[0, 0] <= 0 or k[1, 1] <= 0 or not np.allclose(k[2], [0, 0, k[2, 2]]) or k[2, 2] <= 0:
            raise ValueError(f"{path}: K of {name!r} is not a camera matrix")
        if not np.allclose(r @ r.T, np.eye(3), atol=1e-3) or np.linalg.det(r) < 0:
            raise ValueError(f"{path}: R of {name!r} is not a rotation")
        if not is_inside(name):
            raise ValueError(f"{path} names the image {name!r}, which is outside the scene's images/")


def read_pairs(path: Path, count: int) -> tuple[Pair, ...]:
    """Read ``pairs.txt`` of a scene of ``count`` images; all pairs where there is no such file.

    Raises:
        ValueError: naming the first line that is wrong.

    """
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


def check_files(
    root: Path, names: tuple[str, ...], pairs: tuple[Pair, ...]
) -> tuple[tuple[Pair, ...], tuple[SkippedPair, ...]]:
    """Return the pairs whose images and depth maps exist, and those that are skipped because a file is missing."""
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
