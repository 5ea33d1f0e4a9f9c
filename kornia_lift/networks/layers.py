"""Building blocks shared by the three LIFT networks: input statistics, GHH, L2 pooling, subtractive normalisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift.geometry import level_resize

Part = TypeVar("Part", bound=nn.Module)

EPSILON = 1e-10  # keeps the gradient of the root finite
NORM_EPS = 1e-5  # of the batch normalisations of the compact networks
FLAT = 1e-2  # gray units: patches of less contrast than this count as flat


def normalize_patches(patch: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """Subtract a mean, divide by a standard deviation.

    Args:
        patch: shape (B, 1, H, W), values in [0, 1].
        mean: mean of the training patches, of any shape that broadcasts. ``None``, together with ``std``: every patch
            is normalised by its own mean and standard deviation (an option of the authors' TensorFlow code).
        std: standard deviation of the training patches.

    """
    if mean is None or std is None:
        # the floor keeps the noise of a constant patch from being blown up to a pattern
        x = patch - patch.mean((1, 2, 3), keepdim=True)
        norm = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)  # no squares in memory
        return x / ((norm.square() / math.prod(x.shape[1:]) + EPSILON).sqrt() + FLAT)
    return (patch - mean.to(patch)) / std.to(patch)


def register_statistics(network: nn.Module, mean: float | Tensor | None, std: float | Tensor | None) -> None:
    """Keep the arguments of :func:`normalize_patches` as buffers ``mean`` and ``std``.

    Raises:
        ValueError: if only one of them is None.

    """
    if (mean is None) != (std is None):
        raise ValueError("give both mean and std, or neither (then every patch is normalised by its own)")
    for name, value in (("mean", mean), ("std", std)):
        network.register_buffer(
            name, None if value is None else torch.as_tensor(value, dtype=torch.get_default_dtype())
        )
    network.register_load_state_dict_pre_hook(_take_statistics)


def _take_statistics(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Register the buffers that a state dict has, so that weights are never used with another normalisation."""
    if not any(name.startswith(prefix) for name in state):
        return
    weight = next(network.parameters())
    for name in ("mean", "std"):
        loaded, own = state.get(prefix + name), getattr(network, name)
        if loaded is None or own is None or own.shape != loaded.shape:
            network.register_buffer(name, None if loaded is None else weight.new_zeros(loaded.shape))


def normalised_convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation without parameters, ReLU; the map keeps its size, divided by the stride."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=NORM_EPS, affine=False),
        nn.ReLU(),
    ]


def in_chunks(function: Callable[[Tensor], Tensor], patches: Tensor, size: int, training: bool) -> Tensor:
    """Call a network on ``size`` patches at a time, to save memory.

    In training it is called once, since batch statistics are those of the whole batch; while gradients are recorded,
    since chunks would save nothing; and in a graph, which is for any number of patches.
    """
    if training or torch.is_grad_enabled() or torch.compiler.is_compiling() or len(patches) <= size:
        return function(patches)
    return torch.cat([function(part) for part in patches.split(size)])


class Layers(nn.Sequential):
    """``nn.Sequential`` that ``Layers.compile()`` compiles as one graph: dynamo skips torch's own ``forward``."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def ghh(z: Tensor, num_sum: int = 4, num_max: int = 4) -> Tensor:
    r"""Generalised hinging hyperplanes: a signed sum of maxima (paper Eq. 5).

    .. math:: o_u = \sum_{n=0}^{N-1} (-1)^n \max_{m} z_{(uN+n)M+m}

    Args:
        z: linear responses, channels unit-major, then sum index, then max index.
        num_sum: N, number of terms in the signed sum.
        num_max: M, number of hyperplanes in each maximum.

    Shape:
        - Input: :math:`(B, U \cdot N \cdot M, *)`
        - Output: :math:`(B, U, *)`

    Raises:
        ValueError: if the channels are not a multiple of ``num_sum * num_max``.

    """
    group = num_sum * num_max
    if z.shape[1] % group:
        raise ValueError(
            f"ghh expects channels that are a multiple of num_sum*num_max={group}, got {z.shape[1]} "
            f"(input shape {tuple(z.shape)})"
        )
    grouped = z.unflatten(1, (-1, num_sum, num_max)).amax(dim=3)  # B, U, N, *
    # slices instead of a product with a sign vector: no constant to move between devices and dtypes
    return grouped[:, :, 0::2].sum(dim=2) - grouped[:, :, 1::2].sum(dim=2)


class L2Pool2d(nn.Module):
    r"""Pooling by the Euclidean norm of the window, stride = window (DeepDesc).

    It is a sum of squares, not a mean; borders that do not fill a window are dropped.

    Args:
        kernel_size: side of the square window.
        eps: added inside the root, so that an all-zero window has a finite gradient.

    Shape:
        - Input: :math:`(B, C, H, W)`
        - Output: :math:`(B, C, \lfloor H/k \rfloor, \lfloor W/k \rfloor)`, values >= 0

    """

    def __init__(self, kernel_size: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.eps = eps

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"

    def forward(self, x: Tensor) -> Tensor:
        energy = F.avg_pool2d(x * x, self.kernel_size) * float(self.kernel_size**2)
        # half precision cannot hold 1e-12: there the smallest normal number does the same work
        return (energy + max(self.eps, torch.finfo(x.dtype).tiny)).sqrt()


class SubtractiveNorm2d(nn.Module):
    r"""Subtract from every channel the local Gaussian mean over all channels (DeepDesc).

    The mean is corrected at the borders: the 5x5 kernel is divided by the part of it that lies inside the map.
    There is no divisive part.

    Args:
        kernel_size: side of the Gaussian window, odd.
        sigma: standard deviation of the window in pixels.

    Shape:
        - Input, output: :math:`(B, C, H, W)`

    """

    def __init__(self, kernel_size: int = 5, sigma: float = 1.25) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.sigma = sigma
        # a constant, not a weight: separable, sums to 1
        self.register_buffer("window", self._window(), persistent=False)
        self.window: Tensor

    def _window(self) -> Tensor:
        half = self.kernel_size // 2
        # by hand, since torch would put it on the meta device when the module is made there
        taps = [math.exp(-(t**2) / (2.0 * self.sigma**2)) for t in range(-half, half + 1)]
        return torch.tensor([tap / sum(taps) for tap in taps], dtype=torch.get_default_dtype())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Make the window again: a module made on the meta device has none, and no state dict holds it."""
        super()._load_from_state_dict(*args, **kwargs)
        if self.window.is_meta:
            with torch.device("cpu"):
                self.window = self._window()
        else:
            with torch.no_grad():
                self.window.copy_(self._window())

    def forward(self, x: Tensor) -> Tensor:
        window = self.window.to(x)
        half = window.numel() // 2

        def blur(m: Tensor) -> Tensor:
            m = F.conv2d(m, window.view(1, 1, -1, 1), padding=(half, 0))
            return F.conv2d(m, window.view(1, 1, 1, -1), padding=(0, half))

        mean = x.mean(dim=1, keepdim=True)
        return x - blur(mean) / blur(torch.ones_like(mean[:1]))


