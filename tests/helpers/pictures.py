"""Pictures and weights with known answers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kornia_lift import LIFTResponse
from kornia_lift.geometry import level_resize


def blob_image(height: int, width: int, blobs: list[tuple[float, float, float]]) -> Tensor:
    """Bright Gaussian blobs ``(x, y, sigma)`` on grey, shape (1, 1, height, width)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    image = torch.full((height, width), 0.2, dtype=torch.float64)
    for cx, cy, sigma in blobs:
        image = image + 0.6 * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return image.float()[None, None]


def blob_response() -> LIFTResponse:
    """A response whose first hyperplanes are a Laplacian of the scale that LIFT's filter speaks about."""
    sigma = level_resize(1.0)  # pixels of the level per sigma of the keypoint
    t = torch.arange(25, dtype=torch.float64) - 12
    square = (t[:, None] ** 2 + t[None] ** 2) / sigma**2
    laplacian = (2 - square) * torch.exp(-square / 2) / (2 * math.pi * sigma**2)
    response = LIFTResponse(pretrained=False).eval()
    assert response.conv.bias is not None
    with torch.no_grad():
        response.conv.weight.zero_()
        response.conv.bias.zero_()
        response.conv.weight[:4] = laplacian - laplacian.mean()
    return response


def texture(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """A smooth random texture in [0, 1] with detail at several scales, shape (batch, 1, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(batch, 1, height, width)
    for cell in (4, 8, 16):
        noise = torch.rand(batch, 1, height // cell + 3, width // cell + 3, generator=generator)
        out += torch.nn.functional.interpolate(noise, scale_factor=cell, mode="bicubic")[..., :height, :width]
    low, high = out.aminmax()
    return (out - low) / (high - low)
