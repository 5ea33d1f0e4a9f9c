"""Photometric augmentation of patches: contrast, gamma, brightness, noise, blur, cast shadows, JPEG compression.

Each is a function of parameters that the caller's generator drew. kornia has augmentations of these kinds, but they
draw from torch's global generator, which belongs to the thread that trains, not to the one that fetches batches; its
illuminations add a ramp where a shadow multiplies by a step; and its differentiable JPEG codec, whose gradient nobody
needs here, takes five times as long as OpenCV's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from torch import Generator, Tensor

from kornia_lift._extras import require
from kornia_lift.training.limits import check_limits

BEST_QUALITY = 90  # above it compression leaves no trace worth learning
SHADOW_COLUMNS = 3
#: A row of :func:`draw_photometric` that changes nothing: gain, gamma, offset, noise, blur, JPEG quality, shadow.
UNCHANGED = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, *(0.0,) * SHADOW_COLUMNS)


@dataclass(frozen=True)
class Photometric:
    """How much illumination, sensor and compression change a patch.

    Args:
        gain: largest factor of contrast.
        gamma: largest exponent of the gray values.
        offset: largest change of brightness, in [0, 1] gray units.
        noise: largest standard deviation of pixel noise, in gray units.
        blur: largest standard deviation of additional blur, in pixels of the descriptor's patch; half of the patches
            stay sharp.
        shadow: share of the patches over which the edge of a cast shadow runs.
        shadow_depth: largest share of the illumination that it takes.
        jpeg: share of the patches that are compressed as JPEG.
        jpeg_quality: lowest quality; the highest is 90.

    """

    gain: float = 1.6
    gamma: float = 1.5
    offset: float = 0.12
    noise: float = 0.03
    blur: float = 1.0
    shadow: float = 0.15
    shadow_depth: float = 0.6
    jpeg: float = 0.15
    jpeg_quality: int = 30

    def __post_init__(self) -> None:
        check_limits(self, "gain", "gamma", at_least=1)
        check_limits(self, "offset", "noise", at_least=0)
        check_limits(self, "blur", at_least=0, at_most=8)
        check_limits(self, "shadow", "shadow_depth", "jpeg", at_least=0, at_most=1)
        check_limits(self, "jpeg_quality", at_least=1, at_most=BEST_QUALITY)


#: That of held-out data: as ``Photometric`` says, or that of the training data.
ValidationPhotometric = Photometric | Literal["training"]
Options = TypeVar("Options", bound=Photometric)


def as_in_use() -> Photometric:
    """Return the change between two images of an unknown camera: exposure, and a trace of noise.

    Held-out data use it. Robustness against strong contrast, blur and noise would lower the error of data augmented
    with them, but does not improve the matches of ordinary images.
    """
    return Photometric(gain=1.1, gamma=1.1, offset=0.02, noise=0.005, blur=0.0, shadow=0.0, jpeg=0.0)


def for_validation(options: Options, photometric: ValidationPhotometric) -> Options:
    """Return options of training data with the photometric augmentation of the held-out ones."""
    if photometric == "training":
        return options
    return replace(options, **{field.name: getattr(photometric, field.name) for field in fields(Photometric)})


def augment(patches: Tensor, config: Photometric, generator: Generator) -> Tensor:
    """Change the illumination of patches (N, 1, S, S) in [0, 1], each by its own draw; the result is in [0, 1]."""
    return apply_photometric(patches, draw_photometric(generator, len(patches), config), generator)


def draw_photometric(generator: Generator, count: int, config: Photometric) -> Tensor:
    """Draw the change of each patch.

    Args:
        generator: CPU generator. Nothing is drawn for shadows and compression where their share is 0.
        count: number of patches, N.
        config: how much of each.

    Returns:
        Rows for :func:`apply_photometric`, on the CPU, shape (N, 9).

    """

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    gain, gamma = (torch.exp(uniform(-1, 1) * math.log(limit)) for limit in (config.gain, config.gamma))
    offset, noise = uniform(-config.offset, config.offset), uniform(0, config.noise)
    blur = uniform(-1, 1).clamp(min=0) * config.blur
    quality = draw_qualities(generator, count, config.jpeg, config.jpeg_quality)
    rows = torch.stack([gain, gamma, offset, noise, blur, quality], dim=1)
    return torch.cat([rows, draw_shadows(generator, count, config.shadow, config.shadow_depth)], dim=1)


def apply_photometric(patches: Tensor, rows: Tensor, generator: Generator, density: float = 1.0) -> Tensor:
    """Change patches as drawn: shadow, blur, gamma, contrast about the mean, brightness, noise, compression.

    Args:
        patches: (N, 1, S, S) in [0, 1].
        rows: see :func:`draw_photometric`, (N, 9).
        generator: source of the pixel noise.
        density: pixels per pixel of the descriptor's patch, the unit of the blur.

    """
    gain, gamma, offset, noise = rows[:, :4, None, None, None].to(patches).unbind(1)
    x = cast_shadows(patches, rows[:, 6:])
    x = _blur(x, rows[:, 4] * density)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x.clamp(1e-4, 1) ** gamma - mean) * gain + mean + offset
    return compress((x + _grain(x, generator) * noise).clamp(0, 1), rows[:, 5])


def _grain(like: Tensor, generator: Generator) -> Tensor:
    """Draw normal noise of the shape of a tensor on its device; copying it there would take longer than the rest."""
    if like.device.type != "cpu":
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device).to(like.dtype)


def _blur(patches: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of the patches whose standard deviation in pixels, (N,), is not 0."""
    chosen = torch.nonzero(sigma)[:, 0]
    if not len(chosen):
        return patches
    sigma = sigma[chosen].to(patches)
    radius = max(1, math.ceil(2 * float(sigma.max())))
    taps = torch.arange(-radius, radius + 1, device=patches.device)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, :, None]
    there = chosen.to(patches.device)
    stacked = F.pad(patches[there].transpose(0, 1), (radius,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(stacked, kernel, groups=len(chosen)), kernel.transpose(2, 3), groups=len(chosen))
    out = patches.clone()
    out[there] = blurred.transpose(0, 1)
    return out


def draw_shadows(generator: Generator, count: int, share: float, depth: float) -> Tensor:
    """Draw where shadows fall.

    Args:
        generator: CPU generator; nothing is drawn where ``share`` is 0.
        count: number of patches.
        share: share of them that get a shadow.
        depth: largest share of the illumination that a shadow takes.

    Returns:
        Direction in radians, offset of the edge in half patch sides, and depth, 0 without shadow; (count, 3).

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
    position = ((torch.arange(size) + 0.5) * (2 / size) - 1).to(patches)
    along = direction.cos() * position + direction.sin() * position[:, None]
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
    """Compress patches as JPEG and decode them again, those whose quality is not 0.

    On a GPU by kornia's codec, whose rounding is a little smoother, and otherwise by OpenCV's.

    Args:
        patches: (N, 1, S, S) in [0, 1].
        qualities: see :func:`draw_qualities`, (N,).

    """
    chosen = torch.nonzero(qualities)[:, 0]
    if not len(chosen):
        return patches
    if patches.device.type != "cpu":
        return compress_on_device(patches, qualities, chosen)
    cv2 = require("cv2", extra="train")
    pixels = (patches[chosen.to(patches.device), 0] * 255).round().to("cpu", torch.uint8).numpy()
    again = np.empty_like(pixels)
    for number, quality in enumerate(qualities[chosen].tolist()):
        file = cv2.imencode(".jpg", pixels[number], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        again[number] = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)
    out = patches.clone()
    out[chosen.to(patches.device), 0] = torch.from_numpy(again).to(patches) / 255
    return out


def compress_on_device(patches: Tensor, qualities: Tensor, chosen: Tensor) -> Tensor:
    """Compress the ``chosen`` patches on their own device by kornia's codec, see :func:`compress`."""
    there = chosen.to(patches.device)
    color = patches[there].float().expand(-1, 3, -1, -1)
    again = jpeg_codec_differentiable(color, qualities[chosen].to(color)).mean(1, keepdim=True)
    return patches.index_copy(0, there, again.to(patches.dtype))
