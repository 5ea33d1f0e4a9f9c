"""Putative matches: for every keypoint of one image the nearest descriptor of the other, and how good it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lift._kornia import ShapeError

CHUNK = 1024  # rows of the distance matrix held at once


class PutativeMatches(NamedTuple):
    """Nearest neighbours of one image in another, one way, without any test.

    Attributes:
        pairs: indices into the keypoints of the first and of the second image, in the order of the first; shape (N, 2).
        side: distance divided by the second-nearest one, 0 to 1, and 1 where the match is mutual, else 0: the columns
            of :data:`~kornia_lift.networks.correspondence.SIDE_COLUMNS`, shape (N, 2).
    """

    pairs: Tensor
    side: Tensor


def putative_matches(first: Tensor, second: Tensor) -> PutativeMatches:
    """Match descriptors by L2 distance.

    Args:
        first: descriptors of the first image, shape (N, D).
        second: those of the second image, shape (M, D).

    Returns:
        One match for each descriptor of ``first``; none where either image has none. With a single descriptor in
        ``second`` there is no second-nearest one, and the ratio is 1.

    Raises:
        kornia.core.exceptions.ShapeError: if a shape differs.

    """
    if first.dim() != 2 or second.dim() != 2 or first.shape[1] != second.shape[1]:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ShapeError(f"putative_matches expects descriptors (N, D) and (M, D), got {shapes}")
    if not len(first) or not len(second):
        return PutativeMatches(
            torch.zeros(0, 2, dtype=torch.long, device=first.device), torch.zeros(0, 2, device=first.device)
        )
    nearest, ratios = [], []
    best = torch.full((len(second),), torch.inf, device=first.device)
    back = torch.zeros(len(second), dtype=torch.long, device=first.device)
    for start in range(0, len(first), CHUNK):
        distance = torch.cdist(first[start : start + CHUNK].float(), second.float())
        two = distance.topk(min(2, len(second)), 1, largest=False)
        nearest.append(two.indices[:, 0])
        # two neighbours at distance 0 are equally good
        ratios.append(torch.where(two.values[:, -1] > 0, two.values[:, 0] / two.values[:, -1], 1.0))
        closest = distance.min(0)
        closer = closest.values < best
        best = torch.where(closer, closest.values, best)
        back = torch.where(closer, closest.indices + start, back)
    index = torch.arange(len(first), device=first.device)
    partner = torch.cat(nearest)
    mutual = (back[partner] == index).float()
    return PutativeMatches(torch.stack([index, partner], 1), torch.stack([torch.cat(ratios), mutual], 1))
