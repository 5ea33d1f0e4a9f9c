"""The layout of hloc's feature files, as data: one group per image and what it holds.

N keypoints; a group may hold further datasets, which are kept but not used:

- ``keypoints`` float32 (N, 2): x, y in pixels of the image, pixel centres at integers; its attribute ``uncertainty``
  is pixels of the image per pixel of the reduced copy in which they were detected;
- ``descriptors`` float32 (D, N): unit vectors, one per column; uint8 for packed bits;
- ``scores`` float32 (N,): responses, larger is better;
- ``scales`` float32 (N,): SIFT's sigma in pixels;
- ``oris`` float32 (N,): degrees in [-180, 180), clockwise on screen as everywhere in hloc;
- ``image_size`` int64 (2,): width, height.

Attributes are numbers and texts of fixed length. Of the file: ``options`` holds, as JSON, what the features were made
with; ``format`` is the number :data:`FORMAT`; ``shard`` is (index, count); ``missing`` counts the images that the last
run should have added but could not. Of a group: ``fingerprint`` identifies the pixels that the features belong to;
``error`` says why there are none, and ``unreadable`` whether the image file is the reason. Files of other programs need
no attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift.features import Features
from kornia_lift.files.h5 import FeatureFileError, H5File, text

#: 1 (before November 2026, no attribute): ``oris`` ran counter-clockwise. 2: clockwise.
FORMAT = 2
_MAX_SHARDS = 1_000_000


class UnreadableImageError(FeatureFileError):
    """The image file could not be read when its features were to be extracted."""


def write_features(group: Any, features: Features) -> None:
    """Write the datasets of one image into an open, empty group."""
    points = group.create_dataset("keypoints", data=features.keypoints.astype(np.float32))
    points.attrs["uncertainty"] = float(features.uncertainty)
    group.create_dataset("descriptors", data=np.ascontiguousarray(features.descriptors.T))
    if features.scores is not None:
        group.create_dataset("scores", data=features.scores.astype(np.float32))
    if features.scales is not None:
        group.create_dataset("scales", data=features.scales.astype(np.float32))
    if features.angles is not None:
        group.create_dataset("oris", data=opposite(features.angles).astype(np.float32))
    if features.image_size is not None:
        group.create_dataset("image_size", data=np.asarray(features.image_size, dtype=np.int64))


def sign(file: Any, options: Mapping[str, Any], shard: tuple[int, int], missing: int = 0) -> None:
    """Write the attributes of a file."""
    file.attrs["options"] = text(json.dumps(options, sort_keys=True))
    file.attrs["format"] = FORMAT
    file.attrs["shard"] = shard
    file.attrs["missing"] = missing


def opposite(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert counter-clockwise angles to clockwise ones or vice versa, in [-180, 180)."""
    return (180 - degrees) % 360 - 180


def read_options(file: H5File) -> dict[str, Any]:
    """Return what the features of a file were made with; empty if another program made the file.

    Raises:
        FeatureFileError: if another version of this package wrote the file, in another format.
    """
    number = file.attribute(file.root, "format")
    if number is None and not file.has_attribute("options"):
        return {}
    if number is None:
        raise FeatureFileError(
            f"{file.path} was written before November 2026, when angles (oris) ran counter-clockwise: "
            "remove it, or use --overwrite, and extract the features again"
        )
    if not isinstance(number, np.integer) or number != FORMAT:
        raise FeatureFileError(f"{file.path} has the format {number}, this version reads {FORMAT}: update kornia_lift")
    return file.json_object("options") or {}


def read_shard(file: H5File) -> tuple[int, int]:
    """Return the index of the shard and the number of shards of its run; (0, 1) if there is only this one."""
    value = file.attribute(file.root, "shard")
    if value is None:
        return 0, 1
    pair = np.asarray(value)
    if pair.shape != (2,) or pair.dtype.kind not in "iu" or not 0 <= pair[0] < pair[1] <= _MAX_SHARDS:
        raise file.error("attribute 'shard'", f"expected (index, count) with at most {_MAX_SHARDS} shards")
    return int(pair[0]), int(pair[1])


def read_missing(file: H5File) -> int:
    """Return how many images the last run should have added but could not."""
    value = file.attribute(file.root, "missing")
    if value is None:
        return 0
    if not isinstance(value, np.integer) or value < 0:
        raise file.error("attribute 'missing'", "expected a count")
    return int(value)


def image_names(file: H5File) -> Iterator[str]:
    """Yield the names of all groups that hold an image, in the order of the file.

    Raises:
        FeatureFileError: at a link, or at a group that is reached twice.
    """
    seen = {file.address(file.root)}
    waiting = [(name, file.root) for name in reversed(file.members(file.root))]
    while waiting:
        path, parent = waiting.pop()
        name = path.rpartition("/")[2]
        kind = file.kind(parent, name)
        if kind is None:
            raise file.error(path, "listed, but not there: the file is damaged")
        if kind != "group":
            continue
        with file.reading(path):
            group = parent[name]
        address = file.address(group)
        if address in seen:
            raise file.error(path, "a second name of another group, or a circle")
        seen.add(address)
        if is_image(file, group):
            yield path
        else:
            waiting.extend((f"{path}/{member}", group) for member in reversed(file.members(group)))


def is_image(file: H5File, group: Any) -> bool:
    """Return whether a group is that of an image: a folder of images may have any name, too."""
    return file.kind(group, "keypoints") == "dataset" or file.attribute(group, "error") is not None


