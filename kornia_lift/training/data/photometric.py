"""Cast shadows and JPEG compression of patches, each a function of parameters that the caller's generator drew.

kornia has augmentations of both kinds, but they draw from torch's global generator, which belongs to the thread that
trains, not to the one that fetches batches; its illuminations add a ramp where a shadow multiplies by a step; and its
differentiable JPEG codec, whose gradient nobody needs here, takes five times as long as OpenCV's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from kornia_lift._extras import require

SHADOW_COLUMNS = 3
BEST_QUALITY = 90  # above it compression leaves no trace worth learning


def draw_shadows(generator: Generator, count: int, share: float, depth: float) -> Tensor:
    """Draw where shadows fall.

    Args:
        generator: CPU generator; nothing is drawn where ``share`` is 0.
        count: number of patches.
        share: share of them that get a shadow.
        depth: largest share of the light that a shadow takes.

    Returns:
        Direction in radians, place of the edge in half patch sides, and depth, 0 without shadow; (count, 3).

    """
    if not share:
        return torch.zeros(count, SHADOW_COLUMNS)
    direction = torch.rand(count, generator=generator) * (2 * math.pi)
    # an edge in the middle half: both sides are seen
    edge = torch.rand(count, generator=generator) - 0.5
    strength = (0.3 + 0.7 * torch.rand(count, generator=generator)) * depth
    falls = torch.rand(count, generator=generator) < share
    return torch.stack([direction, edge, strength * falls], dim=1)


def cast_shadows(patches: Tensor, shadows: Tensor, softness: float = 0.05) -> Tensor:
    """Darken one side of a straight line through each patch.

    Args:
        patches: (N, 1, S, S).
        shadows: see :func:`draw_shadows`, (N, 3).
        softness: width of the edge in half patch sides.

    """
    chosen = torch.nonzero(shadows[:, 2])[:, 0]
    if not len(chosen):
        return patches
    direction, edge, depth = (column.view(-1, 1, 1, 1).to(patches) for column in shadows[chosen].unbind(1))
    size = patches.shape[-1]
    place = ((torch.arange(size) + 0.5) * (2 / size) - 1).to(patches)
    along = direction.cos() * place + direction.sin() * place[:, None]
    out, chosen = patches.clone(), chosen.to(patches.device)
    out[chosen] *= 1 - depth * torch.sigmoid((along - edge) / softness)
    return out


def draw_qualities(generator: Generator, count: int, share: float, lowest: int) -> Tensor:
    """Draw JPEG qualities from ``lowest`` to 90, 0 for what is not compressed; (count,).

    Nothing is drawn where ``share`` is 0.
    """
    if not share:
        return torch.zeros(count)
    quality = torch.randint(lowest, BEST_QUALITY + 1, (count,), generator=generator)
    return quality * (torch.rand(count, generator=generator) < share)


def compress(patches: Tensor, qualities: Tensor) -> Tensor:
    """Write patches as JPEG and read them again, those whose quality is not 0.

    Args:
        patches: (N, 1, S, S) in [0, 1].
        qualities: see :func:`draw_qualities`, (N,).

    """
    cv2 = require("cv2", extra="train")
    chosen = torch.nonzero(qualities)[:, 0]
    if not len(chosen):
        return patches
    pixels = (patches[chosen.to(patches.device), 0] * 255).round().to("cpu", torch.uint8).numpy()
    again = np.empty_like(pixels)
    for number, quality in enumerate(qualities[chosen].tolist()):
        file = cv2.imencode(".jpg", pixels[number], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        again[number] = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)
    out = patches.clone()
    out[chosen.to(patches.device), 0] = torch.from_numpy(again).to(patches) / 255
    return out
