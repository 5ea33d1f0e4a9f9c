"""One pyramid from which all patches are cut, where kornia's own extraction is not needed."""

from __future__ import annotations

from torch import Tensor

from kornia_lift.geometry.pyramid import PatchPyramid
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
