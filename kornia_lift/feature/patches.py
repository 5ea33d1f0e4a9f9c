"""The stages that orient and describe frames, on patches cut from one pyramid.

Where a gradient is needed, kornia cuts the patches, in chunks whose activations are computed again in the backward
pass.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import SupportsIndex

import torch
import torch.nn.functional as F
from kornia.core.check import KORNIA_CHECK_LAF
from kornia.feature import LAFDescriptor, LAFOrienter, get_laf_orientation, scale_laf, set_laf_orientation
from torch import Tensor

from kornia_lift._gray import as_gray
from kornia_lift._memory import recompute_frames
from kornia_lift.geometry.pyramid import PatchPyramid, extract_patches
from kornia_lift.networks._fast.pyramid import shared_pyramid
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation, peak_angles

CHUNK = 512  # patches that exist at once on a CPU, whose caches hold what is made of them
GPU_CHUNK = 2048  # on other devices, which would be idle with fewer: 170 MB
GRADIENT_CHUNK = 128  # the same while gradients are recorded: 2.2 MB of activations for each


class PatchOrienter(LAFOrienter):
    """kornia's ``LAFOrienter`` for networks with a ``patch_size``; also takes a :class:`PatchPyramid`.

    Args:
        angle_detector: the network.
        context: side of the region that the network sees, relative to that of the frame.
        angles: largest number of angles of a keypoint that :meth:`candidates` returns.

    Raises:
        TypeError: if ``angles`` is not a whole number.
        ValueError: if ``context`` or ``angles`` is not positive, or several angles are asked of a network that
            estimates one.

    Shape:
        - Input: LAFs (B, N, 2, 3); images (B, 1, H, W)
        - Output: LAFs (B, N, 2, 3)

    """

    def __init__(
        self, angle_detector: LIFTOrientation | PolarOrientation, context: float = 1.0, angles: int = 1
    ) -> None:
        super().__init__(angle_detector.patch_size, angle_detector=angle_detector)
        if not 0 < context < math.inf:
            raise ValueError(f"context expects a factor above 0, got {context!r}")
        if isinstance(angles, bool) or not isinstance(angles, SupportsIndex):
            raise TypeError(f"angles expects a whole number, got {angles!r}")
        angles = operator.index(angles)
        if angles < 1:
            raise ValueError(f"angles expects a number of at least 1, got {angles}")
        if angles > 1 and not isinstance(angle_detector, PolarOrientation):
            raise ValueError(
                f"{type(angle_detector).__name__} estimates one angle for each patch, got angles={angles!r}; several "
                "need a PolarOrientation"
            )
        self.context = float(context)
        self.angles = angles

    def forward(self, laf: Tensor, img: Tensor | PatchPyramid) -> Tensor:
        seen = laf if self.context == 1 else scale_laf(laf, self.context)
        img = shared_pyramid(img, laf)
        if isinstance(img, Tensor):
            oriented = recompute_frames(self._oriented, img, seen, GRADIENT_CHUNK)
            return oriented if self.context == 1 else scale_laf(oriented, 1 / self.context)
        angles = [
            self.angle_detector(img.cut(part, self.patch_size).flatten(0, 1)).view(part.shape[:2])
            for part in _chunks(seen)
        ]
        return _rotate(laf, torch.cat(angles, 1))

    def _oriented(self, img: Tensor, laf: Tensor) -> Tensor:
        patches = extract_patches(img, laf, self.patch_size).flatten(0, 1)
        return _rotate(laf, self.angle_detector(patches).view(laf.shape[:2]))

    def candidates(self, laf: Tensor, img: Tensor | PatchPyramid) -> tuple[list[Tensor], Tensor]:
        """Return the frames at several angles, and the probability of each angle.

        Args:
            laf: frames, shape (B, N, 2, 3).
            img: images, shape (B, 1, H, W), or their pyramid.

        Returns:
            A list of ``angles`` tensors of LAFs (B, N, 2, 3), the first of which is what a call returns, and weights
            (B, N, angles) that sum to 1; a weight is 0 where a keypoint has no further angle.

        """
        img = shared_pyramid(img, laf)
        seen = scale_laf(laf, self.context)
        if isinstance(img, Tensor):
            distribution = recompute_frames(self._distribution, img, seen, GRADIENT_CHUNK)
        else:
            parts = _chunks(seen)
            distribution = torch.cat([self._distribution(img, part) for part in parts], 1)
        angles, weights = peak_angles(distribution.flatten(0, 1), self.angles)
        # the bins count clockwise, kornia's angles counter-clockwise
        frames = [_rotate(laf, -angle.view(laf.shape[:2])) for angle in angles.unbind(1)]
        return frames, weights.view(*laf.shape[:2], self.angles)

    def _distribution(self, img: Tensor | PatchPyramid, laf: Tensor) -> Tensor:
        assert isinstance(self.angle_detector, PolarOrientation)
        if isinstance(img, Tensor):
            patches = extract_patches(img, laf, self.patch_size)
        else:
            patches = img.cut(laf, self.patch_size)
        return self.angle_detector.distribution(patches.flatten(0, 1)).view(*laf.shape[:2], -1)


def _chunks(lafs: Tensor) -> Sequence[Tensor]:
    """Divide frames (B, N, 2, 3) along their second axis."""
    return lafs.split(max(1, (CHUNK if lafs.device.type == "cpu" else GPU_CHUNK) // len(lafs)), dim=1)


def _rotate(laf: Tensor, angle: Tensor) -> Tensor:
    """Add angles (B, N), radians, counter-clockwise on screen, to those of frames (B, N, 2, 3)."""
    before = get_laf_orientation(laf)
    return set_laf_orientation(laf, angle.rad2deg().view_as(before) + before)


class PatchDescriptor(LAFDescriptor):
    """kornia's ``LAFDescriptor`` for networks with a ``patch_size``; also takes a :class:`PatchPyramid`.

    Args:
        descriptor: the network.
        sizes: sides of the support regions, relative to that of the frame. The descriptors of several are averaged
            (domain-size pooling, Dong and Soatto, CVPR 2015): they agree better where scales are wrong, and the time
            grows with their number.

    Raises:
        ValueError: if there are no sizes, or one is not positive.

    Shape:
        - Input: images (B, 1 or 3, H, W); LAFs (B, N, 2, 3)
        - Output: descriptors (B, N, 128)

    """

    def __init__(self, descriptor: LIFTDescriptor | CompactDescriptor, sizes: Sequence[float] = (1.0,)) -> None:
        super().__init__(descriptor, patch_size=descriptor.patch_size)
        self.sizes = tuple(float(size) for size in sizes)
        if not self.sizes or not all(0 < size < math.inf for size in self.sizes):
            raise ValueError(f"sizes expects one or more factors above 0, got {sizes!r}")

    def forward(self, img: Tensor | PatchPyramid, lafs: Tensor) -> Tensor:
        img = shared_pyramid(img, lafs)
        total = torch.stack([self._describe(img, scale_laf(lafs, size)) for size in self.sizes]).mean(0)
        return F.normalize(total, dim=-1) if self.descriptor.normalize and len(self.sizes) > 1 else total

    def average(self, img: Tensor | PatchPyramid, frames: Sequence[Tensor], weights: Tensor) -> Tensor:
        """Describe keypoints by the mean over several frames of each.

        Where an angle is ambiguous, two images may choose different ones; the means stay similar. Frames of weight 0
        are not described.

        Args:
            img: images, shape (B, 1, H, W), or their pyramid.
            frames: K tensors of LAFs (B, N, 2, 3).
            weights: shape (B, N, K).

        Returns:
            Unit vectors, shape (B, N, 128).

        """
        total = self(img, frames[0]) * weights[..., :1]
        if len(frames) > 1:
            # in one call, since a GPU takes as long for a few patches as for many
            others, shares = torch.cat(list(frames[1:]), 1), weights[..., 1:].mT.flatten(1)
            if torch.compiler.is_compiling():  # a graph has the same shapes for all images
                described = self(img, others) * shares[..., None]
            else:
                used = shares > 0
                first = used.int().argsort(dim=1, descending=True, stable=True)[:, : int(used.sum(1).amax())]
                described = total.new_zeros(*shares.shape, total.shape[-1])
                if first.numel():  # the same number of each image: that of the image with most
                    lafs = others.gather(1, first[..., None, None].expand(-1, -1, 2, 3))
                    part = self(img, lafs) * shares.gather(1, first)[..., None]
                    described = described.scatter(1, first[..., None].expand_as(part), part)
            for each in described.chunk(len(frames) - 1, 1):
                total = total + each
        return F.normalize(total, dim=-1)

    def _describe(self, img: Tensor | PatchPyramid, lafs: Tensor) -> Tensor:
        if isinstance(img, Tensor):
            KORNIA_CHECK_LAF(lafs)
            return recompute_frames(self._describe_image, as_gray(img), lafs, GRADIENT_CHUNK)
        parts = [self._describe_patches(part, partial(img.cut, size=self.patch_size)) for part in _chunks(lafs)]
        return torch.cat(parts, 1)

    def _describe_image(self, img: Tensor, lafs: Tensor) -> Tensor:
        return self._describe_patches(lafs, partial(extract_patches, img, size=self.patch_size))

    def _describe_patches(self, lafs: Tensor, cut: Callable[[Tensor], Tensor]) -> Tensor:
        """Describe frames by the patches that ``cut`` returns for them, one for each region that the network sees."""
        regions = self.descriptor.regions if isinstance(self.descriptor, CompactDescriptor) else (1.0,)
        patches = [cut(lafs if region == 1 else scale_laf(lafs, region)) for region in regions]
        descriptors: Tensor = self.descriptor(torch.cat(patches, 2).flatten(0, 1))
        return descriptors.view(*lafs.shape[:2], descriptors.shape[1])
