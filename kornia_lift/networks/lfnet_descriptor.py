"""LFNetDescriptor: 256-dimensional descriptors of 32x32 patches (Ono et al., NeurIPS 2018)."""

from __future__ import annotations

import os

import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.weights import LFNET_MODEL, load_network

PATCH_SIZE = 32
WIDTH = 256


class LFNetDescriptor(nn.Module):
    """Describe 32x32 patches of normalised images by unit vectors.

    Three convolutions of stride 2 and two fully-connected layers, batch normalisation after all but the last.

    Args:
        pretrained: ``True`` for the weights that the package ships (``"lf-net"``), the path of a ``.safetensors`` file
            with tensors ``descriptor.*``, or ``False`` for random weights, in train mode.

    Shape:
        - Input: :math:`(B, 1, 32, 32)`
        - Output: :math:`(B, 256)`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 32, 32).
        TypeError: if the input is not floating point.

    Convention:
        The patches come from the image after it was normalised to mean 0 and variance 1, as
        :class:`~kornia_lift.feature.lfnet.LFNetPatchDescriptor` does. In kornia's ``LAFDescriptor``, on an image in
        [0, 1], the network works, but does not give the published descriptor.

    Example:
        >>> LFNetDescriptor().eval()(torch.randn(4, 1, 32, 32)).shape
        torch.Size([4, 256])

    """

    patch_size = PATCH_SIZE

    def __init__(self, pretrained: bool | str | os.PathLike[str] = False) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 64, 3, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.norm2 = nn.Conv2d(64, 128, 3, stride=2), nn.BatchNorm2d(128)
        self.conv3, self.norm3 = nn.Conv2d(128, 256, 3, stride=2), nn.BatchNorm2d(256)
        self.fc1, self.norm4 = nn.Linear(4096, 512), nn.BatchNorm1d(512)
        self.fc2 = nn.Linear(512, WIDTH)
        for layer in (self.conv1, self.conv2, self.conv3, self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if pretrained is not False:
            load_network(self, "descriptor", LFNET_MODEL if pretrained is True else pretrained)

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        x = patch
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            # TensorFlow pads even sizes at the far side only; padding=1 would sample another grid
            x = F.relu(norm(conv(F.pad(x, (0, 1, 0, 1)))))
        x = x.permute(0, 2, 3, 1).flatten(1)  # row, column, channel: the order of the published weights
        return F.normalize(self.fc2(F.relu(self.norm4(self.fc1(x)))).to(patch.dtype), dim=1)
