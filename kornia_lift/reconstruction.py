"""From feature files to COLMAP: pairs, matches, database, model."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift._io import DamagedFileError, atomic_write, read_npz, read_text, write_npz
from kornia_lift.features import Features
from kornia_lift.matching import match_descriptors

Pair = tuple[str, str]
Matches = dict[Pair, NDArray[np.int64]]

# the names of matching_key and of the files of match_pairs
_KEY, _PART = re.compile("[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}\.npz")


def exhaustive_pairs(names: Iterable[str]) -> list[Pair]:
    """Return every pair of images once."""
    return list(combinations(sorted(names), 2))


def read_pairs(path: str | os.PathLike[str], names: Iterable[str]) -> list[Pair]:
    """Read a list of pairs, as hloc and COLMAP write it: two image names per line, separated by a space.

    Args:
        path: the list; names cannot hold spaces. Empty lines and lines that begin with # are skipped.
        names: the names that may appear in it.

    Returns:
        The pairs, each once, in either order of its names.

    Raises:
        ValueError: if a line does not hold two different known names.

    """
    known = frozenset(names)
    found: dict[Pair, None] = {}
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] == words[1]:
            raise ValueError(f"{path}, line {number}: expected the names of two images, got {line!r}")
        for name in words:
            if name not in known:
                raise ValueError(f"{path}, line {number}: there are no features of the image {name!r}")
        first, second = sorted(words)
        found[first, second] = None
    return list(found)


def matching_key(features: Mapping[str, Features], ratio: float) -> str:
    """Return a name for what :func:`match_pairs` finds: the same for the same descriptors of the same images.

    It does not depend on the order of the images, or on how a file stores them.

    Args:
        features: by image name.
        ratio: see :func:`match_pairs`.

    """
    digest = hashlib.sha256(f"{ratio}".encode())
    for name in sorted(features):
        descriptors = features[name].descriptors
        digest.update(json.dumps([name, list(descriptors.shape), str(descriptors.dtype)]).encode())
        digest.update(np.ascontiguousarray(descriptors).tobytes())
    return digest.hexdigest()[:16]


def match_pairs(
    features: Callable[[str], Features],
    pairs: Sequence[Pair],
    ratio: float,
    *,
    parts: Path | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Matches:
    """Match the features of image pairs by mutual nearest neighbours.

    Args:
        features: returns the features of an image; called once for every first image, and once for every pair.
        pairs: names of the images to match.
        ratio: see :func:`~kornia_lift.matching.match_descriptors`.
        parts: folder in which finished matches are kept, created if needed: a run that was stopped continues from them.
            Use one folder for each feature file and ratio.
        progress: called for every first image, after its pairs are matched, with their number.

    Returns:
        Index pairs (M, 2) by names, in the order of ``pairs``.

    """
    found: Matches = {}
    for first, group in groupby(sorted(pairs), key=lambda pair: pair[0]):
        seconds = [second for _, second in group]
        key = hashlib.sha256(json.dumps([first, seconds]).encode()).hexdigest()
        part = None if parts is None else parts / f"{key}.npz"
        rows = _read_part(part, len(seconds))
        if rows is None:
            here = torch.from_numpy(features(first).descriptors)
            rows = [match_descriptors(here, torch.from_numpy(features(name).descriptors), ratio)[0] for name in seconds]
            if part is not None:
                part.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(part) as temporary:
                    write_npz(temporary, {f"arr_{k}": row.astype(np.int32) for k, row in enumerate(rows)})
        found.update({(first, name): row for name, row in zip(seconds, rows, strict=True)})
        progress(len(seconds))
    return {pair: found[pair] for pair in pairs}


def _read_part(part: Path | None, count: int) -> list[NDArray[np.int64]] | None:
    if part is None or not part.is_file():
        return None
    try:
        rows = read_npz(part, {f"arr_{i}": ("i", 2) for i in range(count)})
    except DamagedFileError:  # as after a power failure: the images are matched again
        return None
    return [row.astype(np.int64) for row in rows.values()]


def remove_superseded(folder: Path, key: str) -> None:
    """Remove the matches of other features or another ratio, which a folder of matches holds beside those of ``key``.

    Args:
        folder: each of its folders that is named by a :func:`matching_key` is one that :func:`match_pairs` had as
            ``parts``. What has another name, or holds anything else, stays.
        key: the folder to keep.

    """
    for found in folder.iterdir() if folder.is_dir() else ():
        if found.name == key or not _KEY.fullmatch(found.name) or found.is_symlink() or not found.is_dir():
            continue
        parts = list(found.iterdir())
        if all(_PART.fullmatch(part.name) and part.is_file() for part in parts):
            for part in parts:
                part.unlink(missing_ok=True)
            with suppress(OSError):  # something was written into it meanwhile
                found.rmdir()


def parse_camera(text: str, size: tuple[int, int]) -> Any:
    """Build a ``pycolmap.Camera`` of known intrinsics from text such as ``PINHOLE,fx,fy,cx,cy``.

    Args:
        text: name of a COLMAP camera model and its parameters, in COLMAP's pixels (the corner of the image is (0, 0)).
        size: width and height of the images.

    Raises:
        ValueError: if COLMAP has no such model, or the number of parameters is wrong.

    """
    pycolmap = require("pycolmap", extra="colmap")
    model, *values = text.split(",")
    known = list(pycolmap.CameraModelId.__members__)
    known.remove("INVALID")
    if model not in known:
        raise ValueError(f"camera {text!r}: unknown model {model!r}, expected one of {', '.join(known)}")
    try:
        parameters = [float(value) for value in values]
        camera = pycolmap.Camera(model=model, width=size[0], height=size[1], params=parameters)
        valid = camera.verify_params()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"camera {text!r}: {' '.join(str(error).split())}") from error
    if not valid:
        raise ValueError(f"camera {text!r}: the model {model} does not have {len(parameters)} parameters")
    camera.has_prior_focal_length = True
    return camera


def one_size(features: Iterable[tuple[str, Features]]) -> tuple[int, int]:
    """Return the width and height that all images share.

    Raises:
        ValueError: if they differ, or some features have no image size.

    """
    sizes = {found.image_size: name for name, found in features}
    if len(sizes) != 1 or None in sizes:
        some = ", ".join(f"{name} {size}" for size, name in list(sizes.items())[:3])
        raise ValueError(f"one camera for all images needs images of one size, got {some or 'none'}")
    (size,) = sizes
    assert size is not None
    return size
