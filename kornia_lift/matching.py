"""From two images to verified matches: extract, match, verify, each timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from kornia.feature import laf_is_filled, match_mnn, match_smnn
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift.features import Features, from_lafs
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.overlap import MAX_LOG_FALSE_ALARMS, log_false_alarms

Geometry = Literal["fundamental", "homography"]


@dataclass(frozen=True)
class PairMatch:
    """Matches between the features of two images.

    Attributes:
        first: features of the first image.
        second: features of the second image.
        pairs: indices into the features of the first and of the second image, shape (M, 2), best first.
        confidence: one minus the ratio of nearest to second-nearest distance (the worse of both directions), or
            one minus half the squared distance without ratio test; shape (M,).
        verified: whether the match is an inlier of the estimated geometry, shape (M,).
        model: the fundamental matrix or homography from the first image to the second, shape (3, 3), or ``None``
            where none was found.
        log_false_alarms: see :func:`~kornia_lift.overlap.log_false_alarms`.
    """

    first: Features
    second: Features
    pairs: NDArray[np.int64]
    confidence: NDArray[np.float64]
    verified: NDArray[np.bool_]
    model: NDArray[np.float64] | None
    log_false_alarms: float

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matched keypoints (x, y) of the first and of the second image, each of shape (M, 2)."""
        return self.first.keypoints[self.pairs[:, 0]], self.second.keypoints[self.pairs[:, 1]]

    @property
    def overlap(self) -> bool:
        """Whether the images probably show the same scene: more verified matches than chance gives."""
        return self.log_false_alarms < MAX_LOG_FALSE_ALARMS


@dataclass
class StageClock:
    """Seconds per stage, summed over all uses. On a GPU each stage ends with a synchronisation."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        _synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            _synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def stages_of(self, feature: nn.Module) -> Iterator[None]:
        """Time every direct part of a feature (detector, descriptor, ...) whose ``forward`` the block calls."""
        started: dict[str, float] = {}
        handles = []

        def before(name: str) -> None:
            _synchronise()
            started[name] = time.perf_counter()

        def after(name: str) -> None:
            _synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started[name]

        for name, part in feature.named_children():
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: before(name)))
            handles.append(part.register_forward_hook(lambda *_, name=name: after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def shrink(image: Tensor, max_size: int) -> Tensor:
    """Reduce an image (1, C, H, W) so that its longer side has at most ``max_size`` pixels; 0 never reduces."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    if max_size <= 0 or longest <= max_size:
        return image
    size = [max(1, round(side * max_size / longest)) for side in (height, width)]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


@torch.inference_mode()
def extract_features(feature: nn.Module, image: Tensor, image_size: tuple[int, int] | None = None) -> Features:
    """Extract a kornia local feature from one image.

    Args:
        feature: module ``(image, mask) -> (lafs, responses, descriptors)``; empty slots are dropped.
        image: float, shape (1, 1 or 3, H, W), values in [0, 1], on the device and in the dtype to compute with.
        image_size: width and height of the original where ``image`` is a reduced copy of it; keypoints and scales are
            then returned in pixels of the original.

    Convention:
        Pixel centres at integers: a point x of the reduced copy is at ``(x + 0.5) * W / w - 0.5``.
    """
    height, width = image.shape[-2:]
    size = image_size or (width, height)
    lafs, responses, descriptors = feature(rgb_to_grayscale(image) if image.shape[1] == 3 else image)
    ratio = lafs.new_tensor([[size[0] / width], [size[1] / height]], dtype=torch.float32)
    frames = lafs.float() * ratio  # rows are x and y
    frames[..., 2] += (0.5 * ratio - 0.5)[:, 0] * laf_is_filled(lafs)[..., None]  # empty slots stay empty
    return replace(
        from_lafs(
            frames,
            responses.float(),
            F.normalize(descriptors.float(), dim=-1),
            size,
            support=LAF_SCALE_PER_SIGMA * float(getattr(feature, "scaling_coef", 1.0)),
        ),
        uncertainty=max(size) / max(width, height),
    )


