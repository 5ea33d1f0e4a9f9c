"""SIFT keypoints, and which of them show one place: those whose scale and angle the geometry confirms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift.scenes.scene import VISIBLE, Scene
from kornia_lift.training.data.sfm_frames import SfmObservations, nearest_similarity

MIN_SIGMA = 2.0  # smallest keypoint that LIFT learns from (LIFT spec 5)

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Tolerance:
    """When a keypoint is taken for the projection of a place.

    Args:
        distance: pixels to the projection.
        scale: largest factor between its scale and the one that the geometry predicts.
        angle: largest difference of angle, degrees.

    """

    distance: float = 1.0
    scale: float = 1.35
    angle: float = 20.0

    def agree(self, log_scale: Array, angle: Array) -> NDArray[np.bool_]:
        """Whether differences of log scale and of angle (radians, any period) are within the limits."""
        turn = np.abs(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)
        return (np.abs(log_scale) <= math.log(self.scale)) & (turn <= math.radians(self.angle))


@dataclass(frozen=True)
class Keypoints:
    """SIFT keypoints of one photograph.

    Args:
        xy: pixels, pixel centres at integers, shape (N, 2).
        sigma: scale in pixels, shape (N,).
        theta: radians, clockwise on screen, shape (N,).

    """

    xy: Array
    sigma: Array
    theta: Array

    def __len__(self) -> int:
        return len(self.xy)


def detect_sift(image: NDArray[np.uint8], min_sigma: float = MIN_SIGMA) -> Keypoints:
    """Find OpenCV's SIFT keypoints of at least ``min_sigma`` in a gray image (H, W)."""
    cv2 = require("cv2", extra="train")
    # without the precise one, OpenCV's doubling of the photograph moves every keypoint by a quarter of a pixel
    sift = cv2.SIFT_create(enable_precise_upscale=True)
    found = [k for k in sift.detect(image, None) if k.size >= 2 * min_sigma]  # size is a diameter
    table = np.array([(*k.pt, k.size / 2, math.radians(k.angle)) for k in found], dtype=np.float64).reshape(-1, 4)
    return Keypoints(table[:, :2], table[:, 2], table[:, 3])


def near_pairs(a: Array, b: Array, distance: float) -> tuple[Indices, Indices]:
    """Return the indices of all pairs of points of ``a`` (N, 2) and ``b`` (M, 2) within ``distance``."""
    order = np.argsort(b[:, 0], kind="stable")
    x = b[order, 0]
    low, high = np.searchsorted(x, a[:, 0] - distance), np.searchsorted(x, a[:, 0] + distance, side="right")
    count = high - low
    first = np.repeat(np.arange(len(a)), count)
    second = order[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)]
    near = np.hypot(*(a[first] - b[second]).T) <= distance
    return first[near], second[near]


def confirm_tracks(
    seen: SfmObservations, keypoints: list[Keypoints], tolerance: Tolerance | None = None
) -> tuple[Indices, Indices]:
    """Choose, for every observation of a reconstruction, the SIFT keypoint that the cameras confirm.

    A reconstruction keeps no scale and no angle, and SIFT often finds several of both at one place. All views of a
    point must agree on one keypoint once the change of scale and of angle from view to view, which the cameras give,
    is undone; the largest agreeing set of views is kept.

    Args:
        seen: observations of the points.
        keypoints: SIFT keypoints of every photograph of ``seen.images``.
        tolerance: when an observation and a keypoint go together.

    Returns:
        Observations that are kept, and the keypoint of each in its photograph; every point of them has two or more.

    """
    tolerance = tolerance or Tolerance()
    zoom, turn, proper = nearest_similarity(seen.jacobian)
    observations, chosen = [], []
    for index, points in enumerate(keypoints):
        mine = np.flatnonzero((seen.image == index) & proper)
        first, second = near_pairs(seen.xy[mine], points.xy, tolerance.distance)
        observations.append(mine[first])
        chosen.append(second)
    observation, keypoint = np.concatenate(observations), np.concatenate(chosen)
    sigma = np.concatenate([k.sigma[c] for k, c in zip(keypoints, chosen, strict=True)])
    theta = np.concatenate([k.theta[c] for k, c in zip(keypoints, chosen, strict=True)])
    log_scale, angle = np.log(sigma / zoom[observation]), theta - turn[observation]
    order = np.argsort(seen.point[observation], kind="stable")
    borders = np.flatnonzero(np.diff(seen.point[observation][order])) + 1
    kept: list[int] = []
    for rows in np.split(order, borders):
        if len(rows) < 2:
            continue
        off_scale = log_scale[rows][:, None] - log_scale[rows]
        off_angle = angle[rows][:, None] - angle[rows]
        agree = tolerance.agree(off_scale, off_angle)
        views = observation[rows]
        best = max(range(len(rows)), key=lambda k: len(set(views[agree[k]])))
        nearest: dict[int, int] = {}
        for row in np.flatnonzero(agree[best])[np.argsort(np.abs(off_scale[best][agree[best]]), kind="stable")]:
            nearest.setdefault(int(views[row]), int(rows[row]))
        if len(nearest) >= 2:
            kept.extend(nearest.values())
    return observation[kept], keypoint[kept]