def read_features(file: H5File, group: Any) -> Features:
    """Read and check one image.

    Raises:
        UnreadableImageError: if the image file could not be read.
        FeatureFileError: if the extraction failed, or a dataset is missing, damaged, or does not agree with the others.
    """
    name = group.name.strip("/")
    failed = file.attribute(group, "error")
    if failed is not None:
        if bool(np.asarray(file.attribute(group, "unreadable")).any()):
            raise UnreadableImageError(str(failed))
        raise FeatureFileError(f"extraction failed on {name}: {failed}")
    absent = [key for key in ("keypoints", "descriptors") if file.kind(group, key) is None]
    if absent:
        held = ", ".join(file.members(group)[:20]) or "nothing"
        raise file.error(name, f"no {' and no '.join(absent)}; it has {held}")
    keypoints = file.array(group, "keypoints", kinds="fiu", ndim=(2,)).astype(np.float64)
    if keypoints.shape[1] != 2:
        raise file.error(f"{name}/keypoints", f"shape {keypoints.shape}, expected (N, 2)")
    descriptors = file.array(group, "descriptors", kinds="fu", ndim=(2,))
    if descriptors.shape[1] == len(keypoints):
        descriptors = descriptors.T  # channels first, as in hloc; (N, D) is accepted too where it is unambiguous
    if len(descriptors) != len(keypoints):
        raise file.error(
            f"{name}/descriptors", f"shape {descriptors.shape}, expected (D, N) with N = {len(keypoints)} keypoints"
        )
    if descriptors.dtype.kind == "u" and descriptors.dtype.itemsize > 1:
        raise file.error(f"{name}/descriptors", f"values of type {descriptors.dtype}, expected floats or uint8")
    if descriptors.dtype.kind == "f":
        descriptors = descriptors.astype(np.float32)
    oris = _column(file, group, "oris", len(keypoints))
    scales = _column(file, group, "scales", len(keypoints))
    if scales is not None and not (scales > 0).all():
        raise file.error(f"{name}/scales", "expected sigmas above 0")
    features = Features(
        keypoints,
        np.ascontiguousarray(descriptors),
        _column(file, group, "scores", len(keypoints)),
        scales,
        None if oris is None else opposite(oris),
        _image_size(file, group),
        _uncertainty(file, group),
    )
    problem = features.problem()
    if problem:
        raise file.error(name, problem)
    return features


def copy_image(source: H5File, name: str, target: Any) -> None:
    """Copy one image, checked, into another open file; an image of that name is replaced.

    Raises:
        FeatureFileError: if the image is damaged.
    """
    group = source.group(name)
    if group is None:
        raise source.error(name, "no such image")
    datasets = check_image(source, group)
    if name in target:
        del target[name]
    copy = target.create_group(name)
    for key, value in _group_attributes(source, group).items():
        copy.attrs[key] = value
    for key in datasets:
        # the values, not the object: what HDF5 reads of a damaged file it may fail to copy
        copied = copy.create_dataset(key, data=source.values(group, key))
        if key == "keypoints":
            copied.attrs["uncertainty"] = _uncertainty(source, group)


def check_folders(holder: Mapping[str, Path]) -> None:
    """Raise if an image has the name of a folder of another one: both would be one group."""
    for name, path in holder.items():
        for folder in map(str, PurePosixPath(name).parents):
            if folder in holder:
                raise FeatureFileError(
                    f"the image {folder!r} of {holder[folder]} has the name of a folder of {name!r} in {path}"
                )


def check_image(file: H5File, group: Any) -> list[str]:
    """Return the names of the datasets of an image; raises if one of them cannot be used."""
    if file.attribute(group, "error") is None:
        read_features(file, group)
    names = file.members(group)
    for key in names:
        file.checked(group, key)
    return names


def _group_attributes(file: H5File, group: Any) -> dict[str, Any]:
    found = {key: file.attribute(group, key) for key in ("fingerprint", "error", "unreadable")}
    return {key: text(v) if isinstance(v, str) else v for key, v in found.items() if v is not None}


def _column(file: H5File, group: Any, key: str, count: int) -> NDArray[np.float64] | None:
    if file.kind(group, key) is None:
        return None
    values = file.array(group, key, kinds="fiu", ndim=(1, 2))
    if values.size != count or max(values.shape, default=0) != count:
        raise file.error(f"{group.name}/{key}", f"shape {values.shape}, expected ({count},)")
    values = values.astype(np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise file.error(f"{group.name}/{key}", f"{int((~np.isfinite(values)).sum())} values are not finite")
    return values


def _image_size(file: H5File, group: Any) -> tuple[int, int] | None:
    if file.kind(group, "image_size") is None:
        return None
    size = file.array(group, "image_size", kinds="iuf")
    if size.shape != (2,) or not np.isfinite(size).all() or (size < 1).any() or (size > 2**31).any():
        raise file.error(f"{group.name}/image_size", "expected width and height in pixels")
    return int(size[0]), int(size[1])


def _uncertainty(file: H5File, group: Any) -> float:
    value = file.attribute(group["keypoints"], "uncertainty")
    if value is None:
        return 1.0
    number = np.asarray(value)
    if number.shape != () or number.dtype.kind not in "fiu" or not 0 < float(number) < math.inf:
        raise file.error(f"{group.name}/keypoints", "its attribute 'uncertainty' is not a number above 0")
    return float(number)
