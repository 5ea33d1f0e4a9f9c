"""Views of the same location, cut from the images for every batch: any scale, any support region, as at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Generator, Tensor

from kornia_lift._checks import Device
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, rotation_matrix
from kornia_lift.training.compact.byte_patches import patches_from
from kornia_lift.training.compact.observations import Observations, ViewConfig, connected_images
from kornia_lift.training.data.photometric import augment
from kornia_lift.training.modern.pairs import ViewIndex, WarpConfig


class ViewPairs(ViewIndex):
    """Draws pairs of views and cuts them from the images.

    Args:
        seen: the locations.
        groups: images per batch.
        per_group: pairs per image, see :class:`~kornia_lift.training.modern.pairs.ViewIndex`.
        warp: noise of the frames and photometric augmentation. ``stretch`` is for pairs from one image.
        config: sizes of the support regions.
        size: side of the patches in pixels.
        device: where patches are cut; what is drawn stays on the CPU.

    Raises:
        ValueError: if no image shows two locations.

    """

    def __init__(
        self,
        seen: Observations,
        groups: int,
        per_group: int,
        warp: WarpConfig,
        config: ViewConfig,
        size: int = 32,
        device: Device = "cpu",
    ) -> None:
        super().__init__(seen.track, seen.image, groups, per_group, warp)
        self.seen, self.config, self.size = seen, config, size
        self.per_sigma = LAF_SCALE_PER_SIGMA * config.region
        size_of = torch.tensor([[i.shape[1], i.shape[0]] for i in seen.images])[seen.image]
        # half side of the largest region around the location that lies in the image
        self.room = torch.minimum(seen.xy, size_of - 1 - seen.xy).amin(1)
        self.scene = connected_images(seen.image, seen.track, len(seen.images))
        self._patches = patches_from(seen.images, device)

    def draw(self, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return anchors, positives (the anchor itself where there is no other view) and half sides of their regions.

        All of shape (N,), N at most ``groups * per_group``.

        Raises:
            ValueError: if no location of the drawn images has room for a support region.

        """
        c, seen = self.config, self.seen
        columns: list[tuple[Tensor, ...]] = []
        for anchor in self.draw_anchors(generator, 3 * self.per_group):
            n, positive = len(anchor), self.draw_positives(anchor, generator)
            ratio = seen.zoom[positive] / seen.zoom[anchor]
            # a region of log-uniform size in the smaller view, as large as both images have room for
            room = torch.minimum(self.room[anchor], self.room[positive] / ratio)
            room = torch.minimum(room, c.largest_view / ratio.clamp(min=1)) * ratio.clamp(max=1)
            low, high = math.log(c.min_reach), math.log(c.max_reach)
            reach = torch.exp(low + torch.rand(n, generator=generator) * (high - low))
            # too large ones become smaller where that is possible
            reach = torch.where(
                reach <= room, reach, torch.exp(low + torch.rand(n, generator=generator) * (room.log() - low))
            )
            scale = reach / ratio.clamp(max=1)
            other = scale * ratio
            # detections have scales, each its own, and lie where they are found
            own = (seen.sigma[anchor] > 0) & (seen.sigma[positive] > 0)
            scale = torch.where(own, seen.sigma[anchor] * self.per_sigma, scale)
            other = torch.where(own, seen.sigma[positive] * self.per_sigma, other)
            good = torch.nonzero((room >= c.min_reach) | own)[:, 0][: self.per_group]
            columns.append((anchor[good], positive[good], scale[good], other[good]))
        anchor, positive, reach, other = (torch.cat(column) for column in zip(*columns, strict=True))
        if not len(anchor):
            raise ValueError(
                f"no location has room for a support region of {c.min_reach:g} pixels on either side; use larger "
                "images, or lower views.min_reach"
            )
        return anchor, positive, reach, other

    def ambiguous(self, anchor: Tensor, reach: Tensor, radius: float = 0.25) -> Tensor:
        """Mark pairs of anchors that are not valid negatives.

        Those of the same location, or nearly, in one image; and those of two images of one scene, where nothing is
        known about which locations are the same unless they are of one track.

        Args:
            anchor: indices of the anchors, shape (N,).
            reach: half sides of their regions, shape (N,).
            radius: locations nearer than this share of the larger half side are the same.

        Returns:
            Boolean matrix (N, N), true on the diagonal too.

        """
        seen = self.seen
        distance = torch.cdist(seen.xy[anchor], seen.xy[anchor])
        near = distance < radius * torch.maximum(reach[:, None], reach[None])
        image, track = seen.image[anchor], seen.track[anchor]
        scene, one_image = self.scene[image], image[:, None] == image
        return near & one_image | (track[:, None] == track) | (scene[:, None] == scene) & ~one_image

    def frames(self, index: Tensor, reach: Tensor, angle: Tensor, generator: Generator, stretch: Tensor) -> Tensor:
        """Frames of the regions at clockwise angles from the track's common frame, with noise; LAFs (N, 2, 3)."""
        n, w, seen = len(index), self.warp, self.seen

        def uniform() -> Tensor:
            return torch.rand(n, generator=generator) * 2 - 1

        def normal(count: int) -> Tensor:
            return torch.randn(n, count, generator=generator)

        exact = (seen.sigma[index] == 0).to(reach)  # detections err by themselves
        scale = reach * torch.exp(uniform() * math.log(w.scale) * exact)
        xy = seen.xy[index] + normal(2) * (w.shift * reach * exact)[:, None]
        direction = seen.angle[index] + angle + normal(1)[:, 0] * w.angle
        lafs = laf_from_center_scale_ori(xy[None], scale[None, :, None, None], -direction.rad2deg()[None, :, None])[0]
        axis = rotation_matrix(uniform() * math.pi)
        ratio = stretch.clamp(min=1).sqrt()
        slant = axis @ torch.diag_embed(torch.stack([1 / ratio, torch.ones(n)], 1)) @ axis.mT
        return torch.cat([slant @ lafs[:, :, :2], lafs[:, :, 2:]], 2)

    def cut(self, index: Tensor, lafs: Tensor, size: int | None = None, regions: Sequence[float] = (1.0,)) -> Tensor:
        """Cut the patches of frames from their images.

        Args:
            index: observations, shape (N,).
            lafs: frames, shape (N, 2, 3).
            size: side of the patches in pixels, that of the batch when ``None``.
            regions: sides of the regions, over that of the frame.

        Returns:
            Patches (N, len(regions), size, size) in [0, 1], on the device of the pairs.

        """
        image = self.seen.image[index]
        frames = [torch.cat([lafs[:, :, :2] * region, lafs[:, :, 2:]], 2) for region in regions]
        return torch.cat([self._patches.cut(image, each, size or self.size) for each in frames], 1)

    def augment(self, patch: Tensor, generator: Generator) -> Tensor:
        """Photometric augmentation; each region of a location (N, C, S, S) has its own."""
        return augment(patch.flatten(0, 1)[:, None], self.warp, generator).view_as(patch)


def rotate_frames(lafs: Tensor, angle: Tensor) -> Tensor:
    """Rotate LAFs (N, 2, 3) about their centres, clockwise on screen by angles (N,) in the frame's own coordinates."""
    return torch.cat([lafs[:, :, :2] @ rotation_matrix(angle), lafs[:, :, 2:]], 2)


def wrap_angle(angle: Tensor) -> Tensor:
    """Return the same angles in (-pi, pi]."""
    return torch.atan2(angle.sin(), angle.cos())