def merge_points(image: Indices, keypoint: Indices, point: Indices) -> tuple[Indices, Indices, Indices]:
    """Give points that share a keypoint one number: COLMAP makes a point for each of SIFT's angles at a place.

    Left apart, they would serve as negatives of each other with the same patch.

    Args:
        image: photograph of each observation, shape (N,).
        keypoint: keypoint in it, shape (N,).
        point: number of the point, shape (N,).

    Returns:
        The same, with one keypoint per photograph and point, and the points numbered from 0.

    """
    number = np.unique(point, return_inverse=True)[1]
    label = np.arange(len(number))
    owner: dict[tuple[int, int], int] = {}
    for view in zip(image.tolist(), keypoint.tolist(), number.tolist(), strict=True):
        roots = _root(label, owner.setdefault(view[:2], view[2])), _root(label, view[2])
        label[max(roots)] = min(roots)
    root = np.array([_root(label, n) for n in number.tolist()], dtype=np.int64)
    rows = np.sort(np.unique(np.stack([root, image]), axis=1, return_index=True)[1])
    return image[rows], keypoint[rows], np.unique(root[rows], return_inverse=True)[1]


def confirm_scene(
    scene: Scene, keypoints: list[Keypoints], tolerance: Tolerance | None = None
) -> tuple[Indices, Indices, Indices]:
    """Group the SIFT keypoints of photographs with dense ground truth (depth or homographies) into places.

    Args:
        scene: gives where a point of one photograph lies in another.
        keypoints: SIFT keypoints of every photograph of ``scene.names``.
        tolerance: when two keypoints are one place.

    Returns:
        Photograph, keypoint in it, and number of the place, for all places seen twice or more.

    """
    tolerance = tolerance or Tolerance(distance=1.5)
    begin = np.concatenate([[0], np.cumsum([len(k) for k in keypoints])])
    label = np.arange(begin[-1])
    for pair in scene.pairs:
        a, b = keypoints[pair.i], keypoints[pair.j]
        first, second = _corresponding(scene, pair.i, pair.j, a, b, tolerance)
        for one, other in zip((first + begin[pair.i]).tolist(), (second + begin[pair.j]).tolist(), strict=True):
            roots = _root(label, one), _root(label, other)
            label[max(roots)] = min(roots)
    root = np.array([_root(label, node) for node in range(len(label))], dtype=np.int64)
    image = np.repeat(np.arange(len(keypoints)), np.diff(begin))
    # one keypoint per photograph and place: the first, they agree within the tolerance
    _, unique = np.unique(np.stack([root, image]), axis=1, return_index=True)
    count = np.bincount(root[unique], minlength=len(label))
    rows = np.sort(unique[count[root[unique]] >= 2])
    place = np.unique(root[rows], return_inverse=True)[1]
    return image[rows], rows - begin[image[rows]], place


def _corresponding(
    scene: Scene, i: int, j: int, a: Keypoints, b: Keypoints, tolerance: Tolerance
) -> tuple[Indices, Indices]:
    here = scene.transfer(i, j, a.xy)
    moved = []
    for axis in range(2):
        beside = a.xy.copy()
        beside[:, axis] += a.sigma
        moved.append(scene.transfer(i, j, beside))
    visible = (here.status == VISIBLE) & (moved[0].status == VISIBLE) & (moved[1].status == VISIBLE)
    rows = np.flatnonzero(visible)
    if not len(rows):
        return rows, rows
    local = np.stack([m.points[rows] - here.points[rows] for m in moved], axis=2) / a.sigma[rows, None, None]
    zoom, turn, proper = nearest_similarity(local)
    first, second = near_pairs(here.points[rows], b.xy, tolerance.distance)
    off_scale = np.log(b.sigma[second] / (a.sigma[rows][first] * zoom[first]))
    off_angle = b.theta[second] - a.theta[rows][first] - turn[first]
    good = tolerance.agree(off_scale, off_angle) & proper[first]
    return rows[first[good]], second[good]


def _root(label: Indices, node: int) -> int:
    while label[node] != node:
        label[node] = label[label[node]]
        node = int(label[node])
    return node
