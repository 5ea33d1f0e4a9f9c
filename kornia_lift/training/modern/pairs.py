"""Draw batches of patch pairs from stored tracks: other view, other frame noise, other illumination."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.geometry import DESCRIPTOR_SIZE, rotation_matrix
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits
from kornia_lift.training.modern.tracks import CONTEXT, PatchTracks


@dataclass(frozen=True)
class WarpConfig(Photometric):
    """Noise of the frames, as the detector and the orientation make it; it also inherits the photometric part.

    Args:
        angle: standard deviation of the error of each patch's angle, radians.
        scale: largest error of the scale as a factor; ``CONTEXT`` has room for 1.149 at any rotation.
        shift: standard deviation of the position, in units of half the patch side.
        stretch: largest ratio of the axes of a pair that comes from one image (a slanted second view).

    """

    angle: float = 0.16
    scale: float = 1.149
    shift: float = 0.05
    stretch: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, "scale", "stretch", at_least=1)
        check_limits(self, "angle", "shift", at_least=0)


class ViewIndex:
    """Index over views of locations from which pairs are drawn image by image: a batch holds look-alikes of one image.

    Args:
        track: number of the location of each view, shape (M,).
        image: image of each view, shape (M,).
        groups: images per batch.
        per_group: pairs per image. Images that show fewer locations are left out, unless none shows as many: then
            those that show most give what they have.
        warp: noise of the frames and photometric augmentation. ``stretch`` is for pairs from one image.

    Raises:
        ValueError: if no image shows two locations.

    """

    def __init__(self, track: Tensor, image: Tensor, groups: int, per_group: int, warp: WarpConfig) -> None:
        self.groups, self.warp, self._track = groups, warp, track
        self._by_track = torch.argsort(track, stable=True)
        self.track_count = torch.bincount(track)
        self._track_begin = self.track_count.cumsum(0) - self.track_count
        self._rank = torch.empty_like(self._by_track)  # position of a view inside its track
        self._rank[self._by_track] = torch.arange(len(track)) - self._track_begin[track[self._by_track]]
        count = torch.bincount(image)
        self.per_group = min(per_group, int(count.max()) if len(image) else 0)
        if self.per_group < 2:
            raise ValueError("no image shows two locations, which pairs need; use larger ones, or some with texture")
        self._usable = torch.nonzero(count >= self.per_group)[:, 0]
        self._of_image = torch.argsort(image, stable=True).split(count.tolist())

    @property
    def batch_size(self) -> tuple[int, int]:
        """Images of a batch, and pairs of each, at most."""
        return min(self.groups, len(self._usable)), self.per_group

    def draw_anchors(self, generator: Generator, per_image: int) -> Iterator[Tensor]:
        """Draw the images of a batch, and yield up to ``per_image`` of the views of each, (N,)."""
        chosen = self._usable[torch.randperm(len(self._usable), generator=generator)[: self.groups]]
        for image in chosen.tolist():
            mine = self._of_image[image]
            yield mine[torch.randperm(len(mine), generator=generator)[:per_image]]

    def draw_positives(self, anchor: Tensor, generator: Generator) -> Tensor:
        """Draw for each view (N,) one of the other views of its track, the view itself where there is none."""
        track = self._track[anchor]
        count = self.track_count[track]
        jump = (torch.rand(len(anchor), generator=generator) * (count - 1).clamp(min=1)).long() + 1
        return self._by_track[self._track_begin[track] + (self._rank[anchor] + jump) % count]

    def random_stretch(self, anchor: Tensor, positive: Tensor, generator: Generator) -> Tensor:
        """Draw the slant of pairs from one image; pairs of two real views have their own."""
        drawn = torch.exp(torch.rand(len(anchor), generator=generator) * math.log(self.warp.stretch))
        return torch.where(anchor == positive, drawn, torch.ones(()))


class PatchPairs(ViewIndex):
    """Draws pairs of stored patches.

    Args:
        tracks: the stored patches; kept on their device, batches are cut there.
        groups: images per batch.
        per_group: pairs per image, see :class:`ViewIndex`.
        warp: noise of the frames and photometric augmentation.

    Raises:
        ValueError: if no image shows two locations.

    """

    def __init__(
        self, tracks: PatchTracks, groups: int = 8, per_group: int = 32, warp: WarpConfig | None = None
    ) -> None:
        super().__init__(tracks.track, tracks.image, groups, per_group, warp or WarpConfig())
        self.tracks = tracks

    def draw(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return indices of anchors and of another patch of the same track (itself where there is none), (N,) each."""
        anchor = torch.cat(list(self.draw_anchors(generator, self.per_group)))
        return anchor, self.draw_positives(anchor, generator)

    def ambiguous(self, anchor: Tensor, radius: float = 1.5) -> Tensor:
        """Mark pairs of anchors that are not valid negatives: the same location, or nearly, in one image.

        Args:
            anchor: indices of the anchors, shape (N,).
            radius: locations nearer than this many sigmas (of the larger one) are the same.

        Returns:
            Boolean matrix (N, N), true on the diagonal too.

        """
        frame, image, track = self.tracks.frame[anchor], self.tracks.image[anchor], self.tracks.track[anchor]
        distance = torch.cdist(frame[:, :2], frame[:, :2])
        reach = radius * torch.maximum(frame[:, 2, None], frame[None, :, 2])
        near = (distance < reach) & (image[:, None] == image)
        return near | (track[:, None] == track)

    def cut(self, index: Tensor, angle: Tensor, generator: Generator, stretch: Tensor | None = None) -> Tensor:
        """Cut 64-px patches at the given clockwise angles, with frame noise and augmentation; (N, 1, 64, 64)."""
        n, w = len(index), self.warp

        def uniform() -> Tensor:
            return torch.rand(n, generator=generator) * 2 - 1

        def normal() -> Tensor:
            return torch.randn(n, generator=generator)

        zoom = torch.exp(uniform() * math.log(w.scale)) / CONTEXT
        shift = torch.stack([normal(), normal()], 1) * (w.shift / CONTEXT)
        matrix = rotation_matrix(angle + normal() * w.angle)
        if stretch is not None:
            axis = rotation_matrix(uniform() * math.pi)
            ratio = stretch.clamp(min=1).sqrt()
            matrix = axis @ torch.diag_embed(torch.stack([1 / ratio, torch.ones(n)], 1)) @ axis.mT @ matrix
        affine = torch.cat([matrix * zoom[:, None, None], shift[:, :, None]], 2)
        source = self.tracks.pixels[index, None].float() / 255
        grid = F.affine_grid(affine, [n, 1, DESCRIPTOR_SIZE, DESCRIPTOR_SIZE], align_corners=False)
        patch = F.grid_sample(source, grid, align_corners=False, padding_mode="border")
        return augment(patch, w, generator)
