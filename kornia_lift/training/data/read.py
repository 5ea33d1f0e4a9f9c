"""From one source of images to a store: the one path from image files to what both recipes train on.

images -> locations followed from image to image (frames) -> SIFT scales and angles where the geometry confirms them
(sift) -> regions without keypoints (negatives) -> store. What every step leaves is counted, see :data:`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.scenes.colmap import read_model, sfm_root
from kornia_lift.scenes.dtu import DTUScan, is_dtu_scan
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import Scene
from kornia_lift.training.data.alike import check_different, thumbnail
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.frames import (
    Frames,
    frames_at,
    frames_from_colmap,
    frames_from_scene,
    nearest_similarity,
)
from kornia_lift.training.data.images import encode_jpeg, images_in, read_gray, to_gray
from kornia_lift.training.data.negatives import SUPPORT, free_regions
from kornia_lift.training.data.sift import (
    MIN_SIGMA,
    Keypoints,
    Tolerance,
    confirm_tracks,
    detect_sift,
    drop_repeated_locations,
    near_pairs,
    one_per_location,
)
from kornia_lift.training.data.sources import Source
from kornia_lift.training.data.store import Kind, Observations, Store, StoredImage, join_observations
from kornia_lift.training.limits import check_limits

EMPTY_PER_IMAGE = 100
_ENOUGH = 50  # points of an image from which it is known again, where this share lies at keypoints
_LEAST_NEAR = 0.1
#: What the counts of a store count, in order: locations that are left.
STEPS = {
    "found": "locations",
    "tracked": "seen in two images, in one orientation",
    "near_sift": "SIFT keypoint at the location in two images",
    "large": f"of at least {MIN_SIGMA:g} pixels",
    "confirmed": "scales and angles agree with the geometry",
    "supported": f"whole support ({2 * SUPPORT:.0f} sigma) inside two images",
}

Say = Callable[[str], object]


class NoCorrespondenceError(ValueError):
    """Images that show no location twice."""


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read.

    Args:
        max_size: larger side, in pixels, to which single images and exposures are scaled down. The images of scenes
            keep their size: their geometry refers to it.
        points_per_scene: locations of a scene, at most; those that SIFT confirms come first.
        points_per_image: locations of a single image, at most.
        quality: of the JPEG images.
        seed: of the choice of locations and of the regions without keypoint.

    """

    max_size: int = 1024
    points_per_scene: int = 6000
    points_per_image: int = 600
    quality: int = 88
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "max_size", at_least=64)
        check_limits(self, "points_per_scene", "points_per_image", at_least=2)
        check_limits(self, "quality", at_least=1, at_most=100)
        check_limits(self, "seed", at_least=0)


class _Read(NamedTuple):
    """What a kind of source gives: images, names, keypoints, locations, cameras."""

    images: list[Tensor]
    names: list[str]
    keypoints: list[Keypoints]
    frames: Frames
    tolerance: Tolerance
    cameras: list[Camera | None]


def read_source(source: Source, options: ReadOptions | None = None, say: Say = lambda text: None) -> Store:
    """Read a source.

    Args:
        source: what to read.
        options: how.
        say: called with what is left out.

    Raises:
        FileNotFoundError: if images are missing.
        ValueError: if an image is damaged or of another size than its camera.
        NoCorrespondenceError: if no location is left.

    """
    options = options or ReadOptions()
    rng = np.random.default_rng(options.seed)
    if source.kind == "single":
        return _read_singles(source, options, rng)
    if source.kind == "exposures":
        return _read_exposures(source, options, rng)
    if source.kind == "sfm":
        read = _read_colmap(sfm_root(source.path) or source.path)
    else:
        scene: Scene
        if source.kind == "posed":
            scene = (DTUScan if is_dtu_scan(source.path) else PosedScene).load(source.path)
        else:
            scene = HomographySequence.load(source.path, all_pairs=True)
        for pair in scene.skipped:
            one, two = scene.names[pair.i], scene.names[pair.j]
            say(f"{source.name}: images {one} and {two} are not paired: {pair.reason}")
        read = _read_scene(scene, options, rng)
    return _scene_store(source, read, options, rng)