def exact_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
    stride: tuple[int, int] = (1, 1),
) -> Tensor:
    """``F.conv2d`` in full float32 precision, also on CUDA.

    There cuDNN rounds the factors to the 10 bits of TensorFloat-32 unless a call forbids it. The errors would be those
    of half precision, while keypoints depend on small differences of scores, and ``LIFTResponse.rounding_error``
    assumes float32.
    """
    if not _would_round(x):
        return F.conv2d(x, weight, bias, stride, padding)
    cudnn = torch.backends.cudnn
    # an argument of this call: a switch of the whole process would affect other threads too
    out = torch.cudnn_convolution(
        x, weight, padding, stride, (1, 1), 1, cudnn.benchmark, cudnn.deterministic, allow_tf32=False
    )
    return out if bias is None else out + bias.view(-1, 1, 1)


def _would_round(x: Tensor) -> bool:
    """Return whether ``F.conv2d`` may round ``x``: float32 by cuDNN, outside of graphs and autocast."""
    if torch.compiler.is_compiling() or x.device.type != "cuda" or x.dtype != torch.float32 or not x.numel():
        return False
    return torch.version.hip is None and torch.backends.cudnn.enabled and not torch.is_autocast_enabled("cuda")


def extended(images: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Continue images (B, C, H, W) by their border pixels: ``padding`` left, right, top and bottom, in pixels."""
    if images.dtype == torch.float16 and images.device.type == "cpu":  # torch 2.5 has no kernel; float32 is exact
        return F.pad(images.float(), padding, mode="replicate").to(images.dtype)
    return F.pad(images, padding, mode="replicate")


def score_blurred(response: nn.Module, x: Tensor, sigmas: Tensor, sigma_ratio: float) -> Tensor:
    """Score levels of kornia's scale space, each at the resolution that suits its blur.

    Args:
        response: scores every pixel of images (N, 1, h, w), for keypoints of one size in their pixels.
        x: levels, shape (B, 1, H, W).
        sigmas: the blur of each, in pixels, shape (B,).
        sigma_ratio: scale of the keypoints searched for on a level, divided by its blur.

    Returns:
        Scores of the shape of ``x``.

    Raises:
        ValueError: if there is not one sigma for each level.

    """
    if sigmas.shape != (len(x),):
        name = type(response).__name__
        raise ValueError(f"{name} expects one sigma per image, ({len(x)},), got {tuple(sigmas.shape)}")
    height, width = x.shape[-2:]
    out = x.new_zeros(x.shape)
    for sigma in sigmas.unique().tolist():  # the levels of all images that share a scale go through at once
        index = (sigmas == sigma).nonzero()[:, 0]
        size = [max(1, round(side * level_resize(sigma_ratio * sigma))) for side in (height, width)]
        level = F.interpolate(x[index], size=size, mode="bilinear", align_corners=False)
        # cubic: linear interpolation would have all its maxima on pixels of the level
        scores = F.interpolate(response(level), size=(height, width), mode="bicubic", align_corners=False)
        out = out.index_copy(0, index, scores)
    return out


def in_dtype(module: Part, dtype: torch.dtype) -> Part:
    """Return a copy of ``module`` with its weights cast, through which gradients reach the weights.

    ``torch.func.functional_call`` would put the cast weights into ``module`` itself, which other threads may be using.
    """
    twin = copy.copy(module)
    for own in ("_parameters", "_buffers"):
        tensors = getattr(module, own).items()
        cast = {n: t.to(dtype) if t is not None and t.is_floating_point() else t for n, t in tensors}
        object.__setattr__(twin, own, cast)
    parts = {name: None if part is None else in_dtype(part, dtype) for name, part in module._modules.items()}
    object.__setattr__(twin, "_modules", parts)
    return twin


def without_autocast(img: Tensor) -> AbstractContextManager[object]:
    """Suspend autocast: in half precision scores of pixels that look nearly alike differ by rounding errors only."""
    kind = img.device.type
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
