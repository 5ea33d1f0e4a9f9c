"""Pictures of matches: two photographs side by side, lines between them, frames as oriented circles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

RIGHT: Colour = (70, 220, 90)
WRONG: Colour = (235, 60, 50)
_BACKGROUND = 255
_GAP = 8  # pixels between the photographs
_SHIFT = 4  # OpenCV draws at 1 / 2**4 pixel


def draw_matches(
    first: Tensor,
    second: Tensor,
    lafs: tuple[Tensor, Tensor],
    *,
    right: NDArray[np.bool_] | None = None,
    max_width: int = 1600,
    max_height: int = 8000,
    max_lines: int = 150,
    opacity: float = 0.45,
) -> Picture:
    """Draw matched frames.

    Each frame is a circle around the keypoint with its radius towards the orientation. The radius is a third of the LAF
    scale, which is half the side of the described square: the squares themselves would cover each other. That is twice
    the SIFT scale of a detector's own frame, and ``scaling_coef`` times as much of a frame that ``LocalFeature``
    enlarged. Lines and circles share a colour: by position where ``right`` is not given, else green and red.

    Args:
        first: left photograph, values in [0, 1], shape (1, 1 or 3, H, W).
        second: right photograph; may have another size.
        lafs: matched frames in the pixels of the left and of the right photograph, each (M, 2, 3), best first.
        right: which matches are right, shape (M,).
        max_width: the picture is reduced to at most this many pixels.
        max_height: the same; WebP holds 16383, JPEG 65535 pixels.
        max_lines: of more matches, this many are drawn, spread evenly over the list.
        opacity: of the lines, in [0, 1]; the circles are opaque.

    Returns:
        RGB picture of shape (height, width, 3).

    Raises:
        ValueError: if the numbers of frames differ.
        MissingExtraError: if OpenCV is not installed.
    """
    count = len(lafs[0])
    if len(lafs[1]) != count or (right is not None and len(right) != count):
        raise ValueError(f"one frame per image and match expected, got {count}, {len(lafs[1])} frames")
    cv2 = require("cv2", extra="cli")
    widths = [image.shape[-1] for image in (first, second)]
    zoom = min(1.0, (max_width - _GAP) / sum(widths), max_height / max(first.shape[-2], second.shape[-2]))
    photographs = [_photograph(image, zoom, cv2) for image in (first, second)]
    canvas = np.full(
        (max(p.shape[0] for p in photographs), sum(p.shape[1] for p in photographs) + _GAP, 3), _BACKGROUND, np.uint8
    )
    offset = photographs[0].shape[1] + _GAP
    canvas[: photographs[0].shape[0], : photographs[0].shape[1]] = photographs[0]
    canvas[: photographs[1].shape[0], offset:] = photographs[1]

    drawn = _spread(count, max_lines)
    if right is not None:
        drawn = drawn[np.argsort(~right[drawn], kind="stable")][::-1]  # right ones last, on top of the wrong ones
    ends = [_ends(frames[torch.from_numpy(drawn.copy())], zoom) for frames in lafs]
    ends[1][:, [0, 2]] += offset
    colours = _rainbow(ends[0][:, 0], cv2) if right is None else [RIGHT if right[i] else WRONG for i in drawn]
    lines = canvas.copy()
    for a, b, colour in zip(*ends, colours, strict=True):
        _line(lines, a[:2], b[:2], colour, cv2)
    canvas = cv2.addWeighted(lines, opacity, canvas, 1 - opacity, 0)
    for a, b, colour in zip(*ends, colours, strict=True):
        for end in (a, b):
            _oriented_circle(canvas, end, colour, cv2)
    return np.asarray(canvas)


def _photograph(image: Tensor, zoom: float, cv2: Any) -> Picture:
    pixels = (image[0].expand(3, -1, -1).permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    if zoom < 1:
        size = max(1, round(pixels.shape[1] * zoom)), max(1, round(pixels.shape[0] * zoom))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(pixels)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def _ends(lafs: Tensor, zoom: float) -> NDArray[np.float64]:
    """Centre, tip of the orientation (clockwise on screen, as pixels run) for each frame: shape (M, 4)."""
    lafs = lafs[None].double().cpu()
    centre = (get_laf_center(lafs)[0] + 0.5) * zoom - 0.5
    angle = -torch.deg2rad(get_laf_orientation(lafs)[0])  # kornia counts counter-clockwise
    radius = get_laf_scale(lafs)[0, :, 0] / 3 * zoom
    return torch.cat([centre, centre + radius * torch.cat([angle.cos(), angle.sin()], 1)], 1).numpy()


def _rainbow(x: NDArray[np.float64], cv2: Any) -> list[Colour]:
    if len(x) == 0:
        return []
    rank = np.argsort(np.argsort(x)) / max(1, len(x) - 1)
    levels = (20 + rank * 220).astype(np.uint8)[:, None]
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return [(int(r), int(g), int(b)) for r, g, b in colours]


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = (point * (1 << _SHIFT)).round().astype(int)
    return int(x), int(y)


def _line(canvas: Picture, a: NDArray[np.float64], b: NDArray[np.float64], colour: Colour, cv2: Any) -> None:
    cv2.line(canvas, _fixed(a), _fixed(b), colour, 1, cv2.LINE_AA, _SHIFT)


def _oriented_circle(canvas: Picture, end: NDArray[np.float64], colour: Colour, cv2: Any) -> None:
    radius = float(np.hypot(*(end[2:] - end[:2])))
    cv2.circle(canvas, _fixed(end[:2]), round(radius * (1 << _SHIFT)), colour, 1, cv2.LINE_AA, _SHIFT)
    _line(canvas, end[:2], end[2:], colour, cv2)
