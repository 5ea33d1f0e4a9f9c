"""Patches of frames cut from one pyramid of the image, where kornia's parts build one each.

On a CPU ``extract_patches_from_pyramid`` spends nine tenths of its time on the pyramid and on sampling grids; here the
pyramid is built once per image, only as far as it is needed, and the grids come from two products per patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.feature import extract_patches_from_pyramid, get_laf_scale
from torch import Tensor

from kornia_lift._kornia import SAMPLES_PIXEL_CENTRES


class PatchPyramid:
    """Cuts patches as ``kornia.feature.extract_patches_from_pyramid`` does, as often as wanted.

    Args:
        img: gray images, float32 or float64, shape (B, 1, H, W).

    Convention:
        That of ``extract_patches_from_pyramid``: the same samples from the same levels, up to rounding.

    """

    def __init__(self, img: Tensor) -> None:
        self._levels = [img]

    def cut(self, lafs: Tensor, size: int) -> Tensor:
        """Cut the patches of frames.

        Args:
            lafs: shape (B, N, 2, 3); a frame that is not finite gives a black patch.
            size: side of the patches in pixels.

        Returns:
            Patches of shape (B, N, 1, size, size).

        """
        image = self._levels[0]
        height, width = image.shape[-2:]
        finite = lafs.isfinite().flatten(2).all(2)
        lafs = lafs.masked_fill(~finite[..., None, None], 0)
        depth = 1
        while min(height, width) >> depth >= max(size, 2):
            depth += 1
        level = (2 / size * get_laf_scale(lafs)[..., 0, 0]).log2().clamp(0, depth - 1).long()
        # grid_sample counts from -1 at the outer edge of the first pixel to 1, on every level
        unit = 2 / lafs.new_tensor([width, height])
        at = (torch.arange(size, dtype=lafs.dtype, device=lafs.device) * 2 + 1) / size - 1
        along_x = (lafs[..., 0] * unit)[:, :, None] * at[:, None]  # B, N, size, 2
        along_y = (lafs[..., 1] * unit)[:, :, None] * at[:, None]
        along_y += ((lafs[..., 2] + 0.5) * unit - 1)[:, :, None]
        out = image.new_zeros(*lafs.shape[:2], 1, size, size)
        for k in level.unique().tolist():
            source = self._level(k)
            for b in range(len(image)):
                mine = ((level[b] == k) & finite[b]).nonzero()[:, 0]
                grid = along_y[b, mine][:, :, None] + along_x[b, mine][:, None]
                cut = F.grid_sample(
                    source[b : b + 1], grid.view(1, -1, size, 2), padding_mode="border", align_corners=False
                )
                out[b, mine] = cut.view(-1, 1, size, size)
        return out

    def _level(self, k: int) -> Tensor:
        while len(self._levels) <= k:
            self._levels.append(halve(self._levels[-1]))
        return self._levels[k]


def extract_patches(img: Tensor, lafs: Tensor, size: int) -> Tensor:
    """Do what ``kornia.feature.extract_patches_from_pyramid`` of kornia 0.9 does, with every kornia that is allowed.

    Args:
        img: gray images, shape (B, 1, H, W).
        lafs: frames, shape (B, N, 2, 3).
        size: side of the patches in pixels.

    Returns:
        Patches of shape (B, N, 1, size, size), differentiable.

    """
    if SAMPLES_PIXEL_CENTRES:
        patches: Tensor = extract_patches_from_pyramid(img, lafs, size)
        return patches
    dtype = torch.promote_types(img.dtype, torch.float32)  # half precision does not resolve positions
    return PatchPyramid(img.to(dtype)).cut(lafs.to(dtype), size).to(img.dtype)


def halve(x: Tensor) -> Tensor:
    """Do what ``kornia.geometry.transform.pyrdown`` does, in a tenth of its time on a CPU."""
    size = [side // 2 for side in x.shape[-2:]]
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for dim in (-2, -1):
        a, b, c, d, e = (x.narrow(dim, k, x.shape[dim] - 4) for k in range(5))
        x = (a + e).add_(b, alpha=4).add_(d, alpha=4).add_(c, alpha=6)
    return F.interpolate(x.div_(256), size=size, mode="bilinear", align_corners=False)
