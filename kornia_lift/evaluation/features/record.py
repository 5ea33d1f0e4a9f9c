"""The features of one image, as evaluation sees them: where they came from does not matter any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale, laf_is_filled
from numpy.typing import NDArray
from torch import Tensor

#: Half-width of a described patch over the keypoint's sigma, for SIFT and LIFT and kornia's ``mr_size``.
SUPPORT_IN_SIGMA = 6.0


@dataclass(frozen=True)
class Features:
    """Keypoints and descriptors of one image.

    Args:
        keypoints: (x, y) in pixels, pixel centres at integers, shape (N, 2).
        descriptors: float (N, D), compared by L2 distance, or uint8 (N, bytes) of packed bits, compared by
            Hamming distance.
        scores: responses, shape (N,), larger is better; None if the feature has none.
        scales: sigma in pixels as SIFT counts it (the described patch reaches 6 sigma from the keypoint), shape
            (N,); None if there is no scale.
        angles: kornia's sense (counter-clockwise on screen), degrees, shape (N,); None if there is none.
        image_size: width and height of the image they were found in; None if not known.

    Raises:
        ValueError: if the shapes do not fit each other.
    """

    keypoints: NDArray[np.float64]
    descriptors: NDArray[Any]
    scores: NDArray[np.float64] | None = None
    scales: NDArray[np.float64] | None = None
    angles: NDArray[np.float64] | None = None
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints must have shape (N, 2); got {self.keypoints.shape}.")
        if self.descriptors.ndim != 2 or len(self.descriptors) != len(self):
            raise ValueError(
                f"descriptors must have shape (N, D) with N = {len(self)} keypoints; got {self.descriptors.shape}. "
                "Descriptors stored channels-first (D, N) need a transpose."
            )
        for name in ("scores", "scales", "angles"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self),):
                raise ValueError(f"{name} must have shape ({len(self)},); got {values.shape}.")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def is_binary(self) -> bool:
        """Whether the descriptors are packed bits, compared by Hamming distance."""
        return bool(self.descriptors.dtype == np.uint8)

    def fault(self) -> str | None:
        """What makes these features unfit for evaluation, or None."""
        bad_points = int((~np.isfinite(self.keypoints).all(axis=1)).sum())
        if bad_points:
            return f"{bad_points} of {len(self)} keypoints are not finite"
        if not self.is_binary:
            bad = int((~np.isfinite(self.descriptors).all(axis=1)).sum())
            if bad:
                return f"{bad} of {len(self)} descriptors are not finite"
        return None

    def top(self, count: int) -> Features:
        """The ``count`` features of highest score, best first; the first ``count`` if there are no scores."""
        order = (np.arange(len(self)) if self.scores is None else np.argsort(-self.scores, kind="stable"))[:count]

        def pick(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[order]

        return Features(
            self.keypoints[order],
            self.descriptors[order],
            pick(self.scores),
            pick(self.scales),
            pick(self.angles),
            self.image_size,
        )


def from_lafs(
    lafs: Tensor,
    responses: Tensor,
    descriptors: Tensor,
    image_size: tuple[int, int],
    *,
    support: float = SUPPORT_IN_SIGMA,
) -> Features:
    """Features of one image from what a kornia ``LocalFeature`` returns; empty slots are dropped.

    Args:
        lafs: local affine frames, shape (1, N, 2, 3).
        responses: shape (1, N).
        descriptors: shape (1, N, D).
        image_size: width and height of the image.
        support: LAF scale over sigma.

    Raises:
        ValueError: if the batch is not 1 or the shapes do not fit each other.
    """
    if lafs.ndim != 4 or lafs.shape[0] != 1 or tuple(lafs.shape[2:]) != (2, 3):
        raise ValueError(f"Frames of one image must have shape (1, N, 2, 3); got {tuple(lafs.shape)}.")
    count = lafs.shape[1]
    if responses.shape[:2] != (1, count) or descriptors.shape[:2] != (1, count):
        raise ValueError(
            f"With {count} frames, responses must be (1, {count}) and descriptors (1, {count}, D); "
            f"got {tuple(responses.shape)} and {tuple(descriptors.shape)}."
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
