"""Pairs of images with known cameras but without depth: epipolar distances, and which region both images see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.evaluation.measures import epipolar
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.distances import nearest_square
from kornia_lift.training.data.images import scale_down
from kornia_lift.training.data.store import Store
from kornia_lift.training.limits import check_limits

T = TypeVar("T")


@dataclass(frozen=True)
class PairConfig:
    """Which pairs of a reconstructed scene are used, and how a match is judged.

    Args:
        partners: images that each image is paired with, spread evenly from the least to the largest common view.
        min_shared: least number of points that both images observe.
        min_overlap: least share of the points of the image with fewer points that both observe.
        max_overlap: largest such share: neighbouring frames of a video hardly differ.
        max_images: images used of a scene, evenly spread, so that no scene outweighs the others.
        max_size: larger side of the images, pixels; larger ones are scaled down.
        exact: a match within this many pixels of both epipolar lines is fully correct.
        loose: a match farther than this many pixels from one of them is wrong; in between the label falls linearly.
        reach: a keypoint counts as seen by the other image when an observation of a common point lies within this
            share of the larger side.

    """

    partners: int = 4
    min_shared: int = 40
    min_overlap: float = 0.1
    max_overlap: float = 0.9
    max_images: int = 12
    max_size: int = 1024
    exact: float = 1.0
    loose: float = 2.5
    reach: float = 0.035

    def __post_init__(self) -> None:
        check_limits(self, "partners", "min_shared", "max_images", "max_size", at_least=1)
        check_limits(self, "min_overlap", "max_overlap", at_least=0, at_most=1)
        check_limits(self, "exact", "reach", above=0)
        check_limits(self, "loose", at_least=self.exact)


@dataclass(frozen=True)
class PosedPair:
    """Two images of one scene.

    Args:
        first: index of the first image, in the list that :func:`posed_pairs` gives.
        second: index of the second image.
        fundamental: F with x_2^T F x_1 = 0 for ideal points, shape (3, 3).
        shared: positions of the common points in the first and the second image, shape (2, M, 2), pixels.

    """

    first: int
    second: int
    fundamental: FloatArray
    shared: FloatArray


class PosedImage:
    """A gray image with its camera.

    Args:
        gray: the image, uint8, shape (H, W), possibly smaller than what the camera is for.
        camera: its camera.

    Convention: points are (x, y) in pixels of ``gray``, pixel centres at integers.
    """

    def __init__(self, gray: Tensor, camera: Camera) -> None:
        self.gray = gray
        self.factor = gray.shape[1] / camera.size[0]
        self._camera = camera

    def ideal(self, points: FloatArray) -> FloatArray:
        """Undistorted positions (N, 2), in pixels of the camera, of points of the image."""
        return self._camera.undistort((points + 0.5) / self.factor - 0.5)


def posed_pairs(store: Store, config: PairConfig | None = None) -> tuple[list[PosedImage], list[PosedPair]]:
    """List the pairs of images of all scenes with cameras.

    Args:
        store: the data.
        config: which pairs.

    Returns:
        The images that are in a pair, and the pairs; both empty where there are no scenes with enough common points.

    Raises:
        StoreError: if an image cannot be decoded.

    """
    config = config or PairConfig()
    images: list[PosedImage] = []
    pairs: list[PosedPair] = []
    for chosen in images_with_cameras(store, config):
        found_images, found_pairs = _scene_pairs(store, chosen, config)
        pairs += [
            PosedPair(p.first + len(images), p.second + len(images), p.fundamental, p.shared) for p in found_pairs
        ]
        images += found_images
    return images, pairs


def images_with_cameras(store: Store, config: PairConfig) -> Iterator[list[int]]:
    """Yield the images of each scene with two or more cameras, at most ``config.max_images``, evenly spread."""
    for scene in store.scenes:
        members = [n for n, image in enumerate(store.images) if image.scene == scene and image.camera is not None]
        if len(members) > 1:
            yield spread(members, config.max_images)


def count_pairs(store: Store, config: PairConfig | None = None) -> int:
    """Return how many pairs :func:`posed_pairs` lists; no image is decoded."""
    config = config or PairConfig()
    return sum(
        len(choose_partners([store.observed(k) for k in chosen], config))
        for chosen in images_with_cameras(store, config)
    )


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` of some items, evenly spread, both ends among them."""
    return [items[n] for n in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def _scene_pairs(store: Store, chosen: Sequence[int], config: PairConfig) -> tuple[list[PosedImage], list[PosedPair]]:
    observed = [store.observed(k) for k in chosen]
    partners = choose_partners(observed, config)
    cameras = [camera for k in chosen if (camera := store.images[k].camera) is not None]
    images = {
        n: PosedImage(scale_down(store.decode(chosen[n]), config.max_size), cameras[n])
        for n in sorted({n for pair in partners for n in pair})
    }
    number = {n: position for position, n in enumerate(images)}
    pairs = []
    for i, j in partners:
        common = sorted(observed[i].keys() & observed[j].keys())
        shared = np.stack(
            [(np.array([observed[n][point] for point in common]) + 0.5) * images[n].factor - 0.5 for n in (i, j)]
        )
        pairs.append(PosedPair(number[i], number[j], fundamental_matrix(cameras[i], cameras[j]), shared))
    return list(images.values()), pairs


def choose_partners(observed: Sequence[Mapping[int, object]], config: PairConfig) -> list[tuple[int, int]]:
    """Choose the pairs (i, j), i < j, of images by the points that both observe, the keys of ``observed``."""
    chosen: set[tuple[int, int]] = set()
    for i, mine in enumerate(observed):
        candidates = []
        for j, other in enumerate(observed):
            common = len(mine.keys() & other.keys())
            overlap = common / max(min(len(mine), len(other)), 1)
            if j != i and common >= config.min_shared and config.min_overlap <= overlap <= config.max_overlap:
                candidates.append((overlap, j))
        candidates.sort()
        chosen |= {(min(i, j), max(i, j)) for _, j in spread(candidates, config.partners)}
    return sorted(chosen)


def fundamental_matrix(first: Camera, second: Camera) -> FloatArray:
    """F with x_2^T F x_1 = 0 for the undistorted points of two cameras, shape (3, 3)."""
    rotation = second.rotation @ first.rotation.T
    pose = rotation, second.translation - rotation @ first.translation
    return epipolar.fundamental_matrix((first.intrinsics, second.intrinsics), pose)


def epipolar_distance(
    pair: PosedPair, images: Sequence[PosedImage], first: FloatArray, second: FloatArray
) -> FloatArray:
    """Return the larger distance of each match from its two epipolar lines, in pixels of the images.

    Args:
        pair: the pair.
        images: the list that the pair belongs to.
        first: points of the first image, shape (N, 2).
        second: their matches in the second image, shape (N, 2).

    """
    one, two = images[pair.first], images[pair.second]
    distances = line_distances(pair.fundamental, one.ideal(first), two.ideal(second))
    return np.asarray(np.maximum(*(d * image.factor for d, image in zip(distances, (one, two), strict=True))))


def line_distances(fundamental: FloatArray, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distances of matches from their epipolar lines.

    Args:
        fundamental: F with x_2^T F x_1 = 0, shape (3, 3).
        first: undistorted points of the first image, shape (N, 2).
        second: their matches in the second image, shape (N, 2).

    Returns:
        Distances in the first and in the second image, pixels of the cameras, shape (N,) each.

    """
    a, b = (np.concatenate([p, np.ones((len(p), 1))], 1) for p in (first, second))
    in_second, in_first = a @ fundamental.T, b @ fundamental
    product = np.abs((b * in_second).sum(1))
    one, two = (product / np.hypot(*line[:, :2].T).clip(1e-12) for line in (in_first, in_second))
    return one, two


def is_seen(
    pair: PosedPair, images: Sequence[PosedImage], side: int, points: FloatArray, reach: float
) -> NDArray[np.bool_]:
    """Say which points of one image (``side`` 0 or 1) lie near an observation of a common point, shape (N,)."""
    index = pair.second if side else pair.first
    radius = reach * max(images[index].gray.shape)
    shared = pair.shared[side]
    return np.asarray(nearest_square(points, shared) < radius**2)


def label_by_error(error: FloatArray, exact: float, loose: float) -> FloatArray:
    """Map distances to labels: 1 up to ``exact``, 0 from ``loose`` on, linear in between."""
    return np.asarray(np.clip((loose - error) / max(loose - exact, 1e-9), 0, 1))
