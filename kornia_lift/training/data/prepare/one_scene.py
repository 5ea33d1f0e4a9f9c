"""Whether images that are given as single ones show one scene: a few pairs of them are matched."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from kornia_lift.feature import LIFTFeature
from kornia_lift.matching import extract_features, match_pair
from kornia_lift.training.data.images import scale_down, to_float

MODEL = "lift-plus"
IMAGES = 6  # about a second of one core each
_KEYPOINTS, _MAX_SIZE = 512, 512


def overlapping_pairs(images: Sequence[Tensor], seed: int = 0) -> tuple[int, int, int]:
    """Match all pairs of a few images, among them neighbours in the order of the names.

    Of 24 reconstructed scenes, a fifth of the pairs or more overlap in each; of 180 pairs of single images, none
    (experiments/2026-11-28/newcomer/overlap.txt).

    Args:
        images: 8-bit gray images, each (H, W).
        seed: of the choice of the images.

    Returns:
        The number of pairs that overlap by :attr:`~kornia_lift.matching.PairMatch.overlap`, of pairs, and of images.

    """
    rng, count = np.random.default_rng(seed), len(images)
    chosen: set[int] = set()
    for first in rng.permutation(max(0, count - 1)).tolist():
        more = {first, first + 1} - chosen
        if len(chosen) + len(more) <= IMAGES:
            chosen |= more
    feature = LIFTFeature(_KEYPOINTS, pretrained=MODEL).eval()
    with torch.no_grad():
        found = [extract_features(feature, to_float(scale_down(images[n], _MAX_SIZE))) for n in sorted(chosen)]
    pairs = list(combinations(found, 2))
    return sum(match_pair(*pair).overlap for pair in pairs), len(pairs), len(found)
