"""Depth of posed images by plane sweeping, for scenes whose published ground truth is cameras only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Map = NDArray[np.float32]

WINDOW = 9  # pixels, side of the correlated windows
STEP = 1.0  # pixels by which two planes differ in the image that sees them farthest apart
LEAST_SCORE = 0.6
AGREE = 0.01  # of the depth
AGREEING = 2  # least number of other views


@dataclass(frozen=True)
class View:
    """A gray image with its camera, x ~ K (R X + t), pixel centres at integers.

    Args:
        gray: uint8, shape (H, W).
        k: K, shape (3, 3).
        r: R, shape (3, 3).
        t: t, shape (3,).
    """

    gray: NDArray[np.uint8]
    k: Array
    r: Array
    t: Array

    @property
    def centre(self) -> Array:
        """Position of the camera."""
        return -self.r.T @ self.t


def depth_maps(
    views: list[View], neighbours: int = 4, max_angle: float = 32.0, say: Callable[[str], object] = print
) -> list[Map]:
    """Inverse depth of every pixel, 0 where two other views do not confirm it.

    Args:
        views: the images.
        neighbours: largest number of other views that each is swept against, the nearest by angle.
        max_angle: largest angle to these at the middle of the scene, degrees.
        say: called with what is done.
    """
    middle = np.median(np.concatenate([_triangulate(a, b) for a, b in itertools.pairwise(views)]), axis=0)
    rays = [(v.centre - middle) / np.linalg.norm(v.centre - middle) for v in views]
    raw = []
    for index, view in enumerate(views):
        angles = np.degrees(np.arccos(np.clip([ray @ rays[index] for ray in rays], -1, 1)))
        near = [n for n in np.argsort(angles) if n != index and angles[n] <= max_angle][:neighbours]
        raw.append(_sweep(view, [views[n] for n in near]))
        say(f"view {index + 1} of {len(views)}: swept against {len(near)}")
    return [_confirmed(index, views, raw) for index in range(len(views))]


def _triangulate(a: View, b: View) -> Array:
    """Points that both views show, by SIFT and the known cameras, shape (N, 3)."""
    found = [cv2.SIFT_create(4000).detectAndCompute(v.gray, None) for v in (a, b)]
    matches = cv2.BFMatcher(crossCheck=True).match(found[0][1], found[1][1])
    first = np.array([found[0][0][m.queryIdx].pt for m in matches])
    second = np.array([found[1][0][m.trainIdx].pt for m in matches])
    matrices = [v.k @ np.c_[v.r, v.t] for v in (a, b)]
    homogeneous = cv2.triangulatePoints(*matrices, first.T, second.T)
    points = (homogeneous[:3] / homogeneous[3]).T
    good = np.isfinite(points).all(1)
    for v, xy in ((a, first), (b, second)):
        image = (points @ v.r.T + v.t) @ v.k.T
        good &= (image[:, 2] > 0) & (np.hypot(*(image[:, :2] / image[:, 2:] - xy).T) < 1.0)
    return points[good]


def _sweep(view: View, others: list[View]) -> Map:
    """Inverse depth at the best plane parallel to the image, by the mean of the two best correlations."""
    z = np.concatenate([(_triangulate(view, other) @ view.r.T + view.t)[:, 2] for other in others])
    near, far = np.percentile(z, 2) * 0.8, np.percentile(z, 98) * 1.25
    reach = max(_shift(view, other, 1 / far, 1 / near) for other in others)
    planes = np.linspace(1 / far, 1 / near, int(np.ceil(reach / STEP)) + 2)
    mean, deviation = _moments(view.gray.astype(np.float32))
    size = view.gray.shape[::-1]
    best = np.full(view.gray.shape, -1.0, np.float32)
    previous, left, right = best.copy(), best.copy(), best.copy()
    index = np.zeros(view.gray.shape, np.int32)
    for number, inverse in enumerate(planes):
        scores = []
        for other in others:
            rotation = other.r @ view.r.T
            shift = other.t - rotation @ view.t
            homography = other.k @ (rotation + np.outer(shift, [0, 0, inverse])) @ np.linalg.inv(view.k)
            warped = cv2.warpPerspective(other.gray, homography, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            scores.append(_correlation(view.gray, mean, deviation, warped))
        score = np.sort(np.stack(scores), axis=0)[-2:].mean(0)
        right = np.where(index == number - 1, score, right)
        better = score > best
        left[better] = previous[better]
        right[better] = -1.0
        best[better], index[better] = score[better], number
        previous = score
    curvature = left - 2 * best + right
    offset = np.where(curvature < -1e-6, (left - right) / (2 * np.minimum(curvature, -1e-6)), 0).clip(-0.5, 0.5)
    inverse = planes[0] + (index + offset) * (planes[1] - planes[0])
    inner = (index > 0) & (index < len(planes) - 1) & (best >= LEAST_SCORE)
    return np.where(inner, inverse, 0).astype(np.float32)


def _shift(view: View, other: View, low: float, high: float) -> float:
    """How far the middle of the image moves in another view, in pixels, over a range of inverse depths."""
    height, width = view.gray.shape
    ray = np.linalg.inv(view.k) @ [width / 2, height / 2, 1]
    ends = [other.k @ (other.r @ view.r.T @ (ray / q - view.t) + other.t) for q in (low, high)]
    return float(np.hypot(*(ends[0][:2] / ends[0][2] - ends[1][:2] / ends[1][2])))


def _moments(gray: Map) -> tuple[Map, Map]:
    mean = cv2.blur(gray, (WINDOW, WINDOW))
    return mean, np.sqrt(np.maximum(cv2.blur(gray * gray, (WINDOW, WINDOW)) - mean * mean, 0) + 4.0)


def _correlation(gray: NDArray[np.uint8], mean: Map, deviation: Map, warped: NDArray[np.uint8]) -> Map:
    other = warped.astype(np.float32)
    other_mean, other_deviation = _moments(other)
    product = cv2.blur(other * gray, (WINDOW, WINDOW))
    return (product - mean * other_mean) / (deviation * other_deviation)


def _confirmed(index: int, views: list[View], raw: list[Map]) -> Map:
    """Keep the pixels that other views show at the same depth."""
    view, inverse = views[index], raw[index]
    y, x = np.nonzero(inverse)
    depth = 1 / inverse[y, x].astype(np.float64)
    world = ((np.c_[x, y, np.ones(len(x))] @ np.linalg.inv(view.k).T) * depth[:, None] - view.t) @ view.r
    agreeing = np.zeros(len(x), int)
    for number, (other, theirs) in enumerate(zip(views, raw, strict=True)):
        if number == index:
            continue
        there = (world @ other.r.T + other.t) @ other.k.T
        column, row = np.round(there[:, :2] / there[:, 2:]).astype(int).T
        inside = (there[:, 2] > 0) & (column >= 0) & (row >= 0) & (column < theirs.shape[1]) & (row < theirs.shape[0])
        found = theirs[row.clip(0, theirs.shape[0] - 1), column.clip(0, theirs.shape[1] - 1)]
        agreeing += inside & (np.abs(found * there[:, 2] - 1) < AGREE)
    kept = agreeing >= AGREEING
    out = np.zeros_like(inverse)
    out[y[kept], x[kept]] = inverse[y[kept], x[kept]]
    return out
