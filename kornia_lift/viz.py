"""Pictures of keypoints and of matches: images side by side, lines between them, frames as oriented circles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._checks import check_image
from kornia_lift._extras import require
from kornia_lift._gray import to_bytes
from kornia_lift._kornia import ShapeError, laf_is_filled

if TYPE_CHECKING:
    from kornia_lift.features import Features
    from kornia_lift.matching import PairMatch

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

CORRECT: Colour = (70, 220, 90)
WRONG: Colour = (235, 60, 50)
MAX_LINES = 150  # matches that can be distinguished in one picture
_KEYPOINT: Colour = (255, 210, 40)
_BACKGROUND = 255
_GAP = 8  # pixels between the images
_SHIFT = 4  # OpenCV draws at 1 / 2**4 pixel
_SMALLEST = 0.5  # an image is enlarged to at least this part of the height of the other


def draw_matches(
    first: Tensor,
    second: Tensor,
    matches: PairMatch | tuple[Tensor, Tensor],
    *,
    correct: NDArray[np.bool_] | None = None,
    max_width: int = 1600,
    max_height: int = 8000,
    max_lines: int = MAX_LINES,
    opacity: float = 0.45,
) -> Picture:
    """Draw matches between two images.

    Each frame is drawn as a circle around the keypoint, with a line from its centre along the orientation.
    The radius is a third of the LAF scale (half the side of the support region), since whole regions would cover each
    other: twice the SIFT scale for a frame of the detector, and ``scaling_coef`` times more for an enlarged frame of a
    ``LocalFeature``. Lines and circles are green or red where ``correct`` is given, else coloured by position.

    Args:
        first: left image, values in [0, 1], shape (1, 1 or 3, H, W).
        second: right image; may have another size. An image of less than half the height of the other is enlarged, at
            most to its width.
        matches: result of :func:`~kornia_lift.match_images`, of which the inliers are drawn; or matched frames in the
            pixels of the left and of the right image, each (M, 2, 3), best first.
        correct: which matches are correct, shape (M,).
        max_width: largest width of the picture, in pixels.
        max_height: largest height of the picture, in pixels; WebP allows 16383, JPEG 65535.
        max_lines: largest number of matches drawn; if there are more, they are chosen evenly from the list.
        opacity: opacity of the lines, in [0, 1]; the circles are opaque.

    Returns:
        RGB picture of shape (height, width, 3), for ``PIL.Image.fromarray`` or ``matplotlib.pyplot.imshow``.

    Raises:
        kornia.core.exceptions.ShapeError: if an image has another shape.
        ValueError: if the numbers of frames differ.
        MissingExtraError: if OpenCV is not installed.

    """
    for image in (first, second):
        _check_one(image, "draw_matches")
    lafs = matches if isinstance(matches, tuple) else _inliers(matches)
    count = len(lafs[0])
    if len(lafs[1]) != count or (correct is not None and len(correct) != count):
        given = "" if correct is None else f" and {len(correct)} values of correct"
        raise ValueError(
            f"draw_matches expects one frame per image and match, got {count} and {len(lafs[1])} frames{given}"
        )
    cv2 = require("cv2", extra="cli")
    zooms = _zooms(first.shape[-2:], second.shape[-2:], max_width, max_height)
    images = [_pixels(image, zoom, cv2) for image, zoom in zip((first, second), zooms, strict=True)]
    canvas = np.full(
        (max(p.shape[0] for p in images), sum(p.shape[1] for p in images) + _GAP, 3), _BACKGROUND, np.uint8
    )
    offset = images[0].shape[1] + _GAP
    canvas[: images[0].shape[0], : images[0].shape[1]] = images[0]
    canvas[: images[1].shape[0], offset:] = images[1]

    drawn = _spread(count, max_lines)
    if correct is not None:
        drawn = drawn[np.argsort(~correct[drawn], kind="stable")][::-1]  # correct ones last, on top of the wrong ones
    ends = [_ends(frames[torch.from_numpy(drawn.copy())], zoom) for frames, zoom in zip(lafs, zooms, strict=True)]
    ends[1][:, [0, 2]] += offset
    colours = _rainbow(ends[0][:, 0], cv2) if correct is None else [CORRECT if correct[i] else WRONG for i in drawn]
    lines = canvas.copy()
    for a, b, colour in zip(*ends, colours, strict=True):
        _line(lines, a[:2], b[:2], colour, cv2)
    canvas = cv2.addWeighted(lines, opacity, canvas, 1 - opacity, 0)
    for a, b, colour in zip(*ends, colours, strict=True):
        for end in (a, b):
            _oriented_circle(canvas, end, colour, cv2)
    return np.asarray(canvas)


def draw_keypoints(
    image: Tensor,
    keypoints: Features | Tensor,
    *,
    max_keypoints: int = 500,
    max_width: int = 1600,
    max_height: int = 8000,
) -> Picture:
    """Draw keypoints as circles with a line in the direction of the orientation, as :func:`draw_matches` does.

    Args:
        image: values in [0, 1], shape (1, 1 or 3, H, W).
        keypoints: features of the image, or frames of shape (N, 2, 3) or (1, N, 2, 3), best first; empty slots are
            left out.
        max_keypoints: largest number of keypoints drawn; if there are more, the first ones are.
        max_width: largest width of the picture, in pixels.
        max_height: largest height of the picture, in pixels.

    Returns:
        RGB picture of shape (height, width, 3).

    Raises:
        kornia.core.exceptions.ShapeError: if the image has another shape.
        ValueError: if the frames have another shape, or the features have no scales.
        MissingExtraError: if OpenCV is not installed.

    """
    _check_one(image, "draw_keypoints")
    lafs = keypoints if isinstance(keypoints, Tensor) else keypoints.lafs
    lafs = lafs[0] if lafs.dim() == 4 and len(lafs) == 1 else lafs
    if lafs.dim() != 3 or lafs.shape[1:] != (2, 3):
        raise ValueError(f"draw_keypoints expects frames of one image, (N, 2, 3), got {tuple(lafs.shape)}")
    lafs = lafs[laf_is_filled(lafs[None])[0]][:max_keypoints]
    cv2 = require("cv2", extra="cli")
    height, width = image.shape[-2:]
    zoom = min(1.0, max_width / width, max_height / height)
    canvas = _pixels(image, zoom, cv2)
    for end in _ends(lafs, zoom):
        _oriented_circle(canvas, end, _KEYPOINT, cv2)
    return canvas


def _check_one(image: Tensor, who: str) -> None:
    check_image(image, who, value_range=True)
    if len(image) != 1:
        raise ShapeError(f"{who} expects one image (1, 1|3, H, W), got {tuple(image.shape)}; take images[i : i + 1]")


def _inliers(match: PairMatch) -> tuple[Tensor, Tensor]:
    first, second = match.lafs
    verified = torch.from_numpy(match.verified)
    return first[verified], second[verified]


def _zooms(first: tuple[int, ...], second: tuple[int, ...], max_width: int, max_height: int) -> tuple[float, float]:
    """Return the zoom of each image, given as (height, width): both can be seen, and the picture is not too large."""
    tall, wide = max(first[0], second[0]), max(first[1], second[1])
    zooms = [max(1.0, min(_SMALLEST * tall / height, wide / width)) for height, width in (first, second)]
    width = sum(zoom * size[1] for zoom, size in zip(zooms, (first, second), strict=True))
    reduce = min(1.0, (max_width - _GAP) / width, max_height / tall)
    return zooms[0] * reduce, zooms[1] * reduce


def _pixels(image: Tensor, zoom: float, cv2: Any) -> Picture:
    pixels = to_bytes(image[0].detach()).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    if zoom != 1:
        size = max(1, round(pixels.shape[1] * zoom)), max(1, round(pixels.shape[0] * zoom))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(pixels)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def _ends(lafs: Tensor, zoom: float) -> NDArray[np.float64]:
    """Centre, tip of the orientation (clockwise on screen, as pixels run) for each frame: shape (M, 4)."""
    lafs = lafs[None].detach().double().cpu()
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


def plain_label(name: str) -> str:
    """Escape a name for matplotlib, which would read text between two dollar signs as mathematics."""
    return name.replace("$", r"\$")
