"""The training data of one source in one file: JPEG photographs, and which places in them correspond.

The file is a NumPy ``.npz``: a zip, so every part carries a checksum, and nothing in it is executed. Patches are not
stored; they are cut from the photographs on the device that trains.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import atomic_write

VERSION = 1
_JPEG = "jpeg"  # all photographs, one after the other
_END = "jpeg_end"  # where each of them ends


class StoreError(ValueError):
    """A training file that is damaged, of another version, or not one at all."""


@dataclass(frozen=True)
class Places:
    """Square regions in photographs: position, scale and angle of keypoints.

    Args:
        image: index of the photograph, int32, shape (M,).
        point: what the region shows: regions of one number show one place; -1 nothing distinctive. int32, (M,).
        xy: centre in pixels, pixel centres at integers, float32, shape (M, 2).
        sigma: SIFT scale in pixels, float32, shape (M,).
        theta: SIFT angle in radians, clockwise on screen, float32, shape (M,).

    """

    image: NDArray[np.integer]
    point: NDArray[np.integer]
    xy: NDArray[np.floating]
    sigma: NDArray[np.floating]
    theta: NDArray[np.floating]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            dtype = np.int32 if field.name in ("image", "point") else np.float32
            shape = (-1, 2) if field.name == "xy" else (-1,)
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), dtype=dtype).reshape(shape))
            if len(getattr(self, field.name)) != len(self.image):
                raise ValueError(f"{field.name} has {len(getattr(self, field.name))} rows, image {len(self.image)}")

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Places:
        """Return the chosen rows."""
        return Places(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def join_places(parts: Sequence[Places]) -> Places:
    """Concatenate tables."""
    return Places(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Places)))


@dataclass(frozen=True)
class Store:
    """Photographs and corresponding places of one source.

    Args:
        names: one name per photograph, ``scene/file``.
        jpeg: 8-bit gray JPEG per photograph.
        places: keypoints seen in one or more photographs.
        empty: regions without any keypoint; their ``point`` is -1.

    """

    names: tuple[str, ...]
    jpeg: tuple[bytes, ...]
    places: Places
    empty: Places

    def decode(self, index: int) -> Tensor:
        """Photograph ``index`` as uint8 tensor (H, W)."""
        cv2 = require("cv2", extra="train")
        image = cv2.imdecode(np.frombuffer(self.jpeg[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise StoreError(f"the photograph {self.names[index]!r} of the store cannot be decoded")
        return torch.from_numpy(image)


def encode_jpeg(image: NDArray[np.uint8], quality: int = 88) -> bytes:
    """Compress a gray image (H, W)."""
    cv2 = require("cv2", extra="train")
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1].tobytes()


def save_store(path: str | Path, store: Store) -> None:
    """Write a store atomically."""
    if len(store.names) != len(store.jpeg):
        raise ValueError(f"a store needs one name per photograph, got {len(store.names)} and {len(store.jpeg)}")
    arrays: dict[str, NDArray[np.generic]] = {
        "version": np.array(VERSION),
        "names": np.array(store.names, dtype=np.str_),
        _JPEG: np.frombuffer(b"".join(store.jpeg), np.uint8),
        _END: np.cumsum([len(j) for j in store.jpeg], dtype=np.int64),
    }
    for kind in ("places", "empty"):
        for field in dataclasses.fields(Places):
            arrays[f"{kind}_{field.name}"] = getattr(getattr(store, kind), field.name)
    with atomic_write(Path(path)) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def load_store(path: str | Path) -> Store:
    """Read a store, checking all of it.

    Raises:
        FileNotFoundError: if there is no such file.
        StoreError: if the file is cut off or damaged, of another version, or its parts contradict each other.

    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no training data {path}; make it with `kornia-lift build-dataset`")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            version = int(file["version"])
            if version != VERSION:
                raise StoreError(
                    f"{path} is a store of version {version}, this package reads version {VERSION}; build it again"
                )
            names = tuple(str(n) for n in file["names"])
            blob, end = file[_JPEG].tobytes(), file[_END]
            tables = [
                Places(*(file[f"{kind}_{f.name}"] for f in dataclasses.fields(Places))) for kind in ("places", "empty")
            ]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError) as error:
        raise _damaged(path, error) from error
    except ValueError as error:
        if isinstance(error, StoreError):
            raise
        raise _damaged(path, error) from error
    begin = np.concatenate([[0], end[:-1]])
    jpeg = tuple(blob[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True))
    if len(jpeg) != len(names) or (len(end) and end[-1] != len(blob)):
        raise StoreError(f"{path} contradicts itself: {len(names)} names for {len(jpeg)} photographs")
    for table in tables:
        if len(table) and not 0 <= table.image.min() <= table.image.max() < len(names):
            raise StoreError(f"{path} contradicts itself: places in photographs that it does not hold")
    return Store(names, jpeg, *tables)


