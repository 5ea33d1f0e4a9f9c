"""The training data of one or more sources: JPEG images, and where they show one location.

The file is a NumPy ``.npz``: a zip, so every part carries a checksum, and nothing in it is executed. Patches are not
stored; they are cut from the images on the device that trains.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import DamagedFileError, atomic_write, parse_json, read_npz, write_npz
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.images import encode_jpeg
from kornia_lift.training.data.observations import Observations, join_observations

__all__ = ["Camera", "Kind", "Observations", "Store", "StoreError", "StoredImage", "encode_jpeg", "join_observations",
           "join_stores", "load_store", "save_store"]  # fmt: skip

VERSION = 2
_MAX_PIXELS = 2**26  # of one image
CAMERA_PARAMS = 12  # of COLMAP's camera model with the most parameters

#: What an image is part of: a reconstructed scene, a scene with depth maps, a sequence with homographies, aligned
#: exposures, or nothing else (its second views are synthetic).
Kind = Literal["sfm", "posed", "homography", "exposures", "single"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class StoreError(ValueError):
    """A file of training data that is damaged, of another version, or not one at all."""


@dataclass(frozen=True)
class StoredImage:
    """One image of a store.

    Args:
        name: unique name, ``scene/file``.
        scene: name of what is held out as a whole; for a single image its own name.
        kind: what it is part of.
        jpeg: the image, 8-bit gray JPEG.
        camera: None where it is not known.

    """

    name: str
    scene: str
    kind: Kind
    jpeg: bytes
    camera: Camera | None = None

    def decode(self) -> Tensor:
        """Return the image, uint8, shape (H, W).

        Raises:
            StoreError: if it cannot be decoded, or is larger than 64 megapixels.

        """
        cv2 = require("cv2", extra="train")
        try:
            with require("PIL.Image", extra="train").open(io.BytesIO(self.jpeg)) as header:
                width, height = header.size
            if width * height > _MAX_PIXELS:
                raise ValueError(f"{width}x{height} pixels")
            image = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        except Exception as error:  # decoders raise anything for damaged bytes
            raise StoreError(f"the image {self.name!r} of the store cannot be decoded: {error}") from error
        if image is None:
            raise StoreError(f"the image {self.name!r} of the store cannot be decoded")
        return torch.from_numpy(image)


@dataclass(frozen=True)
class Store:
    """Images and the locations that they show.

    Args:
        images: the images.
        tracks: views of locations.
        empty: regions without any keypoint; their ``point`` is -1.
        counts: for each scene, how many locations each step of its reading left; see
            :data:`~kornia_lift.training.data.prepare.assemble.STEPS`.

    """

    images: tuple[StoredImage, ...]
    tracks: Observations
    empty: Observations
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(image.name for image in self.images)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes, each once, in the order of the images."""
        return tuple(dict.fromkeys(image.scene for image in self.images))

    @property
    def scene_numbers(self) -> NDArray[np.int64]:
        """For each image the index of its scene in :attr:`scenes`."""
        number = {scene: n for n, scene in enumerate(self.scenes)}
        return np.array([number[image.scene] for image in self.images], dtype=np.int64)

    def decode(self, index: int) -> Tensor:
        """Return image ``index``, uint8, shape (H, W)."""
        return self.images[index].decode()

    def observed(self, index: int) -> dict[int, NDArray[np.float64]]:
        """Return the position (x, y) in pixels of each location that image ``index`` shows, by its number."""
        mine = self.tracks.take(self.tracks.image == index)
        return dict(zip(mine.point.tolist(), mine.xy.astype(np.float64), strict=True))

    def with_sift_frames(self) -> Observations:
        """Return the views that have a SIFT scale and angle, of locations with two of them or in single images."""
        table = self.tracks.take(self.tracks.sigma > 0)
        views = np.bincount(table.point, minlength=1)
        alone = np.array([image.kind == "single" for image in self.images], dtype=bool)
        return table.take((views[table.point] >= 2) | alone[table.image])


def save_store(path: str | Path, store: Store) -> None:
    """Write a store atomically."""
    images = store.images
    cameras = [image.camera for image in images]
    known = [c for c in cameras if c is not None]
    params = np.full((len(known), CAMERA_PARAMS), np.nan)
    for row, camera in zip(params, known, strict=True):
        row[: len(camera.params)] = camera.params
    arrays: dict[str, NDArray[Any]] = {
        "version": np.array(VERSION),
        "names": np.array([i.name for i in images], dtype=np.str_),
        "scenes": np.array([i.scene for i in images], dtype=np.str_),
        "kinds": np.array([KINDS.index(i.kind) for i in images], dtype=np.int8),
        "jpeg": np.frombuffer(b"".join(i.jpeg for i in images), np.uint8),
        "jpeg_end": np.cumsum([len(i.jpeg) for i in images], dtype=np.int64),
        "counts": np.array(json.dumps({k: dict(v) for k, v in store.counts.items()})),
        "camera_image": np.array([n for n, c in enumerate(cameras) if c is not None], dtype=np.int32),
        "camera_model": np.array([c.model for c in known], dtype=np.str_),
        "camera_params": params,
        "camera_size": np.array([c.size for c in known], dtype=np.int32).reshape(-1, 2),
        "camera_rotation": np.array([c.rotation for c in known], dtype=np.float64).reshape(-1, 3, 3),
        "camera_translation": np.array([c.translation for c in known], dtype=np.float64).reshape(-1, 3),
    }
    for table in ("tracks", "empty"):
        for item in dataclasses.fields(Observations):
            arrays[f"{table}_{item.name}"] = getattr(getattr(store, table), item.name)
    with atomic_write(Path(path)) as temporary:
        write_npz(temporary, arrays)


