"""One pyramid from which all patches are cut, where kornia's own extraction is not needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kornia_lift._memory import recompute_frames
from kornia_lift.geometry.pyramid import PatchPyramid, extract_patches
from kornia_lift.networks._fast.plan import is_inference, is_plain


def shared_pyramid(img: Tensor | PatchPyramid, lafs: Tensor) -> Tensor | PatchPyramid:
    """Return the pyramid of gray images, from which all their patches are cut, or ``img`` as it is.

    Images stay images where kornia's own extraction is needed: for gradients, in graphs, and on a CPU for other dtypes
    than float32.

    Args:
        img: images (B, C, H, W), or their pyramid.
        lafs: frames, shape (B, N, 2, 3).

    """
    if not isinstance(img, Tensor) or img.shape[1] != 1 or not lafs.numel():
        return img
    suits = is_plain(img, lafs) if img.device.type == "cpu" else is_inference(img, lafs)
    return PatchPyramid(img) if suits else img


def of_patches(
    network: Callable[[Tensor], Tensor],
    size: int,
    img: Tensor | PatchPyramid,
    lafs: Tensor,
    chunk: int,
    gradient_chunk: int,
) -> Tensor:
    """Return what a network gives for the patches of frames.

    Args:
        network: patches (M, 1, size, size) -> (M, D).
        size: side of the patches in pixels.
        img: gray images, shape (B, 1, H, W), or their pyramid.
        lafs: frames, shape (B, N, 2, 3).
        chunk: patches that exist at once.
        gradient_chunk: the same while gradients are recorded.

    Returns:
        Shape (B, N, D).

    """

    def run(patches: Tensor) -> Tensor:
        return network(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])

    def extract(image: Tensor, part: Tensor) -> Tensor:
        return run(extract_patches(image, part, size))

    source = shared_pyramid(img, lafs)
    if isinstance(source, Tensor):
        return recompute_frames(extract, source, lafs, gradient_chunk)
    parts = lafs.split(max(1, chunk // max(1, len(lafs))), dim=1)
    return torch.cat([run(source.cut(part, size)) for part in parts], 1)
