"""PolarOrientation: how likely each direction of a patch is its orientation. It is not part of the LIFT paper.

The patch is resampled on circles around its centre, where a rotation of the patch is a shift. Convolutions that are
circular along the circles commute with shifts: the estimate rotates with the patch by construction, and the network
has to learn only which direction is found again in another view.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.folded import IntegerPrecision, Placement, closed, normalised_tensors, padded
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.quantized import build_maps, known_precision
from kornia_lift.networks.layers import NORM_EPS, Layers, in_chunks, normalize_patches
from kornia_lift.weights import load_network, widths_of

PATCH_SIZE = 32
RADII = 16
LAYERS = 7  # of the full form, without the last
DIRECTIONS = 72  # samples on each circle, and bins of the distribution


def polar_sampling(size: int, radii: int, directions: int) -> Tensor:
    """Return the bilinear weights that resample a square patch on circles around its centre.

    Args:
        size: side of the patch in pixels.
        radii: number of circles, of which the outermost stays half a step inside the patch.
        directions: samples on each circle.

    Returns:
        Matrix (radii * directions, size * size); its rows sum to 1.

    Convention:
        Direction k is at 2 pi k / directions from the x axis, clockwise on screen (y down).

    """
    radius = (torch.arange(radii, dtype=torch.float64) + 0.5) * (size / 2 / radii)
    angle = torch.arange(directions, dtype=torch.float64) * (2 * math.pi / directions)
    x = ((size - 1) / 2 + radius[:, None] * angle.cos()).clamp(0, size - 1)
    y = ((size - 1) / 2 + radius[:, None] * angle.sin()).clamp(0, size - 1)
    pixels = torch.arange(size, dtype=torch.float64)
    along_x = (1 - (x[..., None] - pixels).abs()).clamp(min=0)
    along_y = (1 - (y[..., None] - pixels).abs()).clamp(min=0)
    weights = along_y[..., :, None] * along_x[..., None, :]
    return weights.view(radii * directions, size * size).to(torch.get_default_dtype())


class PolarConvolution(nn.Module):
    """Convolution, batch normalisation without parameters, ReLU on a polar map (B, C, radii, directions).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: extent over radii, padded with zeros, and over directions, which are circular.
        stride: over radii.
        dilation: over directions.
        whole: the kernel covers all radii, of which one remains.
        random: draw orthogonal weights, which takes a while; not for weights that are replaced.

    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: int = 1,
        dilation: int = 1,
        whole: bool = False,
        random: bool = True,
    ) -> None:
        super().__init__()
        self.around = dilation * (kernel[1] // 2)
        padding = 0 if whole else kernel[0] // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, (stride, 1), (padding, 0), (1, dilation), bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=NORM_EPS, affine=False)
        if random:
            nn.init.orthogonal_(self.convolution.weight, gain=0.6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.convolution(closed(x, self.around))))

    @property
    def placement(self) -> Placement:
        c = self.convolution
        return Placement(tuple(c.stride), tuple(map(int, c.padding)), tuple(c.dilation), self.around)


