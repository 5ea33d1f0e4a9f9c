"""From the features of two images, or from the images, to verified matches."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._checks import Device, check_device
from kornia_lift._gray import as_seen
from kornia_lift.feature.extract import extract_features, shrink
from kornia_lift.features import Features
from kornia_lift.matching.clock import StageClock
from kornia_lift.matching.descriptors import match_descriptors
from kornia_lift.matching.filtering import CorrespondenceFilter
from kornia_lift.matching.learned import filter_matches
from kornia_lift.matching.overlap import FEW_KEYPOINTS, MAX_LOG_FALSE_ALARMS, log_false_alarms
from kornia_lift.matching.refinement import refined_positions
from kornia_lift.matching.verification import Geometry, verify


@dataclass(frozen=True, repr=False)
class PairMatch:
    """Matches between the features of two images.

    Attributes:
        first: features of the first image.
        second: features of the second image.
        pairs: indices into the features of the first and of the second image, shape (M, 2), best first.
        confidence: one minus the ratio of nearest to second-nearest distance (the worse of both directions), or
            one minus half the squared distance without ratio test, or the weight that a learned filter gives; shape
            (M,).
        verified: whether the match is an inlier of the estimated geometry, shape (M,).
        model: the fundamental matrix or homography from the first image to the second, shape (3, 3), or ``None``
            where none was found.
        log_false_alarms: see :func:`~kornia_lift.matching.overlap.log_false_alarms`.
        refined: where the second image shows the first keypoint of each match, (x, y), shape (M, 2); ``None`` where
            matches were not refined, or the features have no scales.
    """

    first: Features
    second: Features
    pairs: NDArray[np.int64]
    confidence: NDArray[np.float64]
    verified: NDArray[np.bool_]
    model: NDArray[np.float64] | None
    log_false_alarms: float
    refined: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.refined is not None and self.refined.shape != self.pairs.shape:
            raise ValueError(
                f"PairMatch expects one refined position for each match, got {len(self.refined)} for {len(self.pairs)}"
            )

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matched positions (x, y) in the first and in the second image, each of shape (M, 2); refined if they are."""
        second = self.second.keypoints[self.pairs[:, 1]] if self.refined is None else self.refined
        return self.first.keypoints[self.pairs[:, 0]], second

    @property
    def lafs(self) -> tuple[Tensor, Tensor]:
        """Matched frames of the first and of the second image, at :attr:`points`, each of shape (M, 2, 3)."""
        pairs = torch.from_numpy(self.pairs)
        first, second = self.first.lafs[pairs[:, 0]], self.second.lafs[pairs[:, 1]]
        centres = torch.from_numpy(self.points[1]).to(second)
        return first, torch.cat([second[:, :, :2], centres[:, :, None]], 2)

    @property
    def overlap(self) -> bool:
        """Whether the images probably show the same scene: more verified matches than chance gives."""
        return self.log_false_alarms < MAX_LOG_FALSE_ALARMS

    @property
    def undecided(self) -> bool:
        """Whether :attr:`overlap` is ``False`` only because an image has too few keypoints to tell."""
        return not self.overlap and min(len(self.first), len(self.second)) < FEW_KEYPOINTS

    def __repr__(self) -> str:
        return (
            f"PairMatch({len(self.pairs)} matches, {int(self.verified.sum())} verified, of {len(self.first)} and "
            f"{len(self.second)} keypoints, overlap={self.overlap})"
        )


def match_tensors(
    feature: nn.Module,
    first: Tensor,
    second: Tensor,
    *,
    device: Device | None = None,
    dtype: torch.dtype = torch.float32,
    max_size: int = 1600,
    ratio: float = 0.95,
    geometry: Geometry = "fundamental",
    threshold: float = 2.0,
    keep: CorrespondenceFilter | None = None,
    refine: bool = True,
    clock: StageClock | None = None,
) -> PairMatch:
    """Extract the features of two images, match them and verify the matches.

    Args:
        feature: kornia local feature, on ``device``.
        first: values in [0, 1], shape (1, 1 or 3, H, W).
        second: the other image; may have another size.
        device: where features are extracted; by default where the images are.
        dtype: dtype of the extraction.
        max_size: larger images are reduced to this longer side, 0 for never; keypoints are in pixels of the originals.
        ratio: see :func:`match_descriptors`.
        geometry: see :func:`verify`.
        threshold: see :func:`verify`.
        keep: see :func:`match_pair`.
        refine: refine the positions of the matches in the second image.
        clock: adds the seconds of the parts of the feature, of matching, refinement and verification.

    Raises:
        ValueError: if this machine has no such device.
    """
    target = None if device is None else check_device(device, "match_tensors")
    features = []
    for image in (first, second):
        reduced = shrink(as_seen(image, feature), max_size).to(target or image.device, dtype)
        with nullcontext() if clock is None else clock.stages_of(feature):  # threads may share the feature
            features.append(extract_features(feature, reduced, (image.shape[-1], image.shape[-2])))
    images = [image.to(target or image.device) for image in (first, second)] if refine else None
    return match_pair(
        features[0],
        features[1],
        ratio=ratio,
        geometry=geometry,
        threshold=threshold,
        keep=keep,
        images=None if images is None else (images[0], images[1]),
        clock=clock,
    )


def match_pair(
    first: Features,
    second: Features,
    *,
    ratio: float = 0.95,
    geometry: Geometry = "fundamental",
    threshold: float = 2.0,
    keep: CorrespondenceFilter | None = None,
    images: tuple[Tensor, Tensor] | None = None,
    clock: StageClock | None = None,
) -> PairMatch:
    """Match the features of two images and verify the matches.

    Args:
        first: features of the first image, with float descriptors.
        second: features of the second image.
        ratio: see :func:`match_descriptors`.
        geometry: see :func:`verify`.
        threshold: see :func:`verify`.
        keep: a learned filter that chooses among all nearest neighbours, instead of the ratio test.
        images: the two images, in which the positions of the matches are refined before they are verified, see
            :func:`~kornia_lift.matching.refinement.refined_positions`. ``None``: positions are those of the features.
        clock: adds the seconds of the stages ``matching``, ``refinement`` and ``verification``.

    Raises:
        ValueError: if the descriptors are packed bits.
    """
    if first.is_binary or second.is_binary:
        raise ValueError("match_pair expects float descriptors, got packed bits (uint8)")
    clock = clock or StageClock()
    sizes = first.image_size or _extent(first), second.image_size or _extent(second)
    with clock.stage("matching"):
        if keep is not None:
            pairs, confidence, tried = filter_matches(first, second, sizes, keep)
        else:
            pairs, confidence = match_descriptors(
                torch.from_numpy(first.descriptors), torch.from_numpy(second.descriptors), ratio
            )
            tried = len(pairs)
    refined = None
    if images is not None:
        with clock.stage("refinement"):
            refined = refined_positions(images, (first, second), pairs)
    with clock.stage("verification"):
        here = first.keypoints[pairs[:, 0]].astype(np.float32)
        there = (second.keypoints[pairs[:, 1]] if refined is None else refined).astype(np.float32)
        verified, model = verify(here, there, geometry, threshold)
    # a filter chooses what fits some geometry: chance had all of the matches to choose from
    chance = log_false_alarms(tried, int(verified.sum()), geometry, threshold, list(sizes))
    return PairMatch(first, second, pairs, confidence, verified, model, chance, refined)


def _extent(features: Features) -> tuple[int, int]:
    """Return the width and height that hold all keypoints, for features of an image of unknown size."""
    width, height = np.ceil(features.keypoints.max(axis=0, initial=0)).astype(int) + 1
    return int(width), int(height)