def _read_colmap(folder: Path) -> _Read:
    model = read_model(folder)
    names, frames = frames_from_colmap(model)
    missing = [name for name in names if not (folder / "images" / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} images of the model are missing in images/: {', '.join(missing[:5])}"
        )
    by_name = {image.name: image for image in model.images.values()}
    images, cameras = [], []
    for name in names:
        image, camera = read_gray(folder / "images" / name), model.cameras[by_name[name].camera_id]
        if tuple(image.shape) != (camera.height, camera.width):
            raise ValueError(
                f"{folder}/images/{name} is {image.shape[1]}x{image.shape[0]}, but the model was made for "
                f"{camera.width}x{camera.height}; use the images of the reconstruction, or rescale the model"
            )
        pose = by_name[name].cam_from_world()
        size = camera.width, camera.height
        images.append(image)
        cameras.append(
            Camera(camera.model_name, tuple(camera.params), size, pose.rotation.matrix(), pose.translation.copy())
        )
    return _Read(images, list(names), [detect_sift(i) for i in images], frames, Tolerance(), list(cameras))


def _check_unchanged(name: str, read: _Read, near: NDArray[np.float64]) -> None:
    """Check that the images are those of the model: many of its points lie at a keypoint of SIFT.

    Raises:
        ValueError: naming an image in which hardly any does.

    """
    for index, image in enumerate(read.names):
        mine = near[read.frames.image == index]
        if len(mine) >= _ENOUGH and (mine > 0).mean() < _LEAST_NEAR:
            raise ValueError(
                f"{name}: {int((mine > 0).sum())} of {len(mine)} points of the model lie at a keypoint of {image}: "
                "the image was most likely changed or exchanged since the model was made: restore it, or reconstruct "
                "the images again"
            )


