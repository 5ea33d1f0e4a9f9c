"""From what was read of a source to its store: which locations are kept, how many each step leaves, empty regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.images import encode_jpeg
from kornia_lift.training.data.prepare.frames import Frames, nearest_similarity
from kornia_lift.training.data.prepare.negatives import SUPPORT, free_regions
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.sift import (
    MIN_SIGMA,
    Keypoints,
    Tolerance,
    confirm_tracks,
    drop_repeated_locations,
    near_pairs,
)
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.store import Kind, Observations, Store, StoredImage, join_observations

EMPTY_PER_IMAGE = 100
# an image with at least 50 points is compared with its model: a tenth of them must lie at SIFT keypoints
_ENOUGH, _LEAST_NEAR = 50, 0.1
#: What the counts of a store count, in order: locations that are left. ``{views}`` is where, as the kind has it.
STEPS = {
    "found": "locations",
    "tracked": "seen in two images, in one orientation",
    "near_sift": "SIFT keypoint at the location in two images",
    "large": f"of at least {MIN_SIGMA:g} pixels",
    "confirmed": "scales and angles agree with the geometry",
    "supported": f"whole support ({2 * SUPPORT:.0f} sigma) inside {{views}}",
}


class NoCorrespondenceError(ValueError):
    """Images that show no location twice."""


class Material(NamedTuple):
    """What a kind of source gives: images, names, keypoints, locations, cameras."""

    images: list[Tensor]
    names: list[str]
    keypoints: list[Keypoints]
    frames: Frames
    tolerance: Tolerance
    cameras: list[Camera | None]


def scene_store(source: Source, read: Material, options: ReadOptions, rng: np.random.Generator) -> Store:
    """Keep the locations that two images of a scene show, first those whose SIFT keypoints agree with the geometry.

    Raises:
        NoCorrespondenceError: if no location is left.

    """
    frames, counts = read.frames, {"found": _count(read.frames.point)}
    zoom, angle, proper = nearest_similarity(frames.jacobian)
    proper &= np.isfinite(zoom) & (zoom > 0)
    kept = _twice(frames.point, proper)
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
    usable = _twice(frames.point, kept & (sigma > 0) & fits)
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
    return make_store(source, read, table, counts, options, rng)


def _check_unchanged(name: str, read: Material, near: NDArray[np.float64]) -> None:
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


def make_store(
    source: Source,
    read: Material,
    table: Observations,
    counts: dict[str, int],
    options: ReadOptions,
    rng: np.random.Generator,
) -> Store:
    """Make the store of chosen views, with regions without keypoints."""
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
    """Return those of ``rows`` whose location has at least two of them."""
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
    """Rows of ``kept`` that belong to ``limit`` locations: first those with ``usable`` rows, then others at random."""
    every = rng.permutation(np.unique(point[kept]))
    confirmed = np.isin(every, point[usable])
    chosen = every[np.argsort(~confirmed, kind="stable")][:limit]
    return np.flatnonzero(kept & np.isin(point, chosen))
