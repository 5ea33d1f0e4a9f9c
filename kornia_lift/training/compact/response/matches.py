"""Which keypoints of pairs of crops are matched correctly by the networks that describe them at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.feature import scale_laf
from torch import Tensor, nn

from kornia_lift.detector.scale_space import LEVEL_SIGMA
from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks._fast.pyramid import shared_pyramid
from kornia_lift.training.compact.response.keypoints import NEAR, ChosenKeypoints
from kornia_lift.training.compact.response.levels import LevelGrid
from kornia_lift.training.warped.homographies import warp_points

GROUP = 4  # crops that are described together


class KeypointMatcher(nn.Module):
    """Describes chosen keypoints and matches them to those of the other crops of the batch.

    Args:
        orienter: assigns their angles.
        descriptor: describes them by unit vectors.
        grid: levels of the crops.
        region: side of the described region over the paper's 12 sigma.
        localizer: corrects the frames first, where there is one.

    """

    def __init__(
        self,
        orienter: PatchOrienter,
        descriptor: PatchDescriptor,
        grid: LevelGrid,
        region: float = 2.0,
        localizer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.orienter, self.descriptor = orienter.eval(), descriptor.eval()
        self.grid, self.region = grid, region
        self.localizer = None if localizer is None else localizer.eval()

    @torch.no_grad()
    def forward(
        self, crops: Tensor, chosen: ChosenKeypoints, expected: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Say which keypoints have a partner in the other crop, and which of them are matched to it.

        Args:
            crops: first and then second crops, shape (2 N, 1, S, S).
            chosen: keypoints of all crops.
            expected: for either side, where the other crop shows its keypoints, (N, K, 2), and how far from there a
                partner may be, in pixels, (N, K); not above 0 where that is not known.

        Returns:
            ``repeated`` and ``matched``, booleans (2 N, K).

        """
        described = self._describe(crops, chosen)
        sides = [ChosenKeypoints(*parts) for parts in zip(*(part.chunk(2) for part in chosen), strict=True)]
        repeated, matched = [], []
        for side, (at, within) in enumerate(expected):
            here, there = sides[side], sides[1 - side]
            mine, other = described.chunk(2)[side], described.chunk(2)[1 - side]
            pairs, slots = here.valid.shape
            similar = torch.einsum("nkd,mjd->nkmj", mine, other).masked_fill(~there.valid, -math.inf).flatten(2)
            best = similar.argmax(2)  # among the keypoints of all pairs
            apart = torch.cdist(at, there.xy).masked_fill(~there.valid[:, None], math.inf)
            own = torch.arange(pairs, device=best.device)[:, None]
            of_pair = torch.div(best, slots, rounding_mode="floor") == own
            distance = apart.gather(2, (best % slots)[..., None])[..., 0]
            repeated.append(here.valid & (apart.amin(2) < within))
            matched.append(here.valid & of_pair & (distance < within))
        return torch.cat(repeated), torch.cat(matched)

    def _describe(self, crops: Tensor, chosen: ChosenKeypoints) -> Tensor:
        """Unit vectors (2 N, K, D); zeros behind the last keypoint of a crop."""
        slots = chosen.valid.shape[1]
        used = (chosen.valid * torch.arange(1, slots + 1, device=crops.device)).amax(1)
        lafs = lafs_from_lift(chosen.xy, LEVEL_SIGMA * 2.0 ** (chosen.level / self.grid.per_octave))
        order = used.argsort(stable=True)  # most slots are empty: crops with as many keypoints go together
        parts = []
        for group in order.split(GROUP):
            count = max(int(used[group].max()), 1)
            mine = lafs[group, :count]
            if self.localizer is not None:
                mine = self.localizer(mine, crops[group])
            pyramid = shared_pyramid(crops[group], mine)
            described = self.descriptor(pyramid, scale_laf(self.orienter(mine, pyramid), self.region))
            parts.append(F.pad(described, (0, 0, 0, slots - count)))
        return torch.cat(parts)[order.argsort()]


def mismatch_maps(grid: LevelGrid, flat_index: Tensor, wrong: Tensor) -> list[Tensor]:
    """Maps of all levels that are 0 around keypoints that are matched wrongly, else 1; (2 N, 1, side, side).

    Args:
        grid: the levels.
        flat_index: pixel of each keypoint in the levels, one behind the other, shape (2 N, K).
        wrong: booleans (2 N, K).

    """
    total = sum(side * side for side in grid.sides)
    marked = wrong.new_zeros(len(wrong), total, dtype=torch.float32).scatter_add(1, flat_index, wrong.float())
    maps = []
    for part, side in zip(marked.split([side * side for side in grid.sides], 1), grid.sides, strict=True):
        maps.append(1 - F.max_pool2d(part.view(-1, 1, side, side).clamp(max=1), 3, 1, 1))
    return maps


def expected_by_homography(chosen: ChosenKeypoints, to_second: Tensor, to_first: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Where the other crops show keypoints by homographies (N, 3, 3); see :meth:`KeypointMatcher.forward`."""
    found = []
    for xy, matrix in zip(chosen.xy.detach().chunk(2), (to_second, to_first), strict=True):
        at = warp_points(matrix, xy)
        found.append((at, torch.full_like(at[..., 0], NEAR)))
    return found
