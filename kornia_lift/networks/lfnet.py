"""LF-Net's networks: dense score maps and orientations, and descriptors of patches (Ono et al., NeurIPS 2018)."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.weights import LFNET_MODEL, load_network

CHANNELS = 16
SLOPE = 0.2  # of the leaky ReLU
NORM_EPSILON = 1e-3  # added to the variance of images and score maps
SCALES = tuple(2.0 ** (0.5 - n / 4) for n in range(5))  # sqrt 2 to 1 / sqrt 2, the largest first
Grid = Literal["half", "legacy"]
PATCH_SIZE = 32  # of the descriptor
WIDTH = 256  # of its vectors


class DenseMaps(NamedTuple):
    """Output of :class:`LFNetMaps`.

    Attributes:
        scores: normalised score of each scale, each at its own resolution (B, 1, h, w), the largest scale first.
        orientation: unit vectors (cosine, sine), clockwise on screen, shape (B, 2, H, W).
    """

    scores: list[Tensor]
    orientation: Tensor


def normalise_maps(x: Tensor, padding: Tensor | None = None) -> Tensor:
    """Make the mean of every map 0 and its variance 1; constant maps become 0.

    Args:
        x: shape (B, C, H, W).
        padding: pixels that do not count, and become 0; boolean, shape (B, H, W). ``None``: all count.

    Returns:
        Maps of the same shape.

    """
    if padding is None:
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return (x - mean) * (variance + NORM_EPSILON).rsqrt()
    outside = padding[:, None]
    count = (~outside).sum((2, 3), keepdim=True).clamp(min=1)
    centred = (x - x.masked_fill(outside, 0).sum((2, 3), keepdim=True) / count).masked_fill(outside, 0)
    return centred * (centred.square().sum((2, 3), keepdim=True) / count + NORM_EPSILON).rsqrt()


def resize_maps(x: Tensor, size: tuple[int, int], grid: Grid = "half") -> Tensor:
    """Resize bilinearly, without smoothing.

    Args:
        x: shape (B, C, H, W).
        size: rows and columns.
        grid: ``"half"``: pixel i of the output lies at ``(i + 0.5) * in / out - 0.5``; ``"legacy"``: at
            ``i * in / out``, as in TensorFlow 1, for which the published weights were trained.

    """
    if tuple(x.shape[-2:]) == size:
        return x
    if grid == "half":
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    for dim, out in zip((-2, -1), size, strict=True):
        last = x.shape[dim] - 1
        at = torch.arange(out, dtype=torch.float64) * (x.shape[dim] / out)  # not every device has double precision
        low = at.floor().clamp(max=last)
        share = (at - low).to(x)
        share = share[:, None] if dim == -2 else share
        low = low.long().to(x.device)
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, (low + 1).clamp(max=last)) * share
    return x


class _Block(nn.Module):
    """Residual block with activations before the convolutions and an identity shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(CHANNELS), _conv(CHANNELS, CHANNELS)
        self.norm2, self.conv2 = nn.BatchNorm2d(CHANNELS), _conv(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.leaky_relu(self.norm1(x), SLOPE, inplace=True))
        return x + self.conv2(F.leaky_relu(self.norm2(y), SLOPE, inplace=True))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 5, padding=2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class LFNetMaps(nn.Module):
    """Fully convolutional network of 16 channels at full resolution: features, score maps, orientation.

    The features are resized once per scale, and every scale has a 5x5 filter of its own: scale s looks at the features
    reduced by s and finds what is s times as large.

    Args:
        grid: how maps are resized, see :func:`resize_maps`.

    Shape:
        - Input: normalised images :math:`(B, 1, H, W)`, see :func:`normalise_maps`; pixels that do not count in the
          normalisation of the scores, boolean :math:`(B, H, W)`, or ``None``
        - Output: :class:`DenseMaps`

    """

    def __init__(self, grid: Grid = "half") -> None:
        super().__init__()
        if grid not in get_args(Grid):
            raise ValueError(f"grid expects one of {', '.join(get_args(Grid))}, got {grid!r}")
        self.grid = grid
        self.input = _conv(1, CHANNELS)
        self.blocks = nn.Sequential(_Block(), _Block(), _Block())
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.scores = nn.ModuleList(_conv(CHANNELS, 1) for _ in SCALES)
        self.orientation = _conv(CHANNELS, 2)
        with torch.no_grad():  # angle 0 everywhere to begin with
            self.orientation.weight.zero_()
            self.orientation.bias.copy_(torch.tensor([1.0, 0.0]))  # type: ignore[union-attr]

    def features(self, image: Tensor) -> Tensor:
        """Return the features (B, 16, H, W) of normalised images (B, 1, H, W)."""
        x = self.input(image)
        if x.device.type == "cpu":  # convolutions of so few channels then take two thirds of the time
            x = x.contiguous(memory_format=torch.channels_last)
        return F.leaky_relu(self.norm(self.blocks(x)), SLOPE, inplace=True)

    def forward(self, image: Tensor, padding: Tensor | None = None) -> DenseMaps:
        features = self.features(image)
        height, width = image.shape[-2:]
        scores = []
        for scale, head in zip(SCALES, self.scores, strict=True):
            size = int(height / scale + 0.5), int(width / scale + 0.5)
            outside = None if padding is None else F.interpolate(padding[:, None].to(image.dtype), size)[:, 0] > 0
            # autocast leaves half precision behind, too coarse for what follows
            score = head(resize_maps(features, size, self.grid)).to(image.dtype)
            scores.append(normalise_maps(score, outside))
        vector = self.orientation(features).to(image.dtype)
        length = vector.square().sum(1, keepdim=True).clamp(min=1e-12)
        return DenseMaps(scores, vector * length.rsqrt())


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
