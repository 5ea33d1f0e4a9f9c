"""The pyramid from which patches are cut: one for all of them where nothing else is asked for."""

from __future__ import annotations

from torch import Tensor

from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks._fast.plan import is_plain


def shared_pyramid(img: Tensor | PatchPyramid, lafs: Tensor) -> Tensor | PatchPyramid:
    """Return the pyramid from which all patches of gray images are cut, or what it was given.

    Images stay images where kornia's own extraction is needed: for gradients, on other devices and dtypes, in graphs.

    Args:
        img: images (B, C, H, W), or their pyramid.
        lafs: frames, shape (B, N, 2, 3).

    """
    if isinstance(img, Tensor) and img.shape[1] == 1 and lafs.numel() and is_plain(img, lafs):
        return PatchPyramid(img)
    return img