def _layout() -> dict[str, tuple[str, int]]:
    """Kind of dtype and rank of every array of a store."""
    layout = {
        "names": ("U", 1), "scenes": ("U", 1), "kinds": ("i", 1), "jpeg": ("u", 1), "jpeg_end": ("i", 1),
        "counts": ("U", 0), "camera_image": ("i", 1), "camera_model": ("U", 1), "camera_params": ("f", 2),
        "camera_size": ("i", 2), "camera_rotation": ("f", 3), "camera_translation": ("f", 2),
    }  # fmt: skip
    for table in ("tracks", "empty"):
        for item in dataclasses.fields(Observations):
            whole = item.name in ("image", "point")
            layout[f"{table}_{item.name}"] = ("i" if whole else "f", 2 if item.name == "xy" else 1)
    return layout


def load_store(path: str | Path) -> Store:
    """Read a store, checking all of it but the images, which are decoded when they are used.

    Raises:
        FileNotFoundError: if there is no such file.
        StoreError: if the file is truncated or damaged, of another version, or its parts contradict each other.

    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no training data {path}; make it with `kornia-lift build-dataset`")
    try:
        version = int(read_npz(path, {"version": ("iu", 0)})["version"])
        if version != VERSION:
            raise StoreError(
                f"{path} is a store of version {version}, this package reads version {VERSION}; {_again(path)}"
            )
        arrays = read_npz(path, _layout())
    except DamagedFileError as error:
        raise StoreError(
            f"{error}; a training store that is truncated or damaged: copy it again, or {_again(path)}"
        ) from error
    try:
        return _assemble(arrays)
    except (ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise StoreError(f"{path} contradicts itself: {error}; {_again(path)}") from error


def _again(path: Path) -> str:
    """How a store is made again: `build-dataset` keeps one that exists."""
    record = path.with_suffix(".json")
    both = f"{path} and {record}" if record.is_file() else str(path)
    return f"delete {both}, and build it again by `kornia-lift build-dataset`"


def _assemble(arrays: Mapping[str, NDArray[Any]]) -> Store:
    end = arrays["jpeg_end"]
    begin = np.concatenate([np.zeros(1, np.int64), end[:-1]])
    blob = arrays["jpeg"].tobytes()
    if (len(end) and int(end[-1]) != len(blob)) or (end < begin).any() or (begin < 0).any():
        raise ValueError("the ends of the images do not divide their bytes")
    cameras = _cameras(arrays, len(end))
    images = tuple(
        StoredImage(str(name), str(scene), KINDS[int(kind)], blob[a:b], cameras.get(n))
        for n, (name, scene, kind, a, b) in enumerate(
            zip(arrays["names"], arrays["scenes"], arrays["kinds"], begin.tolist(), end.tolist(), strict=True)
        )
    )
    if len({image.name for image in images}) != len(images):
        raise ValueError("two images have one name")
    columns = [f.name for f in dataclasses.fields(Observations)]
    tracks, empty = (Observations(*(arrays[f"{table}_{c}"] for c in columns)) for table in ("tracks", "empty"))
    for table, least in ((tracks, 0), (empty, -1)):
        if len(table) and not 0 <= table.image.min() <= table.image.max() < len(images):
            raise ValueError("views in images that it does not hold")
        if len(table) and not least <= table.point.min() <= table.point.max() < 2**26:
            raise ValueError("points are not numbered from 0")
        numbers = np.column_stack([table.xy, table.sigma, table.theta, table.zoom, table.angle])
        if not np.isfinite(numbers).all() or (table.sigma < 0).any():
            raise ValueError("positions, scales or angles are not finite, or negative")
    counts = parse_json(str(arrays["counts"]))
    return Store(images, tracks, empty, {str(k): {str(n): int(v) for n, v in c.items()} for k, c in counts.items()})


def _cameras(arrays: Mapping[str, NDArray[Any]], images: int) -> dict[int, Camera]:
    rows = zip(
        arrays["camera_image"].tolist(), arrays["camera_model"].tolist(), arrays["camera_params"],
        arrays["camera_size"].tolist(), arrays["camera_rotation"], arrays["camera_translation"], strict=True,
    )  # fmt: skip
    cameras = {}
    for image, model, params, size, rotation, translation in rows:
        if not 0 <= image < images or rotation.shape != (3, 3) or translation.shape != (3,) or len(size) != 2:
            raise ValueError("a camera of an image that it does not hold, or of a wrong shape")
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise ValueError("a camera whose pose is not finite")
        known = tuple(float(p) for p in params if np.isfinite(p))
        cameras[image] = Camera(str(model), known, (size[0], size[1]), rotation, translation)
    return cameras


def join_stores(stores: Sequence[Store]) -> Store:
    """Put several sources together, renumbering images and points so that they stay distinct.

    Raises:
        ValueError: if two images have one name.

    """
    tracks, empty, images, points = [Observations.none()], [Observations.none()], 0, 0
    for store in stores:
        table = store.tracks
        tracks.append(dataclasses.replace(table, image=table.image + images, point=table.point + points))
        empty.append(dataclasses.replace(store.empty, image=store.empty.image + images))
        images += len(store.images)
        points += int(table.point.max(initial=-1)) + 1
    joined = Store(
        tuple(image for s in stores for image in s.images),
        join_observations(tracks),
        join_observations(empty),
        {scene: counts for s in stores for scene, counts in s.counts.items()},
    )
    repeated = sorted(name for name, count in Counter(joined.names).items() if count > 1)
    if repeated:
        raise ValueError(f"two images of the training data are called {repeated[0]!r}; rename a folder")
    return joined
