"""LIFTDescriptor: the DeepDesc network that LIFT uses as its descriptor (paper Sec. 3.3)."""

from __future__ import annotations

import os
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.descriptor import describe, plan_descriptor
from kornia_lift.networks._fast.folded import Precision, product_dtype
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks.layers import L2Pool2d, Layers, SubtractiveNorm2d, normalize_patches, register_statistics
from kornia_lift.weights import load_network

PATCH_SIZE = 64
DESCRIPTOR_DIM = 128
FEW = 8  # patches for which the plain network is as fast as the inference path


class LIFTDescriptor(nn.Module):
    r"""Describe 64x64 grayscale patches by 128 numbers (paper Sec. 3.3).

    Three blocks of convolution, tanh, L2 pooling and subtractive normalisation; 280 320 parameters. Without gradient,
    in float32 on a CPU, the second convolution runs in the frequency domain: three to five times faster, the same up to
    rounding (:mod:`kornia_lift.networks._fast.descriptor`).

    Args:
        pretrained: ``True`` for the weights that the package ships (``"lift"``), the name of a shipped model, a path
            to a ``.safetensors`` file, or ``False`` for random weights (the module then stays in train mode).
        normalize: return unit vectors, as matchers, hloc and COLMAP expect. The paper's own descriptor is not
            normalised (norms of about 40); use ``normalize=False`` with published weights to reproduce it.
        mean: mean gray value of the training patches, subtracted from the input, in [0, 1] units. ``None``, with
            ``std``: every patch is normalised by its own mean and standard deviation (an option of the authors'
            TensorFlow code), so that the descriptor does not change with the illumination. Weights from a file
            bring their own choice.
        std: standard deviation of the training patches; the input is divided by it.
        chunk_size: patches that go through the network at once when no gradient is recorded; bounds the memory
            (430 KiB of activations per patch in float32), does not change the result.
        precision: number format of the products on the inference path on a CPU. ``"bfloat16"`` is a fifth faster
            where the CPU has it (AVX512-BF16, AMX), which ``"auto"`` finds out, and slow elsewhere; descriptors keep a
            cosine above 0.999 to those of ``"float32"``. Input, output and weights stay float32.

    Shape:
        - Input: :math:`(B, 1, 64, 64)`, values in [0, 1]
        - Output: :math:`(B, 128)`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 64, 64).
        TypeError: if the input is not floating point.

    Convention:
        The patch covers 12 sigma x 12 sigma of the image, sigma the scale of the keypoint: with kornia's
        ``extract_patches_*`` that is a LAF scale (half side) of ``6 * 64 / 63 * sigma``
        (:data:`kornia_lift.geometry.LAF_SCALE_PER_SIGMA`).

    Example:
        >>> descriptor = LIFTDescriptor(pretrained=False).eval()
        >>> descriptor(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4, 128])

    """

    patch_size = PATCH_SIZE
    optional_buffers = ("mean", "std")  # a weight file may have them or not

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = True,
        *,
        normalize: bool = True,
        mean: float | Tensor | None = None,
        std: float | Tensor | None = None,
        chunk_size: int = 512,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.normalize = normalize
        self.chunk_size = chunk_size
        # scalars for LIFT, (64, 64) images for DeepDesc: both broadcast
        register_statistics(self, mean, std)
        self.mean: Tensor | None
        self.std: Tensor | None
        self.features = Layers(
            nn.Conv2d(1, 32, 7),  # 58
            nn.Tanh(),
            L2Pool2d(2),  # 29
            SubtractiveNorm2d(),
            nn.Conv2d(32, 64, 6),  # 24
            nn.Tanh(),
            L2Pool2d(3),  # 8
            SubtractiveNorm2d(),
            nn.Conv2d(64, DESCRIPTOR_DIM, 5),  # 4
            nn.Tanh(),
            L2Pool2d(4),  # 1
        )
        self._plan = PlanCache(partial(plan_descriptor, dtype=product_dtype(precision)))
        if pretrained is not False:
            load_network(self, "descriptor", pretrained)

    def extra_repr(self) -> str:
        return f"normalize={self.normalize}"

    def _describe(self, patch: Tensor) -> Tensor:
        z = normalize_patches(patch, self.mean, self.std)
        convolutions = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        weights = [cast(Tensor, t) for layer in convolutions for t in (layer.weight, layer.bias)]
        if is_plain(z, *weights) and z.shape[0] >= FEW:
            out = describe(z, self._plan.get(*weights, cast(SubtractiveNorm2d, self.features[3]).window))
        else:
            # channels_last: the convolutions run in their fast CPU and tensor-core layout
            out = self.features(z.contiguous(memory_format=torch.channels_last)).flatten(1)
        return F.normalize(out, dim=1) if self.normalize else out

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        # no chunks in a graph: they would fix the number of patches
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or patch.shape[0] <= self.chunk_size:
            return self._describe(patch)
        return torch.cat([self._describe(part) for part in patch.split(self.chunk_size)])