def _damaged(path: Path, error: Exception) -> StoreError:
    size = path.stat().st_size
    if "pickle" in str(error):  # what NumPy takes every file for that is neither .npz nor .npy
        error = ValueError("it is not an .npz file")
    return StoreError(
        f"{path} ({size} bytes) is cut off, damaged or no training store: {error}; copy or build it again"
    )


def join_stores(stores: Sequence[Store]) -> Store:
    """Put several sources together, renumbering photographs and points so that they stay distinct."""
    places, empty, photographs, points = [], [], 0, 0
    for store in stores:
        table = store.places
        places.append(dataclasses.replace(table, image=table.image + photographs, point=table.point + points))
        empty.append(dataclasses.replace(store.empty, image=store.empty.image + photographs))
        photographs += len(store.names)
        points += int(table.point.max(initial=-1)) + 1
    return Store(
        tuple(name for s in stores for name in s.names),
        tuple(jpeg for s in stores for jpeg in s.jpeg),
        join_places(places),
        join_places(empty),
    )


def pack_stores(stores: Sequence[Store], limit: int) -> list[list[Store]]:
    """Group stores into as few files of at most ``limit`` bytes as a first fit of the largest first finds.

    Raises:
        ValueError: if one store alone is larger.

    """
    packs: list[list[Store]] = []
    for store in sorted(stores, key=store_bytes, reverse=True):
        if store_bytes(store) > limit:
            raise ValueError(f"the store of {store.names[0]!r} has {store_bytes(store)} bytes, the limit is {limit}")
        for pack in packs:
            if sum(map(store_bytes, pack)) + store_bytes(store) <= limit:
                pack.append(store)
                break
        else:
            packs.append([store])
    return packs


def store_bytes(store: Store) -> int:
    """Size of a store on disk, rounded up."""
    tables = sum(getattr(t, f.name).nbytes for t in (store.places, store.empty) for f in dataclasses.fields(Places))
    names = 4 * max((len(n) for n in store.names), default=0) * len(store.names)
    return sum(len(j) + 8 for j in store.jpeg) + tables + names + 16 * 1024  # headers of the parts


def check_apart(train: Store, validation: Store) -> None:
    """Check that no photograph is in both stores, under whatever name.

    Raises:
        ValueError: naming those that are.

    """
    digest = {hashlib.sha256(jpeg).digest(): name for name, jpeg in zip(train.names, train.jpeg, strict=True)}
    both = [
        f"{name} (in the training data as {digest[key]})" if digest[key] != name else name
        for name, key in zip(validation.names, (hashlib.sha256(j).digest() for j in validation.jpeg), strict=True)
        if key in digest
    ]
    if both:
        raise ValueError(
            f"{len(both)} of {len(validation.names)} photographs of the validation data are training data too: "
            f"{', '.join(both[:3])}{', ...' if len(both) > 3 else ''}; errors measured on them say nothing. Name other "
            "validation data, or none: then a part of the training data is held out"
        )


def split_store(store: Store, share: float = 0.2, seed: int = 0) -> tuple[Store, Store]:
    """Split into training and validation by photograph *and* by point, so that nothing crosses (LIFT spec 5).

    What lies in a training photograph but is a validation point, or the other way round, is dropped. Where no scene
    is to spare for validation; whole scenes held out are the stronger test.

    Args:
        store: what to split.
        share: of the photographs of every scene, at least two, and of the points.
        seed: seed of the choice.

    Raises:
        ValueError: if a part is left without any pair of views of one point.

    """
    rng = np.random.default_rng(seed)
    held_image = np.zeros(len(store.names), dtype=bool)
    scenes = np.array([name.rpartition("/")[0] for name in store.names])
    for scene in np.unique(scenes):
        members = rng.permutation(np.flatnonzero(scenes == scene))
        held_image[members[: max(2, round(share * len(members)))]] = True
    points = int(store.places.point.max(initial=-1)) + 1
    held_point = rng.random(points) < share

    def part(held: bool) -> Store:
        image_ok = held_image == held
        table = store.places
        kept = table.take(image_ok[table.image] & (held_point[table.point] == held))
        count = np.bincount(kept.point, minlength=points)
        alone = np.bincount(table.point, minlength=points) == 1  # photographs without a second view stay as they are
        kept = kept.take((count[kept.point] >= 2) | alone[kept.point])
        if not len(kept):
            raise ValueError(
                f"too little data to hold {share:.0%} of {len(store.names)} photographs and of {points} points out: "
                f"the {'validation' if held else 'training'} part has no place seen twice; add photographs, or give "
                "a validation store of its own"
            )
        new = np.cumsum(image_ok) - 1
        empty = store.empty.take(image_ok[store.empty.image])
        return Store(
            tuple(n for n, ok in zip(store.names, image_ok, strict=True) if ok),
            tuple(j for j, ok in zip(store.jpeg, image_ok, strict=True) if ok),
            dataclasses.replace(kept, image=new[kept.image]),
            dataclasses.replace(empty, image=new[empty.image]),
        )

    return part(False), part(True)