def _read_scene(scene: Scene, options: ReadOptions, rng: np.random.Generator) -> _Read:
    # an image without any ground truth need not be readable
    used = {index for pair in scene.pairs for index in (pair.i, pair.j)}
    blank = torch.zeros((64, 64), dtype=torch.uint8)
    images = [to_gray(scene.image(i)) if i in used else blank for i in range(len(scene.names))]
    keypoints = [detect_sift(image) for image in images]
    share = -(-2 * options.points_per_scene // max(1, len(used)))
    starts = []
    for found in keypoints:
        candidates = one_per_location(found)
        order = rng.permutation(len(candidates))
        order = order[np.argsort(candidates.sigma[order] < MIN_SIGMA, kind="stable")]
        starts.append(candidates.xy[order[:share]])
    frames = frames_from_scene(scene, starts)
    cameras: list[Camera | None] = [None] * len(images)
    if isinstance(scene, PosedScene):
        cameras = [_pinhole(scene, index) for index in range(len(images))]
    return _Read(images, list(scene.names), keypoints, frames, Tolerance(distance=1.5), cameras)


def _pinhole(scene: PosedScene, index: int) -> Camera:
    k = scene.intrinsics[index]
    params = (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)  # COLMAP's pixel centres
    return Camera("PINHOLE", tuple(map(float, params)), scene.size, scene.rotations[index], scene.translations[index])


def _scene_store(source: Source, read: _Read, options: ReadOptions, rng: np.random.Generator) -> Store:
    frames, counts = read.frames, {"found": _count(read.frames.point)}
    zoom, angle, proper = nearest_similarity(frames.jacobian)
    proper &= np.isfinite(zoom) & (zoom > 0)
    kept = proper & _twice(frames.point, proper)
    counts["tracked"] = _count(frames.point[kept])
    near = _near_keypoints(frames, read.keypoints, read.tolerance.distance)
    if source.kind == "sfm":
        _check_unchanged(source.name, read, near)
    counts["near_sift"] = _count(frames.point[_twice(frames.point, kept & (near > 0))])
    counts["large"] = _count(frames.point[_twice(frames.point, kept & (near >= MIN_SIGMA))])
    large = [k.take(k.sigma >= MIN_SIGMA) for k in read.keypoints]
    observation, keypoint = confirm_tracks(frames, large, read.tolerance)
    counts["confirmed"] = _count(frames.point[observation])
    kept &= drop_repeated_locations(frames, observation, keypoint)
    sigma, theta = np.zeros(len(frames)), np.zeros(len(frames))
    for index, points in enumerate(large):
        mine = frames.image[observation] == index
        rows, columns = observation[mine], keypoint[mine]
        sigma[rows], theta[rows] = points.sigma[columns], points.theta[columns]
    size = np.array([image.shape[::-1] for image in read.images]).reshape(-1, 2)
    reach = SUPPORT * sigma[:, None]
    fits = ((frames.xy >= reach) & (frames.xy <= size[frames.image] - 1 - reach)).all(axis=1)
    usable = kept & (sigma > 0) & fits
    usable = usable & _twice(frames.point, usable)
    sigma[~usable] = 0
    counts["supported"] = _count(frames.point[usable])
    rows = _first_points(frames.point, kept, usable, options.points_per_scene, rng)
    if not len(rows):
        raise NoCorrespondenceError(
            f"{source.name}: no location is seen in two of the {len(read.images)} images; use more, larger or more "
            "overlapping images"
        )
    point = np.unique(frames.point[rows], return_inverse=True)[1]
    table = Observations(frames.image[rows], point, frames.xy[rows], sigma[rows], theta[rows], zoom[rows], angle[rows])
    return _store(source, read, table, counts, options, rng)


def _read_singles(source: Source, options: ReadOptions, rng: np.random.Generator) -> Store:
    """Single images: their second views are synthetic, drawn when training."""
    images = [read_gray(path, options.max_size) for path in source.files]
    check_different(
        [thumbnail(image) for image in images],
        source.name,
        "single images have to show different things: keep one of each, and build images of one place without --single",
    )
    keypoints = [detect_sift(image) for image in images]
    parts, points, found, large = [Observations.none()], 0, 0, 0
    for index, (image, every) in enumerate(zip(images, keypoints, strict=True)):
        chosen = _locations_of(image, every, options.points_per_image, rng)
        found, large = found + len(np.unique(every.xy, axis=0)), large + int((every.sigma >= MIN_SIGMA).sum())
        number = points + np.arange(len(chosen))
        parts.append(
            Observations(
                np.full(len(chosen), index), number, chosen.xy, chosen.sigma, chosen.theta, *_unit(len(chosen))
            )
        )
        points += len(chosen)
    table = join_observations(parts)
    counts = {"found": found, "large": large, "supported": int((table.sigma > 0).sum())}
    names = [path.name for path in source.files]
    read = _Read(images, names, keypoints, frames_at(np.zeros((0, 2)), 0), Tolerance(), [None] * len(images))
    if not len(table):
        raise NoCorrespondenceError(_no_texture(source.name, len(images)))
    return _store(source, read, table, counts, options, rng)


def _read_exposures(source: Source, options: ReadOptions, rng: np.random.Generator) -> Store:
    """Aligned images of one scene under several exposures."""
    files = images_in(source.path)
    images = [read_gray(path, options.max_size) for path in files]
    sizes = {tuple(image.shape) for image in images}
    if len(images) < 2 or len(sizes) > 1:
        raise ValueError(
            f"{source.path} must hold two or more images of one size, taken from a tripod under different light; "
            f"it holds {len(images)}, of {len(sizes)} sizes"
        )
    # the keypoints of the middle exposure serve all: no exposure shows more
    every = detect_sift(images[len(images) // 2])
    table = _locations_of(images[0], every, options.points_per_image, rng)
    if not len(table):
        raise NoCorrespondenceError(_no_texture(source.name, len(images)))
    frames, count = frames_at(table.xy, len(images)), len(images)
    sigma, theta = np.tile(table.sigma, count), np.tile(table.theta, count)
    rows = Observations(frames.image, frames.point, frames.xy, sigma, theta, *_unit(len(frames)))
    counts = {
        "found": len(np.unique(every.xy, axis=0)),
        "large": int((every.sigma >= MIN_SIGMA).sum()),
        "supported": int((table.sigma > 0).sum()),
    }
    read = _Read(images, [f.name for f in files], [every] * count, frames, Tolerance(), [None] * count)
    return _store(source, read, rows, counts, options, rng)


def _locations_of(image: Tensor, keypoints: Keypoints, count: int, rng: np.random.Generator) -> Keypoints:
    """Locations in one image; those whose support lies inside come first, the scale of the others becomes 0."""
    found = one_per_location(keypoints)
    reach = SUPPORT * found.sigma[:, None]
    fits = ((found.xy >= reach) & (found.xy <= np.array(image.shape[::-1]) - 1 - reach)).all(axis=1)
    fits &= found.sigma >= MIN_SIGMA
    order = rng.permutation(len(found))
    order = order[np.argsort(~fits[order], kind="stable")][:count]
    return Keypoints(found.xy[order], found.sigma[order] * fits[order], found.theta[order])


def _unit(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Zoom and angle of images that show a location alike."""
    return np.ones(count), np.zeros(count)


def _store(
    source: Source,
    read: _Read,
    table: Observations,
    counts: dict[str, int],
    options: ReadOptions,
    rng: np.random.Generator,
) -> Store:
    scales = table.sigma[table.sigma > 0]
    empty = [Observations.none()]
    for index, image in enumerate(read.images):
        size = (image.shape[1], image.shape[0])
        xy, sigma = free_regions(size, read.keypoints[index], scales, EMPTY_PER_IMAGE, rng)
        count = len(xy)
        angle = rng.uniform(0, 2 * np.pi, count)
        empty.append(Observations(np.full(count, index), np.full(count, -1), xy, sigma, angle))
    names = [f"{source.name}/{name}" for name in read.names]
    kind: Kind = source.kind
    images = tuple(
        StoredImage(name, name if kind == "single" else source.name, kind, encode_jpeg(image, options.quality), camera)
        for name, image, camera in zip(names, read.images, read.cameras, strict=True)
    )
    return Store(images, table, join_observations(empty), {source.name: counts | {"images": len(images)}})


def _count(points: NDArray[np.integer]) -> int:
    return len(np.unique(points))


def _twice(point: NDArray[np.integer], rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of ``rows`` whose location has two of them."""
    views = np.bincount(point[rows], minlength=int(point.max(initial=-1)) + 1)
    return rows & (views[point] >= 2)


def _near_keypoints(frames: Frames, keypoints: Sequence[Keypoints], distance: float) -> NDArray[np.float64]:
    """Largest scale of the SIFT keypoints at each observation, 0 where there is none, shape (M,)."""
    largest = np.zeros(len(frames))
    for index, points in enumerate(keypoints):
        mine = np.flatnonzero(frames.image == index)
        first, second = near_pairs(frames.xy[mine], points.xy, distance)
        np.maximum.at(largest, mine[first], points.sigma[second])
    return largest


def _first_points(
    point: NDArray[np.integer],
    kept: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    limit: int,
    rng: np.random.Generator,
) -> NDArray[np.integer]:
    """Rows of ``kept`` that belong to ``limit`` locations: those with ``usable`` rows, then others by chance."""
    every = rng.permutation(np.unique(point[kept]))
    confirmed = np.isin(every, point[usable])
    chosen = every[np.argsort(~confirmed, kind="stable")][:limit]
    return np.flatnonzero(kept & np.isin(point, chosen))


def _no_texture(name: str, images: int) -> str:
    return f"{name}: none of the {images} images shows a SIFT keypoint; use larger images, or some with texture"
