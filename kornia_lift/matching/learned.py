"""Putative matches that a trained correspondence network classifies as inliers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_lift.features import Features
from kornia_lift.matching.filtering import CorrespondenceFilter
from kornia_lift.matching.putative import putative_matches


def filter_matches(
    first: Features, second: Features, sizes: tuple[tuple[int, int], tuple[int, int]], keep: CorrespondenceFilter
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Match every keypoint of the first image to its nearest neighbour and keep the inliers that the network finds.

    The cameras are unknown: the focal length is assumed to be the longer side of the image.

    Args:
        first: features of the first image, with float descriptors.
        second: features of the second image.
        sizes: width and height of both images.
        keep: the filter, in eval mode.

    Returns:
        Index pairs of shape (K, 2), best first and one-to-one; the network's weights of shape (K,), 0 to 1; and the
        number of mutual matches, from which they were chosen.

    """
    descriptors = [torch.from_numpy(np.asarray(f.descriptors, dtype=np.float32)) for f in (first, second)]
    putative = putative_matches(*descriptors)
    device = next(keep.parameters()).device
    points = [torch.from_numpy(f.keypoints).float().to(device) for f in (first, second)]
    with torch.inference_mode():
        found = keep(points[0], points[1], putative.pairs.to(device), sizes, putative.side.to(device))
    weights = found.weights.cpu()
    # several keypoints of the first image may share a nearest neighbour: mutual ones are one-to-one
    mutual = putative.side[:, 1] > 0
    chosen = ((weights > 0) & mutual).nonzero()[:, 0]
    order = chosen[weights[chosen].argsort(descending=True, stable=True)]
    return putative.pairs[order].numpy(), weights[order].double().numpy(), int(mutual.sum())
