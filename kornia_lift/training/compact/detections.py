"""Keypoints of the detector as training locations: pairs of detections that the reconstruction says show one location.

At run time the networks see the detector's keypoints, with its errors of position and scale, not the SIFT keypoints of
a reconstruction. Next to an observed point the reconstruction says where a location lies in another image, and its
change of scale and angle; where that image has a detection, on the epipolar line, the two form a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from kornia.feature import get_laf_center, get_laf_scale
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._kornia import laf_is_filled
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, rotation_matrix
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.training.compact.observations import Observations, connected_images, join_observations
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.images import to_float
from kornia_lift.training.data.posed_pairs import fundamental_matrix, line_distances
from kornia_lift.training.limits import check_limits
from kornia_lift.training.watch import Watch

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DetectionConfig:
    """Which detections are paired.

    Args:
        per_image: detections of an image, those of highest score.
        per_pair: largest number of pairs taken from two images.
        variety: images that share many of their points show nearly the same, so fewer pairs are taken from them:
            ``per_pair`` times the share of points that are not common, to this power.
        min_shared: least number of points that both of two images observe; other images are not compared.
        reach: a detection is carried over by the nearest common point, at most this many pixels away.
        distance: largest distance of a detection from where it should be, pixels, at the common point itself.
        slack: by how much that grows with the distance from the common point.
        epipolar: largest distance from both epipolar lines, pixels.
        scale: largest ratio of the scales beyond what the reconstruction says.
        seed: of the choice of pairs.

    """

    per_image: int = 1500
    per_pair: int = 300
    variety: float = 1.5
    min_shared: int = 20
    reach: float = 12.0
    distance: float = 2.0
    slack: float = 0.15
    epipolar: float = 1.5
    scale: float = 1.6
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "per_image", "per_pair", "min_shared", at_least=1)
        check_limits(self, "reach", "distance", "epipolar", above=0)
        check_limits(self, "slack", "variety", "seed", at_least=0)
        check_limits(self, "scale", at_least=1)


@dataclass(frozen=True)
class Detections:
    """Keypoints of one image.

    Args:
        xy: positions in pixels, pixel centres at integers, shape (N, 2).
        sigma: SIFT scales in pixels, shape (N,).

    """

    xy: FloatArray
    sigma: FloatArray

    def __len__(self) -> int:
        return len(self.xy)


@torch.no_grad()
def detect(image: Tensor, detector: nn.Module) -> Detections:
    """Find the keypoints of a gray image.

    Args:
        image: uint8, shape (H, W).
        detector: ``(img, mask) -> (lafs, responses)``, as :class:`~kornia_lift.LIFTDetector`; on any device.

    """
    gray = to_float(image)
    lafs, _ = detector(gray.to(next(detector.parameters(), gray).device), None)
    lafs = lafs[:, laf_is_filled(lafs)[0]].double().cpu()
    sigma = get_laf_scale(lafs)[0, :, 0, 0] / LAF_SCALE_PER_SIGMA
    return Detections(get_laf_center(lafs)[0].numpy(), sigma.numpy())


def find_pairs(
    seen: Observations,
    cameras: Sequence[Camera | None],
    detector: nn.Module,
    config: DetectionConfig,
    watch: Watch | None = None,
) -> Observations:
    """Find the keypoints of the images that have a camera, and pair them; see :func:`pair_detections`."""
    found = [Detections(np.zeros((0, 2)), np.zeros(0)) for _ in cameras]
    known = [number for number, camera in enumerate(cameras) if camera is not None]
    for number in (watch or Watch())(known, "images"):
        found[number] = detect(seen.images[number], detector)
    return pair_detections(seen, cameras, found, config)


def pair_detections(
    seen: Observations, cameras: Sequence[Camera | None], found: Sequence[Detections], config: DetectionConfig
) -> Observations:
    """Pair the detections of images that observe common points.

    Args:
        seen: the observed points; only images with a camera are used.
        cameras: camera of each image.
        found: detections of each image.
        config: which pairs.

    Returns:
        Two observations for each pair, with the scales of the detections.

    """
    rng = np.random.default_rng(config.seed)
    order = torch.argsort(seen.image, stable=True)
    rows_of = [rows.numpy() for rows in order.split(torch.bincount(seen.image, minlength=len(cameras)).tolist())]
    parts: list[Observations] = []
    known = [(n, camera) for n, camera in enumerate(cameras) if camera is not None]
    scene = connected_images(seen.image, seen.track, len(cameras))
    for (i, first), (j, second) in combinations(known, 2):
        if scene[i] != scene[j]:
            continue
        points = [seen.track[rows_of[n]].numpy() for n in (i, j)]
        _, in_first, in_second = np.intersect1d(points[0], points[1], return_indices=True)
        if len(in_first) < config.min_shared:
            continue
        at = rows_of[i][in_first], rows_of[j][in_second]
        a, b, nearest = _carry(seen, at, found[i], found[j], config)
        lines = fundamental_matrix(first, second)
        apart = np.maximum(*line_distances(lines, first.undistort(found[i].xy[a]), second.undistort(found[j].xy[b])))
        kept = np.flatnonzero(apart <= config.epipolar)
        alone = 1 - len(in_first) / min(map(len, points))
        kept = kept[rng.permutation(len(kept))[: max(1, round(config.per_pair * alone**config.variety))]]
        sides = ((i, a[kept], at[0][nearest[kept]]), (j, b[kept], at[1][nearest[kept]]))
        views = [_views(seen, n, found[n], index, rows) for n, index, rows in sides]
        parts.append(join_observations(seen.images, views, same_tracks=True))
    return join_observations(seen.images, parts)


def _carry(
    seen: Observations, at: tuple[Indices, Indices], one: Detections, two: Detections, config: DetectionConfig
) -> tuple[Indices, Indices, Indices]:
    """Carry the detections of one image to another by the common points.

    Args:
        seen: the observed points.
        at: rows of ``seen``: the common points in either image, shape (M,) each.
        one: detections of the first image.
        two: detections of the second image.
        config: what agrees.

    Returns:
        Indices of the paired detections of the first and of the second image, each at most once, and of the common
        point that carried them; (K,) each.

    """
    none = np.zeros(0, np.int64)
    if not len(one) or not len(two):
        return none, none, none
    xy = [seen.xy[rows].double().numpy() for rows in at]
    zoom, angle = ([column[rows].double().numpy() for rows in at] for column in (seen.zoom, seen.angle))
    away = _distances(one.xy, xy[0])
    nearest = away.argmin(1)
    away = away[np.arange(len(one)), nearest]
    ratio, rotation = (zoom[1] / zoom[0])[nearest], (angle[1] - angle[0])[nearest]
    offset = one.xy - xy[0][nearest]
    rotated = (rotation_matrix(torch.from_numpy(rotation)).numpy() @ offset[:, :, None])[:, :, 0]
    moved = xy[1][nearest] + ratio[:, None] * rotated
    error = _distances(moved, two.xy)
    partner = error.argmin(1)
    error = error[np.arange(len(one)), partner]
    scale = np.abs(np.log(two.sigma[partner] / (one.sigma * ratio)))
    good = (away <= config.reach) & (error <= config.distance + config.slack * ratio * away)
    good &= scale <= np.log(config.scale)
    # of several that claim one detection of the second image, the nearest is kept
    claims = np.flatnonzero(good)
    claims = claims[np.argsort(error[claims], kind="stable")]
    claims = claims[np.unique(partner[claims], return_index=True)[1]]
    return claims, partner[claims], nearest[claims]


def _distances(first: FloatArray, second: FloatArray) -> FloatArray:
    return torch.cdist(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def _views(seen: Observations, image: int, found: Detections, index: Indices, rows: Indices) -> Observations:
    """Observations of detections of an image, in the frames of the points in ``rows``, numbered from 0."""
    return Observations(
        seen.images,
        torch.full((len(index),), image),
        torch.arange(len(index)),
        torch.from_numpy(found.xy[index]).float(),
        seen.zoom[rows],
        seen.angle[rows],
        torch.from_numpy(found.sigma[index]).float(),
    )
