"""Patches of frames cut from one pyramid of the image, where kornia's parts build one each.

On a CPU ``extract_patches_from_pyramid`` spends nine tenths of its time on the pyramid and on sampling grids; here the
pyramid is built once per image, only as far as it is needed, and the grids come from two products per patch. On a GPU
it spends its time on starting a thousand small operations, and waits for the GPU at every level; there all patches are
cut from all levels at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.feature import extract_patches_from_pyramid, get_laf_scale
from torch import Tensor

from kornia_lift._kornia import SAMPLES_PIXEL_CENTRES


class PatchPyramid:
    """Cuts patches as ``kornia.feature.extract_patches_from_pyramid`` does, as often as wanted.

    Args:
        img: gray images, floating point, shape (B, 1, H, W); the patches have their dtype.

    Convention:
        That of ``extract_patches_from_pyramid``: the same samples from the same levels, up to rounding. For images in
        half precision, which does not resolve positions, they are computed in float32.

    """

    def __init__(self, img: Tensor) -> None:
        self._dtype = img.dtype
        self._levels = [img.to(torch.promote_types(img.dtype, torch.float32))]
        self._flat: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self._levels[0])

    def holds(self, lafs: Tensor) -> Tensor:
        """Return which frames (B, N, 2, 3) lie in their images with all of their corners, (B, N)."""
        height, width = self._levels[0].shape[-2:]
        reach = lafs[..., :2].abs().sum(-1)
        last = lafs.new_tensor([width, height]) - 0.5
        return ((lafs[..., 2] - reach >= -0.5) & (lafs[..., 2] + reach <= last)).all(-1)

    def cut(self, lafs: Tensor, size: int) -> Tensor:
        """Cut the patches of frames.

        Args:
            lafs: shape (B, N, 2, 3); a frame that is not finite gives a black patch.
            size: side of the patches in pixels.

        Returns:
            Patches of shape (B, N, 1, size, size).

        """
        image = self._levels[0]
        finite = lafs.isfinite().flatten(2).all(2)
        lafs = lafs.to(image.dtype).masked_fill(~finite[..., None, None], 0)
        depth = 1
        while min(image.shape[-2:]) >> depth >= max(size, 2):
            depth += 1
        level = (2 / size * get_laf_scale(lafs)[..., 0, 0]).log2().clamp(0, depth - 1).long()
        if image.device.type == "cpu":
            return self.cut_by_level(lafs, level, finite, size).to(self._dtype)
        return self.cut_at_once(lafs, level, finite, size, depth).to(self._dtype)

    def cut_by_level(self, lafs: Tensor, level: Tensor, finite: Tensor, size: int) -> Tensor:
        """Cut from one level of one image after another.

        Args:
            lafs: frames, shape (B, N, 2, 3).
            level: pyramid level of each frame, shape (B, N).
            finite: which frames are finite, shape (B, N); the patches of others are black.
            size: side of the patches in pixels.

        """
        # complex numbers: the sum of pairs has an inner loop of two
        along_x, along_y = (torch.view_as_complex(along) for along in self._grids(lafs, size))
        image = self._levels[0]
        out = image.new_empty(*lafs.shape[:2], 1, size, size)
        out[~finite] = 0
        for k in level.unique().tolist():
            source = self._level(k)
            for b in range(len(image)):
                mine = ((level[b] == k) & finite[b]).nonzero()[:, 0]
                column, row = along_y[b].index_select(0, mine), along_x[b].index_select(0, mine)
                grid = torch.view_as_real(column[:, :, None] + row[:, None])
                out[b].index_copy_(0, mine, _sample(source[b : b + 1], grid))
        return out

    def cut_at_once(self, lafs: Tensor, level: Tensor, finite: Tensor, size: int, depth: int) -> Tensor:
        """Cut from all levels and images by the same operations, without waiting for a value.

        Args:
            lafs: frames, shape (B, N, 2, 3).
            level: pyramid level of each frame, shape (B, N).
            finite: which frames are finite, shape (B, N); the patches of others are black.
            size: side of the patches in pixels.
            depth: number of levels.

        """
        along_x, along_y = self._grids(lafs, size)
        pixels, table = self._one_behind_the_other(depth)
        begin, height, width = table[level].unbind(-1)  # B, N
        last = torch.stack([width, height], -1)[:, :, None, None] - 1
        at = (along_y[:, :, :, None] + along_x[:, :, None] + 1) * ((last + 1) / 2) - 0.5
        at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
        low = at.detach().floor().long()
        x, y = (at - low).unbind(-1)
        right, down = (low + 1 <= last).long().unbind(-1)
        image = torch.arange(len(lafs), device=lafs.device)[:, None, None, None] * pixels.shape[1]
        first = image + begin[:, :, None, None] + low[..., 1] * width[:, :, None, None] + low[..., 0]
        down = down * width[:, :, None, None]
        corners = [pixels.take(index) for index in (first, first + right, first + down, first + down + right)]
        top, bottom = corners[0].lerp(corners[1], x), corners[2].lerp(corners[3], x)
        return (top.lerp(bottom, y) * finite[:, :, None, None])[:, :, None]

    def _grids(self, lafs: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return what a column and a row of a patch add to its positions, (B, N, size, 2) each.

        Positions count from -1 at the outer edge of the first pixel of a level to 1, as in ``grid_sample``.
        """
        height, width = self._levels[0].shape[-2:]
        unit = 2 / lafs.new_tensor([width, height])
        at = (torch.arange(size, dtype=lafs.dtype, device=lafs.device) * 2 + 1) / size - 1
        along_x = (lafs[..., 0] * unit)[:, :, None] * at[:, None]
        along_y = (lafs[..., 1] * unit)[:, :, None] * at[:, None]
        return along_x, along_y + ((lafs[..., 2] + 0.5) * unit - 1)[:, :, None]

    def _level(self, k: int) -> Tensor:
        while len(self._levels) <= k:
            self._levels.append(halve(self._levels[-1]))
        return self._levels[k]

    def _one_behind_the_other(self, depth: int) -> tuple[Tensor, Tensor]:
        if self._flat is None or len(self._flat[1]) < depth:
            self._flat = one_behind_the_other([self._level(k)[:, 0] for k in range(depth)])
        return self._flat


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    """Read one image (1, 1, H, W) at the positions of patches (N, S, S, 2); shape (N, 1, S, S).

    ``grid_sample`` gives each thread images of its own: a single image is expanded to as many as there are threads, all
    of the same memory.
    """
    count, size = grid.shape[:2]
    threads = min(torch.get_num_threads(), max(count, 1))
    grid = F.pad(grid, (0, 0, 0, 0, 0, 0, 0, -count % threads))
    images = image.expand(threads, -1, -1, -1)
    cut = F.grid_sample(images, grid.view(threads, -1, size, 2), padding_mode="border", align_corners=False)
    return cut.view(-1, 1, size, size)[:count]


