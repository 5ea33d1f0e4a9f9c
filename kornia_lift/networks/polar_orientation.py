"""PolarOrientation: a distribution over the angles of a patch, equivariant by construction; no part of the LIFT paper."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks.layers import Layers, normalize_patches

PATCH_SIZE = 32
RADII = 16
DIRECTIONS = 72


def polar_sampling(size: int, radii: int, directions: int) -> Tensor:
    """Bilinear weights that resample a square patch on circles around its centre, (radii * directions, size * size).

    Convention:
        Direction k is at 2 pi k / directions, clockwise on screen from the x axis.

    """
    radius = (torch.arange(radii, dtype=torch.float64) + 0.5) * (size / 2 / radii)
    angle = torch.arange(directions, dtype=torch.float64) * (2 * math.pi / directions)
    x = ((size - 1) / 2 + radius[:, None] * angle.cos()).clamp(0, size - 1)
    y = ((size - 1) / 2 + radius[:, None] * angle.sin()).clamp(0, size - 1)
    pixels = torch.arange(size, dtype=torch.float64)
    along_x = (1 - (x[..., None] - pixels).abs()).clamp(min=0)
    along_y = (1 - (y[..., None] - pixels).abs()).clamp(min=0)
    return (along_y[..., :, None] * along_x[..., None, :]).view(radii * directions, size * size).float()


class Circular(nn.Module):
    """Convolution, batch normalisation and ReLU on a polar map: circular over directions, zeros beyond the radii."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride=(1, 1), dilation: int = 1, pad_radius=True):
        super().__init__()
        self.around = dilation * (kernel[1] // 2)
        self.convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=(kernel[0] // 2 if pad_radius else 0, 0), dilation=(1, dilation), bias=False
        )
        self.norm = nn.BatchNorm2d(outputs, affine=False)
        nn.init.orthogonal_(self.convolution.weight, gain=0.6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., -self.around :], x, x[..., : self.around]], -1)
        return F.relu(self.norm(self.convolution(x.contiguous(memory_format=torch.channels_last))))


class PolarOrientation(nn.Module):
    patch_size = PATCH_SIZE

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.register_buffer("sampling", polar_sampling(PATCH_SIZE, RADII, DIRECTIONS), persistent=False)
        self.features = Layers(
            Circular(1, w // 2, (3, 3)),  # 16 x 72
            Circular(w // 2, w, (3, 3), (2, 2)),  # 8 x 36
            Circular(w, w, (3, 3)),
            Circular(w, 2 * w, (3, 3), (2, 1)),  # 4 x 36
            Circular(2 * w, 2 * w, (4, 3), pad_radius=False),  # 1 x 36
            Circular(2 * w, 2 * w, (1, 5)),
            Circular(2 * w, 2 * w, (1, 5), dilation=3),
        )
        self.head = nn.Conv2d(2 * w, 1, 1)
        self.to(memory_format=torch.channels_last)

    def logits(self, patch: Tensor) -> Tensor:
        """Logits of the directions, clockwise on screen from the x axis; (B, 36)."""
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        x = patch.flatten(1) @ self.sampling.to(patch.dtype).T
        x = normalize_patches(x.view(-1, 1, RADII, DIRECTIONS), None, None)
        return self.head(self.features(x))[:, 0, 0].float()

    def forward(self, patch: Tensor) -> Tensor:
        """Angle in kornia's sense."""
        return -peak(self.logits(patch).softmax(1))


def peak(p: Tensor) -> Tensor:
    """Angle of the largest bin and its neighbours, clockwise, radians."""
    n = p.shape[1]
    k = p.argmax(1)
    around = (k[:, None] + torch.arange(-1, 2, device=k.device)) % n
    weight = p.gather(1, around)
    offset = (weight[:, 2] - weight[:, 0]) / weight.sum(1)
    angle = (k + offset) * (2 * math.pi / n)
    return torch.atan2(angle.sin(), angle.cos())
