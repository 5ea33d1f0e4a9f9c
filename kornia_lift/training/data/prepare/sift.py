"""SIFT keypoints, and which of them the geometry of a scene confirms in scale and angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.training.data.prepare.frames import Array, Frames, Indices, nearest_similarity

MIN_SIGMA = 2.0  # smallest keypoint that LIFT learns from, pixels


@dataclass(frozen=True)
class Tolerance:
    """When a keypoint is taken for the projection of a location.

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
        rotation = np.abs(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)
        return (np.abs(log_scale) <= math.log(self.scale)) & (rotation <= math.radians(self.angle))


@dataclass(frozen=True)
class Keypoints:
    """SIFT keypoints of one image.

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

    def take(self, rows: Indices | NDArray[np.bool_]) -> Keypoints:
        """Return the chosen rows."""
        return Keypoints(self.xy[rows], self.sigma[rows], self.theta[rows])


def detect_sift(image: Tensor) -> Keypoints:
    """Detect OpenCV's SIFT keypoints in a gray image, uint8, shape (H, W)."""
    cv2 = require("cv2", extra="train")
    # without the precise one, OpenCV's doubling of the image moves every keypoint by a quarter of a pixel
    sift = cv2.SIFT_create(enable_precise_upscale=True)
    # size is a diameter
    rows = [(*k.pt, k.size / 2, math.radians(k.angle)) for k in sift.detect(image.numpy(), None)]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Keypoints(table[:, :2], table[:, 2], table[:, 3])


def one_per_location(keypoints: Keypoints) -> Keypoints:
    """Keep the largest keypoint at every position: SIFT repeats a position for every scale and angle that it has."""
    order = np.argsort(-keypoints.sigma, kind="stable")
    return keypoints.take(np.sort(order[np.unique(keypoints.xy[order], axis=0, return_index=True)[1]]))


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
    frames: Frames, keypoints: list[Keypoints], tolerance: Tolerance | None = None
) -> tuple[Indices, Indices]:
    """Choose, for every observation of a location, the SIFT keypoint that the geometry confirms.

    A reconstruction keeps no scale and no angle, and SIFT often finds several of both at one position. All views of a
    location must agree on one keypoint once the change of scale and of angle from view to view, which the geometry
    gives, is undone; the largest agreeing set of views is kept.

    Args:
        frames: observations of the locations.
        keypoints: SIFT keypoints of every image.
        tolerance: when an observation and a keypoint go together.

    Returns:
        Observations that are confirmed, and the keypoint of each in its image; every location of them has two or more.

    """
    tolerance = tolerance or Tolerance()
    zoom, angle_of_view, proper = nearest_similarity(frames.jacobian)
    observations, chosen = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for index, points in enumerate(keypoints):
        mine = np.flatnonzero((frames.image == index) & proper)
        first, second = near_pairs(frames.xy[mine], points.xy, tolerance.distance)
        observations.append(mine[first])
        chosen.append(second)
    observation, keypoint = np.concatenate(observations), np.concatenate(chosen)
    every = [Keypoints(np.zeros((0, 2)), np.zeros(0), np.zeros(0)), *keypoints]
    sigma = np.concatenate([k.sigma[c] for k, c in zip(every, chosen, strict=True)])
    theta = np.concatenate([k.theta[c] for k, c in zip(every, chosen, strict=True)])
    log_scale, angle = np.log(sigma / zoom[observation]), theta - angle_of_view[observation]
    order = np.argsort(frames.point[observation], kind="stable")
    borders = np.flatnonzero(np.diff(frames.point[observation][order])) + 1
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


def drop_repeated_locations(frames: Frames, observation: Indices, keypoint: Indices) -> NDArray[np.bool_]:
    """Say which observations to keep, so that no keypoint belongs to two locations.

    COLMAP makes a point for each of SIFT's angles at a position, and a location that is followed from two images is
    listed twice. Kept both, they would serve as negatives of each other with the same patch. Of the locations that
    share a keypoint the one with most confirmed views stays.

    Args:
        frames: all observations.
        observation: confirmed observations, shape (N,).
        keypoint: keypoint of each in its image, shape (N,).

    Returns:
        For each observation of ``frames`` whether its location is kept, shape (M,).

    """
    point = frames.point[observation]
    count = np.bincount(point, minlength=int(frames.point.max(initial=-1)) + 1)
    dropped = np.zeros(len(count), dtype=bool)
    taken: dict[tuple[int, int], int] = {}
    order = np.lexsort((point, -count[point]))
    views = zip(frames.image[observation][order].tolist(), keypoint[order].tolist(), point[order].tolist(), strict=True)
    groups: dict[int, list[tuple[int, int]]] = {}
    for image, number, owner in views:
        groups.setdefault(owner, []).append((image, number))
    for owner, keys in groups.items():
        if any(key in taken for key in keys):
            dropped[owner] = True
        else:
            taken.update(dict.fromkeys(keys, owner))
    return ~dropped[frames.point]
