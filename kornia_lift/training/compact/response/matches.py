"""Which keypoints of pairs of crops are matched correctly by the networks that describe them at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift.detector.scale_space import LEVEL_SIGMA
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, rotation_matrix
from kornia_lift.geometry.pyramid import halve
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.response.keypoints import ChosenKeypoints
from kornia_lift.training.compact.response.levels import LevelGrid, warp_points

NEAR = 3.0  # pixels of the crop: matches farther away are wrong
HALVINGS = 6


class KeypointMatcher(nn.Module):
    """Describes chosen keypoints and matches them to those of the other crops of the batch.

    Args:
        orientation: gives their angles.
        descriptor: describes them.
        grid: levels of the crops.
        region: side of the described region over the paper's 12 sigma.
        context: side of the region that ``orientation`` sees over that of the described one.

    """

    def __init__(
        self,
        orientation: PolarOrientation,
        descriptor: CompactDescriptor,
        grid: LevelGrid,
        region: float = 2.0,
        context: float = 1.5,
    ) -> None:
        super().__init__()
        self.orientation, self.descriptor = orientation.eval(), descriptor.eval()
        self.grid, self.region, self.context = grid, region, context

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
        """Unit vectors (2 N, K, 128)."""
        count, slots = chosen.valid.shape
        pyramid = [crops]
        while len(pyramid) < HALVINGS and pyramid[-1].shape[-1] >= 8:
            pyramid.append(halve(pyramid[-1]))
        upright = torch.zeros_like(chosen.xy[..., 0])
        size = self.orientation.patch_size
        seen = self._cut(pyramid, chosen, upright, self.region * self.context, size)
        angle = -self.orientation(seen.flatten(0, 1)[:, None]).view(count, slots)
        patches = [
            self._cut(pyramid, chosen, angle, self.region * part, self.descriptor.patch_size)
            for part in self.descriptor.regions
        ]
        described = self.descriptor(torch.stack(patches, 2).flatten(0, 1))
        return F.normalize(described.float(), dim=1).view(count, slots, -1)

    def _cut(
        self, pyramid: Sequence[Tensor], chosen: ChosenKeypoints, angle: Tensor, region: float, size: int
    ) -> Tensor:
        """Patches (2 N, K, size, size) of frames at clockwise angles (2 N, K)."""
        count, slots = chosen.level.shape
        at = (torch.arange(size, device=angle.device, dtype=angle.dtype) * 2 + 1) / size - 1
        y, x = torch.meshgrid(at, at, indexing="ij")
        offset = torch.stack([x, y], -1).view(-1, 2)
        scale = LEVEL_SIGMA * 2 ** (chosen.level / self.grid.per_octave) * LAF_SCALE_PER_SIGMA * region
        rotation = rotation_matrix(angle.flatten()).view(count, slots, 2, 2)
        position = chosen.xy[:, :, None] + scale[..., None, None] * (offset @ rotation.mT)
        grid = (position + 0.5) * (2 / self.grid.size) - 1
        grid = grid.view(count, slots * size, size, 2)
        found = torch.zeros(count, slots, size, size, device=angle.device, dtype=angle.dtype)
        for level in range(self.grid.count):
            mine = chosen.level == level
            factor = LEVEL_SIGMA * 2 ** (level / self.grid.per_octave) * LAF_SCALE_PER_SIGMA * region
            halvings = min(max(math.floor(math.log2(2 / size * factor)), 0), len(pyramid) - 1)
            cut = F.grid_sample(pyramid[halvings], grid, padding_mode="border", align_corners=False)
            found = torch.where(mine[..., None, None], cut.view(count, slots, size, size), found)
        return found


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
        at, _ = warp_points(matrix, xy)
        found.append((at, torch.full_like(at[..., 0], NEAR)))
    return found