def one_behind_the_other(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join maps of several sizes, so that pixels of any of them are read by the same operations.

    Args:
        maps: shape (B, h, w) each.

    Returns:
        Their pixels, shape (B, P), and of each map its first pixel, height and width, shape (maps, 3).

    """
    table, begin = [], 0
    for each in maps:
        table.append([begin, *each.shape[-2:]])
        begin += each.shape[-2] * each.shape[-1]
    pixels = torch.cat([each.flatten(1) for each in maps], 1)
    return pixels, torch.tensor(table, device=pixels.device)


def extract_patches(img: Tensor, lafs: Tensor, size: int) -> Tensor:
    """Same as ``kornia.feature.extract_patches_from_pyramid`` of kornia 0.9, with every supported version of kornia.

    Positions are computed in float32 at least: half precision would round them to whole pixels.

    Args:
        img: gray images, shape (B, 1, H, W).
        lafs: frames, shape (B, N, 2, 3).
        size: side of the patches in pixels.

    Returns:
        Patches of shape (B, N, 1, size, size), differentiable, of the dtype of the images.

    """
    if SAMPLES_PIXEL_CENTRES:
        wide = torch.promote_types(torch.promote_types(img.dtype, lafs.dtype), torch.float32)
        patches: Tensor = extract_patches_from_pyramid(img.to(wide), lafs.to(wide), size)
        return patches.to(img.dtype)
    return PatchPyramid(img).cut(lafs, size)


def halve(x: Tensor) -> Tensor:
    """Same as ``kornia.geometry.transform.pyrdown``, in less than a tenth of its time on a CPU.

    The mean of two neighbours that the filter (1, 4, 6, 4, 1) has blurred is (1, 5, 10, 10, 5, 1): where the sides are
    even, it is applied only at the pixels that remain.
    """
    size = [side // 2 for side in x.shape[-2:]]
    even = all(side % 2 == 0 for side in x.shape[-2:])
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for dim, count in zip((-2, -1), size, strict=True):
        if even:
            taps = (x.narrow(dim, k, 2 * count - 1) for k in range(6))
            a, b, c, d, e, f = (tap[..., ::2, :] if dim == -2 else tap[..., ::2] for tap in taps)
            x = (a + f).add_(b, alpha=5).add_(e, alpha=5).add_(c, alpha=10).add_(d, alpha=10)
        else:
            a, b, c, d, e = (x.narrow(dim, k, x.shape[dim] - 4) for k in range(5))
            x = (a + e).add_(b, alpha=4).add_(d, alpha=4).add_(c, alpha=6)
    if even:
        return x.div_(32**2)
    return F.interpolate(x.div_(16**2), size=size, mode="bilinear", align_corners=False)
