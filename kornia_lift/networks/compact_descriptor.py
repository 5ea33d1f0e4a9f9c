"""CompactDescriptor: 128 numbers of a 32x32 patch by a plain convolutional network; no part of the LIFT paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks.layers import Layers, normalize_patches

PATCH_SIZE = 32
DESCRIPTOR_DIM = 128


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation without parameters, ReLU; the map keeps its size, divided by the stride."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=False),
        nn.ReLU(),
    ]


class CompactDescriptor(nn.Module):
    patch_size = PATCH_SIZE

    def __init__(self, shape: str = "l2") -> None:
        super().__init__()
        if shape == "l2":
            body = [*convolution(1, 32), *convolution(32, 32), *convolution(32, 64, 3, 2)]
        elif shape == "eff":
            body = [*convolution(1, 32, 5, 2), *convolution(32, 64)]
        elif shape == "eff2":
            body = [*convolution(1, 16), *convolution(16, 32, 3, 2), *convolution(32, 64)]
        self.features = Layers(
            *body,
            *convolution(64, 64),
            *convolution(64, 128, 3, 2),
            *convolution(128, 128),
            nn.Conv2d(128, DESCRIPTOR_DIM, 8, bias=False),
            nn.BatchNorm2d(DESCRIPTOR_DIM, affine=False),
        )
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight, gain=0.6)
        self.to(memory_format=torch.channels_last)

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        x = normalize_patches(patch, None, None).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.features(x).flatten(1).float(), dim=1)
