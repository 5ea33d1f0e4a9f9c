"""Images that show the same: copies, and neighbouring frames of a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 32  # pixels of the copies that are compared
_SAME = 1.0  # gray levels, mean difference
_FLAT = 0.5  # gray levels from pixel to pixel below which a difference says nothing about a motion
#: Shares of the image by which two images are moved: at most, to count as nearly the same, and as they should be.
#: In each of 27 reconstructed scenes, a fifth of the neighbours or more are moved by .016 and more, 218 single images
#: by .02; images that are moved by .0075 of their width give .005 to .008.
_NEAR, _APART = 0.01, 0.05
_MOST = 0.8


def thumbnail(image: Tensor) -> Tensor:
    """Copy of an 8-bit gray image (H, W), float, 32x32."""
    return F.interpolate(image[None, None].float(), (_SIDE, _SIDE), mode="area")[0, 0]


def check_different(thumbnails: Sequence[Tensor], what: str, advice: Callable[[str], str], least: int = 2) -> None:
    """Check that images differ from the next one by more than noise, and by more than frames of a video do.

    Args:
        thumbnails: of the images, in the order of their names.
        what: what they are, for the error.
        advice: what to do, from words that say which images to keep, such as "every 20th image".
        least: number of images that are needed.

    Raises:
        ValueError: if four of five do not.

    """
    pairs = len(thumbnails) - 1
    if pairs < 1:
        return
    stack = torch.stack(list(thumbnails))
    same = int(((stack[1:] - stack[:-1]).abs().mean((1, 2)) < _SAME).sum())
    moved = _moved(stack)
    near = int((moved < _NEAR).sum())
    if same >= _MOST * pairs:
        raise ValueError(
            f"{what}: {same} of {pairs} images are the same as the one before (frames of a video that stands still?); "
            f"{advice('one of each')}"
        )
    if near >= _MOST * pairs:
        motion = float(moved.median())
        step = max(2, math.ceil(_APART / max(motion, _APART / 100)))
        few = pairs // step + 1 < least
        whole = f"; {pairs + 1} images are too few for that: take images over a longer movement" if few else ""
        raise ValueError(
            f"{what}: {near} of {pairs} images are nearly the same as the one before, moved by about "
            f"{100 * motion:.1f} % of the image (neighbouring frames of a video?); "
            f"{advice(f'every {_ordinal(step)} image')}{whole}"
        )


def _moved(stack: Tensor) -> Tensor:
    """Share of the image by which each thumbnail is moved against the one before, shape (N - 1,).

    A small motion changes a pixel by the gradient times the motion. Larger ones come out too small, but above
    :data:`_NEAR`. Infinite where there is hardly any gradient.
    """
    change = stack[1:] - stack[:-1]
    change = (change - change.mean((1, 2), keepdim=True)).abs().mean((1, 2))
    down, right = stack[:, 1:, :-1] - stack[:, :-1, :-1], stack[:, :-1, 1:] - stack[:, :-1, :-1]
    steep = torch.hypot(down, right).mean((1, 2))
    steep = (steep[1:] + steep[:-1]) / 2
    return torch.where(steep > _FLAT, change / steep / _SIDE, torch.inf)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
