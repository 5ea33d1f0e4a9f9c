"""LIFTOrientation: the network that assigns an angle to a patch (paper Sec. 3.2)."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.orientation import plan_orientation, vector
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks.descriptor import PATCH_SIZE
from kornia_lift.networks.layers import ghh, normalize_patches, register_statistics
from kornia_lift.weights import load_network

NUM_SUM = NUM_MAX = 4
HIDDEN = 100
FEW = 8  # patches for which the plain network is as fast as the inference path


class LIFTOrientation(nn.Module):
    r"""Estimate the orientation of 64x64 grayscale patches (paper Sec. 3.2).

    Three convolutions with max pooling and two fully-connected layers with GHH activations, whose two outputs are the
    sine and the cosine of the angle up to a common factor. Without gradient, in float32 on a CPU, the convolutions run
    as products over the batch: twice as fast, the same up to rounding (:mod:`kornia_lift.networks._fast.orientation`).

    Args:
        pretrained: ``True`` for the weights that the package ships (``"lift"``), the name of a shipped model, a path
            to a ``.safetensors`` file, or ``False`` for random weights (the module then stays in train mode).
        pool3: pool after the third convolution (1250 inputs of the first fully-connected layer, 2.0 M parameters, as
            in the authors' TensorFlow code) or not (6050 inputs, 9.7 M parameters, as in their Theano code).
        output_order: ``"cs"``: the outputs are (cosine, sine), the TensorFlow order; ``"sc"``: (sine, cosine), the
            Theano order. Weights of one order are wrong in the other.
        mean: mean gray value of the training patches, subtracted from the input, in [0, 1] units. ``None``, with
            ``std``: every patch is normalised by its own mean and standard deviation (an option of the authors'
            TensorFlow code), so that the angle does not change with the illumination. Weights from a file bring
            their own choice.
        std: standard deviation of the training patches; the input is divided by it.
        dropout: probability of dropping a hidden unit in train mode.
        chunk_size: patches that go through the network at once when no gradient is recorded; bounds the memory.

    Shape:
        - Input: :math:`(B, 1, 64, 64)`, values in [0, 1]
        - Output: :math:`(B,)`, radians in :math:`(-\pi, \pi]`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 64, 64).
        TypeError: if the input is not floating point.

    Convention:
        ``forward`` returns the angle in kornia's sense, counter-clockwise on screen, as ``LAFOrienter`` adds it to the
        frame. LIFT's own angle (clockwise, y down) is its negative, see :mod:`kornia_lift.geometry`.

    Example:
        >>> orientation = LIFTOrientation(pretrained=False).eval()
        >>> orientation(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4])

    """

    patch_size = PATCH_SIZE
    optional_buffers = ("mean", "std")  # a weight file may have them or not

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = True,
        *,
        pool3: bool = True,
        output_order: Literal["cs", "sc"] = "cs",
        mean: float | Tensor | None = None,
        std: float | Tensor | None = None,
        dropout: float = 0.0,
        chunk_size: int = 1024,
    ) -> None:
        super().__init__()
        if output_order not in ("cs", "sc"):
            raise ValueError(f"output_order must be 'cs' (cosine, sine) or 'sc' (sine, cosine), got {output_order!r}")
        self.pool3 = pool3
        self.output_order = output_order
        self.dropout = dropout
        self.chunk_size = chunk_size
        register_statistics(self, mean, std)
        self.mean: Tensor | None
        self.std: Tensor | None
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv3 = nn.Conv2d(20, 50, 3)
        self.fc1 = nn.Linear(50 * (5 if pool3 else 11) ** 2, HIDDEN * NUM_SUM * NUM_MAX)
        self.fc2 = nn.Linear(HIDDEN, 2 * NUM_SUM * NUM_MAX)
        for layer in (self.conv1, self.conv2, self.conv3, self.fc1, self.fc2):
            # the Theano release draws from N(0, 1/fan_in)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(cast(Tensor, layer.bias))
        self._plan = PlanCache(plan_orientation)
        if pretrained is not False:
            load_network(self, "orientation", pretrained)

    def extra_repr(self) -> str:
        return f"pool3={self.pool3}, output_order={self.output_order!r}"

    def vector(self, patch: Tensor) -> Tensor:
        """Return the two outputs of the network as (cosine, sine) of LIFT's clockwise angle, not normalised.

        Shape:
            - Input: (B, 1, 64, 64), values in [0, 1]
            - Output: (B, 2)

        """
        x = normalize_patches(patch, self.mean, self.std)
        convolutions = [cast(Tensor, t) for c in (self.conv1, self.conv2, self.conv3) for t in (c.weight, c.bias)]
        linear = self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias
        drops = self.training and self.dropout > 0
        if not drops and is_plain(x, *convolutions, *linear) and x.shape[0] >= FEW:
            x = vector(x, self._plan.get(*convolutions), linear, self.pool3)
            return x if self.output_order == "cs" else x.flip(1)
        # pooling first gives the same as the paper's order and leaves a quarter of the work to the ReLU
        x = F.relu(F.max_pool2d(self.conv1(x.contiguous(memory_format=torch.channels_last)), 2))  # 10, 30, 30
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # 20, 13, 13
        x = F.relu(self.conv3(x))  # 50, 11, 11
        if self.pool3:
            x = F.max_pool2d(x, 2)  # 50, 5, 5
        x = ghh(self.fc1(x.flatten(1)), NUM_SUM, NUM_MAX)
        x = F.dropout(x, self.dropout, self.training)
        x = ghh(self.fc2(x), NUM_SUM, NUM_MAX)  # B, 2
        return x if self.output_order == "cs" else x.flip(1)

    def _angle(self, patch: Tensor) -> Tensor:
        cosine, sine = self.vector(patch).unbind(1)
        # (0, 0), a constant patch with zero biases, would have an infinite gradient: nudge it towards angle 0
        cosine = torch.where((cosine == 0) & (sine == 0), cosine + 1e-4, cosine)
        return torch.atan2(-sine, cosine)  # kornia's sense

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        # no chunks in a graph: they would fix the number of patches
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or patch.shape[0] <= self.chunk_size:
            return self._angle(patch)
        return torch.cat([self._angle(part) for part in patch.split(self.chunk_size)])
