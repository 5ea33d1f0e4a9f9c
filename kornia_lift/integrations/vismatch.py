"""LIFT with mutual nearest neighbours as a matcher of vismatch (https://github.com/gmberton/vismatch).

Use it as any of its matchers::

    from kornia_lift.integrations.vismatch import LIFTMatcher

    result = LIFTMatcher(device="cpu")("left.jpg", "right.jpg")
    result["num_inliers"], result["inlier_kpts0"]

vismatch 1.4 requires kornia below 0.8.3, which this package supports.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._gray import as_gray
from kornia_lift.feature import LIFTFeature
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.integrations._extract import extract
from kornia_lift.matching import MatchRefiner, match_descriptors

_HINT = "pip install vismatch"

_BaseMatcher = require("vismatch", hint=_HINT).BaseMatcher


class LIFTMatcher(_BaseMatcher):  # type: ignore[misc, valid-type]
    """Matcher of vismatch: LIFT features, mutual nearest neighbours that pass the ratio test.

    Args:
        device: where to compute.
        max_num_keypoints: keypoints per image.
        ratio: nearest over second-nearest descriptor distance at most, in both directions; 1 switches the test off.
        weights: name of a shipped model, or path of a ``.safetensors`` file.
        upright: assign no orientation; ``None``: as the model says.
        affine: give keypoints an affine shape, for surfaces that are seen from the side.
        refine: move the matched positions in the second image to where it shows the keypoints of the first one, see
            :class:`~kornia_lift.matching.refinement.MatchRefiner`.
        kwargs: options of ``BaseMatcher``: ``ransac_iters``, ``ransac_conf``, ``ransac_reproj_thresh``.

    """

    def __init__(
        self,
        device: str = "cpu",
        max_num_keypoints: int = 2048,
        ratio: float = 0.95,
        weights: str | os.PathLike[str] = "lift",
        upright: bool | None = None,
        affine: bool = False,
        refine: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, **kwargs)
        self.ratio = ratio
        self.refiner = MatchRefiner() if refine else None
        self.feature = LIFTFeature(max_num_keypoints, upright, device, pretrained=weights, affine=affine)

    def _forward(self, img0: Tensor, img1: Tensor) -> tuple[Tensor | None, ...]:
        """Match two images (3, H, W); returns what vismatch's base class expects."""
        first, second = (extract(self.feature, image[None])[0] for image in (img0, img1))
        pairs, confidence = match_descriptors(
            first.descriptors.float().cpu(), second.descriptors.float().cpu(), self.ratio
        )
        index = torch.from_numpy(pairs).to(first.xy.device)
        matched = second.xy[index[:, 1]]
        if self.refiner is not None and len(index):
            frames = [
                lafs_from_lift(each.xy[None, k], each.sigma[None, k], each.angle[None, k])
                for each, k in ((first, index[:, 0]), (second, index[:, 1]))
            ]
            views = [as_gray(image[None]) for image in (img0, img1)]
            matched = self.refiner(views[0], views[1], frames[0], frames[1])[0][0, :, :, 2]
        return (
            first.xy[index[:, 0]],
            matched,
            first.xy,
            second.xy,
            first.descriptors,
            second.descriptors,
            torch.from_numpy(confidence),
        )
