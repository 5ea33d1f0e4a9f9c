"""The measures in the overlap form of Mikolajczyk et al. (IJCV 2005), which the tables of the LIFT paper use.

A keypoint is a circle of radius sigma. Keypoints of B are mapped to A, where they become ellipses; two keypoints
correspond if their regions overlap. The same is done with A mapped to B, and the two are averaged. Assignments are
one-to-one, as in the released orientation benchmark of the LIFT authors; unlike there, both sets are first cropped to
the common view region, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_lift.evaluation.measures.matching import as_vectors
from kornia_lift.evaluation.measures.one_to_one import greedy_one_to_one
from kornia_lift.evaluation.measures.precision import trapezoid_precision
from kornia_lift.features import Features
from kornia_lift.scenes.scene import VISIBLE, FloatArray, HasLocalAffine, Pair, Transferred

#: Radius to which a reference region is brought in the normalised convention, pixels.
NORMALISED_RADIUS = 30.0
#: Enlargement of the regions in the descriptor convention.
ENLARGEMENT = 3.0
#: Regions farther apart than this many radii of the reference do not overlap, by definition.
REACH = 4.0
_NODES = 64
_NO_OVERLAP = 100.0


@dataclass(frozen=True)
class OverlapOptions:
    """One form of the overlap measures.

    Args:
        max_error: overlap error below which regions correspond, percent: 40 (repeatability in Mikolajczyk et al.) or
            50 (descriptors in the orientation benchmark).
        normalised: True: both regions are scaled so that the reference has a radius of 30 px, while their distance
            stays (Mikolajczyk's ``common_part=1``, used for detectors). False: both are enlarged three times
            (``common_part=0``, used for descriptors).
    """

    max_error: float = 40.0
    normalised: bool = False

    @property
    def label(self) -> str:
        """Suffix of the measures' names."""
        return f"overlap{self.max_error:g}{'n' if self.normalised else ''}"

    @property
    def measures(self) -> tuple[str, str, str]:
        """Names of the three measures in this form."""
        return tuple(f"{m}_{self.label}" for m in ("repeatability", "matching_score", "nn_map"))  # type: ignore[return-value]


def overlap_error(
    radius: FloatArray, covariance: FloatArray, offset: FloatArray, *, normalised: bool = False
) -> FloatArray:
    """Overlap error between circles and ellipses: 100 (1 - intersection / union).

    The areas are integrated; the benchmark's own code rasterises them with 50 steps across and differs by at most 1.2.

    Args:
        radius: of the reference circles, pixels, shape (N,).
        covariance: C of the ellipses {x: (x - offset)^T C^-1 (x - offset) <= 1}, shape (N, 2, 2).
        offset: centre of the ellipse minus centre of the circle, shape (N, 2).
        normalised: see :class:`OverlapOptions`.

    Returns:
        Percent, 0 (equal) to 100 (apart), shape (N,).
    """
    far = np.hypot(*offset.T) >= REACH * radius
    factor = np.full_like(radius, ENLARGEMENT) if not normalised else NORMALISED_RADIUS / radius
    # In units of the enlarged circle: the circle has radius 1, and the ellipse shrinks less than its distance.
    shape = covariance / np.square(radius)[:, None, None]
    dx, dy = (offset / (radius * factor)[:, None]).T
    det = shape[:, 0, 0] * shape[:, 1, 1] - shape[:, 0, 1] * shape[:, 1, 0]
    a, b = shape[:, 0, 0], shape[:, 0, 1]
    reach = np.sqrt(a)
    low, high = np.maximum(-1.0, dx - reach), np.minimum(1.0, dx + reach)
    # Nodes that crowd towards both ends, where the outlines are vertical.
    angle = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    middle, half = (low + high) / 2, np.maximum(high - low, 0.0) / 2
    x = middle[:, None] + half[:, None] * np.cos(angle)
    weight = half[:, None] * np.sin(angle) * np.pi / _NODES
    circle = np.sqrt(np.maximum(1.0 - x * x, 0.0))
    u = x - dx[:, None]
    centre = dy[:, None] + (b / a)[:, None] * u
    ellipse = np.sqrt(np.maximum(det / a, 0.0))[:, None] * np.sqrt(np.maximum(1.0 - u * u / a[:, None], 0.0))
    height = np.minimum(circle, centre + ellipse) - np.maximum(-circle, centre - ellipse)
    intersection = (np.maximum(height, 0.0) * weight).sum(axis=1)
    union = np.pi + np.pi * np.sqrt(np.maximum(det, 0.0)) - intersection
    error = 100.0 * (1.0 - intersection / union)
    return np.asarray(np.where(far, _NO_OVERLAP, np.clip(error, 0.0, _NO_OVERLAP)))


def score_overlap(
    scene: HasLocalAffine,
    pair: Pair,
    features: tuple[Features, Features],
    moved: tuple[Transferred, Transferred],
    forms: Sequence[OverlapOptions],
) -> dict[str, float]:
    """Repeatability, matching score and NN mAP of one pair in the given overlap forms, averaged over both directions.

    * repeatability: one-to-one corresponding regions / the smaller number of keypoints in the common view region.
    * matching score: those that the greedy one-to-one assignment by descriptor distance finds / the same number.
    * NN mAP: area under precision over recall of that assignment ranked by distance; recall counts against the
      corresponding regions.

    Args:
        scene: gives the local affine maps between A and B.
        pair: the images.
        features: of A and of B, with scales.
        moved: keypoints of A carried to B, and of B carried to A.
        forms: the forms to measure in.

    Raises:
        ValueError: if the features have no scales.
    """
    first, second = features
    if first.scales is None or second.scales is None:
        raise ValueError("the overlap form needs the scale of each keypoint")
    in_first, in_second = (np.flatnonzero(m.status == VISIBLE) for m in moved)
    smaller = min(len(in_first), len(in_second))
    if smaller == 0:
        return {name: 0.0 for form in forms for name in form.measures}
    distance = _descriptor_distance(first, second, in_first, in_second)
    there = _one_way(
        (first.keypoints[in_first], first.scales[in_first]),
        (moved[1].points[in_second], second.scales[in_second]),
        scene.local_affine(pair.j, pair.i, second.keypoints[in_second]),
        distance,
        forms,
    )
    back = _one_way(
        (second.keypoints[in_second], second.scales[in_second]),
        (moved[0].points[in_first], first.scales[in_first]),
        scene.local_affine(pair.i, pair.j, first.keypoints[in_first]),
        distance.T,
        forms,
    )
    return {name: (there[name] + back[name]) / 2 for name in there}


def _one_way(
    reference: tuple[FloatArray, FloatArray],
    mapped: tuple[FloatArray, FloatArray],
    affine: FloatArray,
    distance: FloatArray,
    forms: Sequence[OverlapOptions],
) -> dict[str, float]:
    """The measures with the regions of one image as circles and those of the other mapped to it.

    Args:
        reference: centres (N, 2) and sigmas (N,) of the circles.
        mapped: mapped centres (M, 2) and sigmas (M,) in their own image.
        affine: local maps of the others, shape (M, 2, 2).
        distance: between descriptors, shape (N, M).
        forms: the forms to measure in.
    """
    points, radius = reference
    others, sigma = mapped
    smaller = min(len(points), len(others))
    covariance = affine @ affine.transpose(0, 2, 1) * np.square(sigma)[:, None, None]
    assigned = greedy_one_to_one(distance)
    order = np.argsort(distance[assigned[:, 0], assigned[:, 1]], kind="stable")
    rows, columns = assigned[order].T
    values: dict[str, float] = {}
    for normalised in sorted({form.normalised for form in forms}):
        error = _error_matrix(points, radius, others, covariance, normalised)
        for form in (f for f in forms if f.normalised == normalised):
            regions = greedy_one_to_one(error, form.max_error)
            corresponding = np.zeros(error.shape, dtype=bool)
            corresponding[regions[:, 0], regions[:, 1]] = True
            hit = corresponding[rows, columns]
            scores = len(regions) / smaller, float(hit.sum()) / smaller, trapezoid_precision(hit, len(regions))
            values |= dict(zip(form.measures, scores, strict=True))
    return values


def _error_matrix(
    points: FloatArray, radius: FloatArray, others: FloatArray, covariance: FloatArray, normalised: bool
) -> FloatArray:
    offset = others[None] - points[:, None]
    rows, columns = np.nonzero(np.square(offset).sum(axis=2) < np.square(REACH * radius)[:, None])
    matrix = np.full((len(points), len(others)), _NO_OVERLAP)
    for start in range(0, len(rows), 50_000):
        r, c = rows[start : start + 50_000], columns[start : start + 50_000]
        matrix[r, c] = overlap_error(radius[r], covariance[c], offset[r, c], normalised=normalised)
    return matrix


def _descriptor_distance(
    first: Features, second: Features, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> FloatArray:
    a, b = (as_vectors(f.descriptors[k], f.is_binary) for f, k in ((first, rows), (second, columns)))
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))
