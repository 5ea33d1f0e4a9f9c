"""The features of one image: the one record that extraction, matching, evaluation, files and bridges share.

Convention:
    Keypoints are (x, y) in pixels of the image as it was given, pixel centres at integers. Scales are SIFT's sigma in
    pixels. Angles are kornia's: degrees, counter-clockwise on screen (y down), 0 along +x. Programs differ here: hloc's
    ``oris`` and OpenCV's ``angle`` run clockwise, COLMAP puts the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale, laf_from_center_scale_ori
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._kornia import laf_is_filled
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA


@dataclass(frozen=True, repr=False)
class Features:
    """Keypoints and descriptors of one image, on the CPU.

    Attributes:
        keypoints: (x, y) in pixels, pixel centres at integers, shape (N, 2).
        descriptors: float (N, D), compared by L2 distance, or uint8 (N, bytes) of packed bits, compared by
            Hamming distance.
        scores: responses, shape (N,), larger is better; ``None`` if the feature has none.
        scales: sigma in pixels as SIFT counts it, shape (N,); ``None`` if the feature has none. A LAF of the detector
            has the scale :data:`~kornia_lift.geometry.LAF_SCALE_PER_SIGMA` times sigma.
        angles: degrees, counter-clockwise on screen, shape (N,); ``None`` if the feature has none.
        image_size: width and height of the image in pixels; ``None`` if not known.
        uncertainty: pixels of the image per pixel of the copy in which the keypoints were detected: 1 at full
            resolution, 2 if the image was reduced to half. hloc weights keypoints by it.

    Raises:
        ValueError: if the shapes do not agree.
    """

    keypoints: NDArray[np.float64]
    descriptors: NDArray[Any]
    scores: NDArray[np.float64] | None = None
    scales: NDArray[np.float64] | None = None
    angles: NDArray[np.float64] | None = None
    image_size: tuple[int, int] | None = None
    uncertainty: float = 1.0

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints must have shape (N, 2); got {self.keypoints.shape}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != len(self):
            raise ValueError(
                f"descriptors must have shape (N, D) with N = {len(self)} keypoints; got {self.descriptors.shape}. "
                "Descriptors stored channels-first (D, N) need a transpose"
            )
        for name in ("scores", "scales", "angles"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self),):
                raise ValueError(f"{name} must have shape ({len(self)},); got {values.shape}")

    def __repr__(self) -> str:
        size = "unknown size" if self.image_size is None else "{}x{} pixels".format(*self.image_size)
        kind = f"{self.descriptors.shape[1]} {self.descriptors.dtype}"
        return f"Features({len(self)} keypoints, descriptors of {kind}, image of {size})"

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def is_binary(self) -> bool:
        """Whether the descriptors are packed bits, compared by Hamming distance."""
        return bool(self.descriptors.dtype == np.uint8)

    @property
    def lafs(self) -> Tensor:
        """Local affine frames of the detector, float32, shape (N, 2, 3); upright if there are no angles.

        Raises:
            ValueError: if the features have no scales.
        """
        if self.scales is None:
            raise ValueError("these features have no scales, so they have no local affine frames")
        angles = np.zeros(len(self)) if self.angles is None else self.angles
        return laf_from_center_scale_ori(
            torch.from_numpy(self.keypoints.astype(np.float32))[None],
            torch.from_numpy((LAF_SCALE_PER_SIGMA * self.scales).astype(np.float32))[None, :, None, None],
            torch.from_numpy(angles.astype(np.float32))[None, :, None],
        )[0]

    def problem(self) -> str | None:
        """What makes these features unfit for matching and evaluation, or ``None``."""
        bad_points = int((~np.isfinite(self.keypoints).all(axis=1)).sum())
        if bad_points:
            return f"{bad_points} of {len(self)} keypoints are not finite"
        if not self.is_binary:
            bad = int((~np.isfinite(self.descriptors).all(axis=1)).sum())
            if bad:
                return f"{bad} of {len(self)} descriptors are not finite"
        return None

    def select(self, index: NDArray[Any] | slice) -> Features:
        """The features at these indices, in this order."""

        def pick(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[index]

        return replace(
            self,
            keypoints=self.keypoints[index],
            descriptors=self.descriptors[index],
            scores=pick(self.scores),
            scales=pick(self.scales),
            angles=pick(self.angles),
        )

    def top(self, count: int) -> Features:
        """The ``count`` features of highest score, best first; the first ``count`` if there are no scores."""
        return self.select(slice(count) if self.scores is None else np.argsort(-self.scores, kind="stable")[:count])


def from_lafs(
    lafs: Tensor,
    responses: Tensor,
    descriptors: Tensor,
    image_size: tuple[int, int],
    *,
    support: float = LAF_SCALE_PER_SIGMA,
) -> Features:
    """Build the features of one image from the output of a kornia ``LocalFeature``; empty slots are dropped.

    Args:
        lafs: local affine frames, shape (1, N, 2, 3).
        responses: shape (1, N).
        descriptors: shape (1, N, D).
        image_size: width and height of the image.
        support: LAF scale over sigma; multiply the default by ``scaling_coef`` of a ``LocalFeature``, which returns
            enlarged frames.

    Raises:
        ValueError: if the batch is not 1 or the shapes do not agree.
    """
    if lafs.ndim != 4 or lafs.shape[0] != 1 or tuple(lafs.shape[2:]) != (2, 3):
        raise ValueError(f"frames of one image must have shape (1, N, 2, 3); got {tuple(lafs.shape)}")
    count = lafs.shape[1]
    if responses.shape[:2] != (1, count) or descriptors.shape[:2] != (1, count):
        raise ValueError(
            f"with {count} frames, responses must be (1, {count}) and descriptors (1, {count}, D); "
            f"got {tuple(responses.shape)} and {tuple(descriptors.shape)}"
        )
    keep = laf_is_filled(lafs)[0]
    lafs = lafs.detach()[:, keep]
    return Features(
        keypoints=_numpy(get_laf_center(lafs)[0]),
        descriptors=descriptors.detach()[0, keep].float().cpu().numpy(),
        scores=_numpy(responses.detach()[0, keep].reshape(-1)),
        scales=_numpy(get_laf_scale(lafs).reshape(-1)) / support,
        angles=_numpy(get_laf_orientation(lafs).reshape(-1)),
        image_size=image_size,
    )


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().cpu().numpy()
    return array