class PolarOrientation(nn.Module):
    r"""Estimate the orientation of 32x32 grayscale patches as a distribution over 72 directions.

    Every patch is normalised by its own mean and deviation. 16 circles of 72 samples, seven circular convolutions of
    which the fifth closes the radii; five million products, or three in the smaller form. Without gradient, on a CPU,
    the normalisation is folded into the weights.

    Args:
        pretrained: the name of a shipped model that has this network, a path to a ``.safetensors`` file, or ``False``
            for random weights (the module then stays in train mode, where batch statistics normalise).
        width: channels of the middle layers.
        small: sample 8 circles instead of 16, and leave out the third layer: half of the time. ``None``: as in the
            weights, or ``False`` without weights.
        precision: number format of the products on a CPU without gradient, see
            :class:`~kornia_lift.networks.compact_descriptor.CompactDescriptor`. In 8-bit integers, 99 % of the angles
            of an image were within 5 degrees of those in float32 (experiments/2026-11-28/integers).
        chunk_size: patches that go through the network at once when no gradient is recorded.

    Shape:
        - Input: :math:`(B, 1, 32, 32)`, values in [0, 1]
        - Output: :math:`(B,)`, radians in :math:`(-\pi, \pi]`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 32, 32).
        TypeError: if the input is not floating point.

    Convention:
        ``forward`` returns the angle in kornia's sense, counter-clockwise on screen, as ``LAFOrienter`` adds it to the
        frame; the bins of :meth:`logits` count clockwise, as LIFT's angles do.

    Example:
        >>> orientation = PolarOrientation(pretrained=False).eval()
        >>> orientation(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4])

    """

    patch_size = PATCH_SIZE

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        width: int = 16,
        small: bool | None = None,
        precision: IntegerPrecision = "auto",
        chunk_size: int = 1024,
    ) -> None:
        super().__init__()
        self.small = _is_small(pretrained) if small is None else small
        self.radii = RADII // 2 if self.small else RADII
        self.precision = precision
        self.chunk_size = chunk_size
        # a constant, not a weight
        self.register_buffer("sampling", polar_sampling(PATCH_SIZE, self.radii, DIRECTIONS), persistent=False)
        self.sampling: Tensor
        # no stride over the directions: by aliasing, a patch rotated by half a step would become another patch
        layer = partial(PolarConvolution, random=pretrained is False)
        self.features = Layers(
            layer(1, width // 2, (3, 3)),  # 16 or 8 radii x 72 directions
            layer(width // 2, width, (3, 3), stride=2),  # 8 or 4
            *([] if self.small else [layer(width, width, (3, 3))]),
            layer(width, 2 * width, (3, 3), stride=1 if self.small else 2),  # 4
            layer(2 * width, 2 * width, (4, 3), whole=True),  # 1
            layer(2 * width, 2 * width, (1, 5), dilation=3),
            layer(2 * width, 2 * width, (1, 5), dilation=8),  # sees 135 degrees to both sides
        )
        self.head = nn.Conv2d(2 * width, 1, 1)
        placements = tuple(cast(PolarConvolution, each).placement for each in self.features)
        known = known_precision(precision)
        self._plan = PlanCache(partial(build_maps, placements=placements, eps=NORM_EPS, precision=known))
        if pretrained is not False:
            load_network(self, "orientation", pretrained)

    def extra_repr(self) -> str:
        return f"small={self.small}, precision={self.precision!r}"

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Make the sampling again: a module made on the meta device has none, and no state dict holds it."""
        super()._load_from_state_dict(*args, **kwargs)
        with torch.device("cpu"):
            sampling = polar_sampling(PATCH_SIZE, self.radii, DIRECTIONS).to(self.head.weight.dtype)
        if self.sampling.is_meta:
            self.sampling = sampling
        else:
            with torch.no_grad():
                self.sampling.copy_(sampling)

    def logits(self, patch: Tensor) -> Tensor:
        """Return the logits of the directions, bin k at 5 k degrees clockwise from the x axis.

        Shape:
            - Input: (B, 1, 32, 32), values in [0, 1]
            - Output: (B, 72)

        """
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        x = F.linear(patch.flatten(1), self.sampling.to(patch.dtype)).view(-1, 1, self.radii, DIRECTIONS)
        x = normalize_patches(x, None, None)
        layers = cast("list[PolarConvolution]", list(self.features))
        tensors = normalised_tensors((layer.convolution, layer.norm) for layer in layers)
        if not self.training and is_plain(x, *tensors) and len(x):
            x = self._plan.get(*tensors)(padded(x))[: len(patch)]
        else:
            x = self.features(x)
        return self.head(x)[:, 0, 0]

    def distribution(self, patch: Tensor) -> Tensor:
        """Return the probabilities of the directions, see :meth:`logits`; (B, 72)."""
        return in_chunks(lambda part: self.logits(part).softmax(1), patch, self.chunk_size, self.training)

    def forward(self, patch: Tensor) -> Tensor:
        return -peak_angle(self.distribution(patch))


def _is_small(pretrained: bool | str | os.PathLike[str]) -> bool:
    """Return whether the orientation of a model has the smaller form."""
    layers = (f"orientation.features.{n}.convolution.weight" for n in range(LAYERS))
    return 0 < len(widths_of(pretrained, layers)) < LAYERS


def peak_angle(distribution: Tensor, at: Tensor | None = None) -> Tensor:
    """Return the mean angle of a bin and its two neighbours, weighted by their probabilities.

    Args:
        distribution: probabilities of the directions, shape (B, n).
        at: number of the bin, shape (B,); ``None``: the most probable one.

    Returns:
        Clockwise angles in radians in (-pi, pi], shape (B,).

    """
    n = distribution.shape[1]
    at = distribution.argmax(1) if at is None else at
    around = (at[:, None] + torch.arange(-1, 2, device=at.device)) % n
    left, middle, right = distribution.gather(1, around).unbind(1)
    angle = (at + (right - left) / (left + middle + right)) * (2 * math.pi / n)
    return torch.atan2(angle.sin(), angle.cos())


def peak_angles(distribution: Tensor, count: int, apart: int = 7, least: float = 0.05) -> tuple[Tensor, Tensor]:
    """Return the angles of several peaks, strongest first, and the weight of each.

    Args:
        distribution: probabilities of the directions, shape (B, n).
        count: number of peaks.
        apart: bins nearer than this to a peak belong to it.
        least: a peak counts if its probability, divided by that of the first one, is at least this.

    Returns:
        Clockwise angles in radians in (-pi, pi], shape (B, count), and weights that sum to 1, shape (B, count), in
        proportion to the square root of the probability of the peak's bin and its two neighbours (descriptors averaged
        by the root find more matches than by the probability itself); 0 where there is no further peak.

    """
    n = distribution.shape[1]
    mass = distribution + distribution.roll(1, 1) + distribution.roll(-1, 1)
    bins = torch.arange(n, device=distribution.device)
    left = distribution
    angles, weights = [], []
    for _ in range(count):
        at = left.argmax(1)
        angles.append(peak_angle(distribution, at))
        weights.append(mass.gather(1, at[:, None])[:, 0] * (left.gather(1, at[:, None])[:, 0] > 0))
        away = (bins - at[:, None]).abs()
        left = left.masked_fill(torch.minimum(away, n - away) < apart, 0)
    weight = torch.stack(weights, 1)
    kept = weight >= least * weight[:, :1]
    weight = torch.where(kept, weight, torch.ones_like(weight)).sqrt() * kept  # the root has no gradient at 0
    return torch.stack(angles, 1), weight / weight.sum(1, keepdim=True)
