"""Pixels that show no part of the scene: black padding around a rotated or rectified image, and masked pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kornia_lift.detector.extrema import max_filter
from kornia_lift.detector.sampling import LevelMaps

BLACK = 0.5 / 255  # 0 in 8 bits
LEAST_PADDING = 0.01  # share of the image: less lies near its border, where there are no keypoints anyway
LEAST_CONTENT = 0.4  # share of the image: a 2.6:1 panorama rotated by 45 degrees; less is an object on black
GAPS = 0.03  # share of the pixels between the ends of rows: corners stick out where edges are bent
BENT = 0.02  # share of the larger side: how far an edge may bend inwards, as after lens rectification


def find_padding(img: Tensor) -> Tensor | None:
    """Find the black regions between the border of the image and content that does not fill it.

    A pixel is padding when all pixels from it to the border, along its row or its column, are black: that reaches
    everything outside convex content. What remains has to be convex and to cover at least two fifths of the image,
    and at most all but a hundredth; otherwise the black belongs to the content: a night sky, say, has a skyline.

    Args:
        img: grayscale images, shape (B, 1, H, W), values in [0, 1].

    Returns:
        Booleans (B, H, W), or, unless a graph is being built, ``None`` if no image has padding.

    """
    content = img.detach()[:, 0] > BLACK
    # a graph cannot choose: it always searches
    if not torch.compiler.is_compiling() and (img.numel() == 0 or not _reaches_inside(content)):
        return None
    outside = _before_content(content) | _before_content(content.mT).mT
    padding = outside & _is_content(~outside)[:, None, None]
    return padding if torch.compiler.is_compiling() or bool(padding.any()) else None


def cover_max(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (..., H, W) to ``size`` (rows, columns): the largest of the pixels that each new pixel covers.

    Same as ``F.adaptive_max_pool2d``, which ONNX does not have.
    """
    for dim, count in zip((-2, -1), size, strict=True):
        length = x.shape[dim]
        at = torch.arange(count, device=x.device)
        first, last = at * length // count, ((at + 1) * length + count - 1) // count - 1
        widest = max(((i + 1) * length + count - 1) // count - i * length // count for i in range(count))
        out = x.index_select(dim, first)
        for k in range(1, widest):
            out = torch.maximum(out, x.index_select(dim, torch.minimum(first + k, last)))
        x = out
    return x


def shrink_padding(padding: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize padding (B, H, W) to a level: its pixels (B, rows, columns) are padding where they cover some."""
    return cover_max(padding.float(), size) > 0


def sees_padding(padding: Tensor, margin: int) -> Tensor:
    """Mark the pixels (B, H, W) whose window of ``margin`` pixels to each side holds padding (B, H, W)."""
    return max_filter(padding.float(), margin) > 0


def mask_maps(mask: Tensor, sizes: Sequence[tuple[int, int]], like: Tensor) -> LevelMaps:
    """Return the weights of the pixels of levels of ``sizes``: the smallest mask value that each covers.

    A thin excluded region cannot fall between two pixels then.

    Args:
        mask: shape (1|B, 1, H, W); boolean or integer masks keep what is not 0, floating-point ones are weights.
        sizes: rows and columns of the levels.
        like: a tensor of the dtype of the weights.

    """
    weights = mask.clamp(max=1).to(like.dtype) if mask.is_floating_point() else mask.ne(0).to(like.dtype)
    return LevelMaps([-cover_max(-weights[:, 0], size) for size in sizes])


def read_mask(weights: LevelMaps, level: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Return the weights (M,) of keypoints at x, y (M, 2) of their levels: 0 excludes.

    A keypoint takes the smallest of the pixels around its refined position.
    """
    rows, cols = weights.sizes(level)
    x, y = position[:, 0], position[:, 1]
    corners = [
        weights.read(
            level,
            image,
            torch.minimum(row.long().clamp(min=0), rows - 1),
            torch.minimum(col.long().clamp(min=0), cols - 1),
        )
        for row in (y.floor(), y.ceil())
        for col in (x.floor(), x.ceil())
    ]
    return torch.stack(corners).amin(0)


def weighted(value: Tensor, weight: Tensor) -> Tensor:
    """Lower scores of either sign by weights from 0 to 1; a weight of 0 leaves them as they are."""
    weight = torch.where(weight > 0, weight, torch.ones_like(weight)).to(value)
    return torch.where(value >= 0, value * weight, value / weight)


def _ends(content: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last column of content in every row; in a row without, the last comes before the first.

    Shape:
        - Input: (..., H, W), boolean
        - Output: two of (..., H)

    """
    bits, width = content.to(torch.uint8), content.shape[-1]
    first, last = bits.argmax(-1), width - 1 - bits.flip(-1).argmax(-1)  # argmax takes the first of equals
    empty = ~content.any(-1)
    return first.masked_fill(empty, width), last.masked_fill(empty, -1)


def _reaches_inside(content: Tensor) -> bool:
    """Return whether enough black pixels may be connected to the border: few images have any, and few lines are read.

    The runs of black pixels that begin at a side cover all that can be padding.
    """
    sides = [content[:, 0], content[:, -1], content[:, :, 0], content[:, :, -1]]
    if bool(torch.cat(sides, 1).all()):
        return False  # most images: a GPU is waited for once
    black = torch.zeros(len(content), dtype=torch.long, device=content.device)
    for lines in (content, content.mT):
        for side in (0, -1):
            image, line = (~lines[..., side]).nonzero(as_tuple=True)
            if len(image):
                first, last = _ends(lines[image, line])
                black = black.index_add(0, image, first if side == 0 else lines.shape[-1] - 1 - last)
    return bool((black >= LEAST_PADDING * content[0].numel() - 1).any())


def _before_content(content: Tensor) -> Tensor:
    first, last = _ends(content)
    column = torch.arange(content.shape[-1], device=content.device)
    return (column < first[..., None]) | (column > last[..., None])


def _is_content(content: Tensor) -> Tensor:
    """Return whether what is left of images (B, H, W) can be their content: large, whole and convex; shape (B,)."""
    share = content.float().mean((1, 2))
    first, last = _ends(content)
    filled = last >= first
    height = content.shape[1]
    bits, row = filled.to(torch.uint8), torch.arange(height, device=content.device)
    top, bottom = bits.argmax(1, keepdim=True), height - 1 - bits.flip(1).argmax(1, keepdim=True)
    between = (row >= top) & (row <= bottom)
    gaps = (last - first + 1).clamp(min=0).sum(1) * (1 - GAPS) > content.sum((1, 2))
    good = (share >= LEAST_CONTENT) & (share <= 1 - LEAST_PADDING) & ~gaps & ~(between & ~filled).any(1)
    slack = BENT * max(content.shape[1:]) + 1
    for part in (2, 4, 8, 16):
        step = (bottom - top + 1) // part
        inner = (step > 0) & (row >= top + step) & (row <= bottom - step)
        # in a convex shape the middle of two points of its edge lies inside
        before, after = (row - step).clamp(min=0), (row + step).clamp(max=height - 1)
        for end, inwards in ((first.float(), 1.0), (last.float(), -1.0)):
            middle = (end.gather(1, before) + end.gather(1, after)) / 2
            good &= ~(inner & (inwards * (end - middle) > slack)).any(1)
    return good