def match_tensors(
    feature: nn.Module,
    first: Tensor,
    second: Tensor,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    max_size: int = 1600,
    ratio: float = 0.95,
    geometry: Geometry = "fundamental",
    threshold: float = 2.0,
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
        clock: adds the seconds of the parts of the feature, of matching and of verification.
    """
    clock = clock or StageClock()
    features = []
    for image in (first, second):
        gray = rgb_to_grayscale(image) if image.shape[1] == 3 else image
        reduced = shrink(gray, max_size).to(device or image.device, dtype)
        with clock.stages_of(feature):
            features.append(extract_features(feature, reduced, (image.shape[-1], image.shape[-2])))
    return match_pair(features[0], features[1], ratio=ratio, geometry=geometry, threshold=threshold, clock=clock)


def match_descriptors(first: Tensor, second: Tensor, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mutual nearest neighbours, best first.

    Args:
        first: unit vectors, shape (N, D).
        second: unit vectors, shape (M, D).
        ratio: keep a match if nearest / second-nearest distance is at most this, in both directions; 1 switches the
            test off.

    Returns:
        Index pairs of shape (K, 2) and confidences of shape (K,), see :class:`PairMatch`.
    """
    if len(first) == 0 or len(second) == 0:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    if ratio < 1:
        worth, pairs = match_smnn(first, second, ratio)
        confidence = 1 - worth[:, 0]
    else:
        worth, pairs = match_mnn(first, second)
        confidence = 1 - worth[:, 0].square() / 2
    order = confidence.argsort(descending=True, stable=True)
    return pairs[order].numpy(), confidence[order].double().numpy()


def verify(
    first: NDArray[np.float32], second: NDArray[np.float32], geometry: Geometry, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Estimate the geometry between matched points with OpenCV's USAC_MAGSAC and say which matches agree with it.

    Args:
        first: positions (x, y) in the first image, shape (M, 2).
        second: positions of the matches in the second image, shape (M, 2).
        geometry: ``"fundamental"`` for any static scene, ``"homography"`` for planes and pure rotations.
        threshold: largest error of a match that agrees, in pixels (epipolar or reprojection distance).

    Returns:
        Booleans of shape (M,), and the 3x3 matrix or ``None`` if there are too few matches to estimate one.
    """
    cv2 = require("cv2", extra="cli")
    # As many as the minimal model plus one that can disagree: fewer verify nothing.
    needed, estimate = {
        "fundamental": (8, cv2.findFundamentalMat),
        "homography": (5, cv2.findHomography),
    }[geometry]
    nothing = np.zeros(len(first), dtype=bool)
    if len(first) < needed:
        return nothing, None
    model, agree = estimate(
        first, second, method=cv2.USAC_MAGSAC, ransacReprojThreshold=threshold, confidence=0.9999, maxIters=20000
    )
    if model is None or model.shape != (3, 3):
        return nothing, None
    return agree[:, 0].astype(bool), model


def match_pair(
    first: Features,
    second: Features,
    *,
    ratio: float = 0.95,
    geometry: Geometry = "fundamental",
    threshold: float = 2.0,
    clock: StageClock | None = None,
) -> PairMatch:
    """Match the features of two images and verify the matches.

    Args:
        first: features of the first image, with float descriptors.
        second: features of the second image.
        ratio: see :func:`match_descriptors`.
        geometry: see :func:`verify`.
        threshold: see :func:`verify`.
        clock: adds the seconds of the stages ``matching`` and ``verification``.

    Raises:
        ValueError: if the descriptors are packed bits.
    """
    if first.is_binary or second.is_binary:
        raise ValueError("match_pair expects float descriptors, got packed bits (uint8)")
    clock = clock or StageClock()
    with clock.stage("matching"):
        pairs, confidence = match_descriptors(
            torch.from_numpy(first.descriptors), torch.from_numpy(second.descriptors), ratio
        )
    with clock.stage("verification"):
        here = first.keypoints[pairs[:, 0]].astype(np.float32)
        there = second.keypoints[pairs[:, 1]].astype(np.float32)
        verified, model = verify(here, there, geometry, threshold)
    sizes = [f.image_size or _extent(f) for f in (first, second)]
    chance = log_false_alarms(len(pairs), int(verified.sum()), geometry, threshold, sizes)
    return PairMatch(first, second, pairs, confidence, verified, model, chance)


def _extent(features: Features) -> tuple[int, int]:
    """Width and height that hold all keypoints, for features of an image of unknown size."""
    width, height = np.ceil(features.keypoints.max(axis=0, initial=0)).astype(int) + 1
    return int(width), int(height)
