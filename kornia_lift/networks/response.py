"""LIFTResponse: the piecewise-linear convolution that scores every pixel (paper Sec. 3.2, Eq. 5)."""

from __future__ import annotations

import math
import os
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_floating
from kornia_lift._kornia import ShapeError
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.response import SMALLEST, ResponsePlan, score
from kornia_lift.networks.contrast import DEVIATION, TINY, LocalContrast, gaussian_contrast, window_deviation
from kornia_lift.networks.layers import exact_conv2d, extended, ghh, score_blurred
from kornia_lift.weights import WeightFileError, load_network

FILTER_SIZE = 25
STRIP_ROWS = 64
NUM_SUM = NUM_MAX = 4


class LIFTResponse(nn.Module):
    r"""Score every pixel of grayscale images by 16 filters of 25x25 and a GHH activation (paper Eq. 5).

    Without gradient, in float32 on a CPU, the filters run in the frequency domain: four times faster, the same up to
    rounding (:mod:`kornia_lift.networks._fast.response`).

    Args:
        pretrained: ``True`` for the weights that the package ships (``"lift"``), the name of a shipped model, a path
            to a ``.safetensors`` file, or ``False`` for random weights (the module then stays in train mode).
        mean: mean gray value of the training patches, subtracted from the input, in [0, 1] units.
        std: standard deviation of the training patches; the input is divided by it.
        contrast: normalise local contrast, so that the score does not grow with it. ``None``, as in the paper: ``mean``
            and ``std`` alone. It is stored with the weights, and that of a weight file replaces this argument.
        sigma_ratio: for kornia's scale space only: the keypoints scored on a level have the scale ``sigma_ratio`` times
            the blur of the level.

    Shape:
        - Input: :math:`(B, 1, H, W)`, values in [0, 1]; any size, also smaller than the filter
        - ``sigmas``: :math:`(B,)`, optional
        - Output: :math:`(B, 1, H, W)`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, H, W).
        TypeError: if the input is not floating point.

    Convention:
        The filter has one size, so the response of one pixel describes one scale: sigma = 1.958 pixels of the map.
        With ``sigmas``, the blur of every map, as kornia's ``ScaleSpaceDetector`` passes it, the map is resized so that
        keypoints of ``sigma_ratio * sigma`` get that size, scored and resized back: responses of all levels and octaves
        are then comparable, as on LIFT's image pyramid. Give such a detector
        ``mr_size=sigma_ratio * LAF_SCALE_PER_SIGMA`` (2 * 6.095). LIFT's levels are not blurred; with the ratio 2 the
        remaining blur is 1 pixel of the resized map and the scale of a Gaussian blob is underestimated by a tenth,
        with the ratio 1 by three tenths. Beyond the border the image is replicated; scores within 12 pixels of it
        depend on that.

    Example:
        >>> response = LIFTResponse(pretrained=False).eval()
        >>> response(torch.rand(1, 1, 32, 40)).shape
        torch.Size([1, 1, 32, 40])

    """

    optional_buffers = ("window_eps", "gaussian_sigma_eps")  # how a weight file stores ``contrast``

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = True,
        *,
        mean: float | Tensor = 0.45,
        std: float | Tensor = 0.25,
        sigma_ratio: float = 2.0,
        contrast: LocalContrast | None = None,
    ) -> None:
        super().__init__()
        self.sigma_ratio = sigma_ratio
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.get_default_dtype()))
        self.mean: Tensor
        self.std: Tensor
        self.conv = nn.Conv2d(1, NUM_SUM * NUM_MAX, FILTER_SIZE)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear")  # N(0, 1/fan_in)
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self._plan = PlanCache(ResponsePlan)
        self.set_contrast(contrast)
        self.register_load_state_dict_pre_hook(_take_contrast)
        self.register_load_state_dict_post_hook(_read_contrast)
        if pretrained is not False:
            load_network(self, "response", pretrained)

    @property
    def contrast(self) -> LocalContrast | None:
        """How local contrast is normalised; ``None``: not at all."""
        return self._contrast

    def set_contrast(self, contrast: LocalContrast | None) -> None:
        """Change how local contrast is normalised; the filters stay as they are."""
        self._contrast = contrast
        values: dict[str, tuple[float, ...]] = {}
        if contrast is not None and contrast.window == "filter":
            values["window_eps"] = (contrast.eps,)
        elif contrast is not None:
            values["gaussian_sigma_eps"] = (contrast.sigma, contrast.eps)
        for name in self.optional_buffers:
            self.register_buffer(name, self.conv.weight.new_tensor(values[name]) if name in values else None)

    def extra_repr(self) -> str:
        return f"sigma_ratio={self.sigma_ratio}, contrast={self.contrast}"

    def normalize(self, x: Tensor, content: Tensor | None = None) -> Tensor:
        """Normalise whole images, the first step of every score.

        By ``mean`` and ``std``, after the local contrast with a Gaussian window. Contrast in the window of the filter
        is normalised later, where the windows are known.

        Args:
            x: images, shape (B, 1, H, W), values in [0, 1].
            content: booleans, which pixels belong to the image, shape (1|B, 1, H, W): others have no weight in local
                means and deviations. ``None``: all.

        Returns:
            What the filters are applied to, of the shape and dtype of ``x``.

        """
        mean, std = self.mean.to(x), self.std.to(x)
        if self.contrast is None or self.contrast.window == "filter":
            return (x - mean) / std
        # the clamp to [0, 1] of an image around the mean
        z = gaussian_contrast(x, self.contrast, content, DEVIATION / std)
        return z.clamp(-mean / std, (1 - mean) / std).to(x.dtype)

    def score_windows(self, windows: Tensor) -> Tensor:
        """Score single windows of images: each gets the score of the pixel in its middle.

        Args:
            windows: cut from images after :meth:`normalize`, shape (N, 1, 25, 25).

        Returns:
            Scores, shape (N,).

        """
        if windows.shape[1:] != (1, FILTER_SIZE, FILTER_SIZE):
            raise ShapeError(
                f"LIFTResponse expects windows (N, 1, {FILTER_SIZE}, {FILTER_SIZE}), got {tuple(windows.shape)}"
            )
        weight, bias = self._filters()
        gain = self._gain(windows)
        if gain is None:
            responses = F.linear(windows.flatten(1), weight.flatten(1), bias)
        else:
            responses = F.linear(windows.flatten(1), weight.flatten(1)) * gain.flatten(1).to(windows) + bias
        return ghh(responses, NUM_SUM, NUM_MAX)[:, 0]

    def valid(self, x: Tensor, direct: bool = False, content: Tensor | None = None) -> Tensor:
        """Score the pixels whose whole 25x25 window lies in the image, as in training.

        Args:
            x: the images.
            direct: never convolve in the frequency domain: pixels with the same surroundings then get the same score,
                without rounding errors of 1e-6 of the largest one.
            content: as in :meth:`normalize`.

        Shape:
            - Input: (B, 1, H, W), values in [0, 1], H, W >= 25
            - Output: (B, 1, H - 24, W - 24)

        """
        return self._score(self.normalize(x, content), direct)

    @torch.no_grad()
    def rounding_error(self, x: Tensor) -> Tensor:
        """Bound the rounding errors of the scores of images: smaller differences between scores are meaningless.

        A score is a sum of products that may be far larger than itself: black images have scores near 0 from filter
        responses that cancel, and normalisation raises contrast by up to 1 / eps. So the bound follows the summands.

        Args:
            x: the images, as in :meth:`valid`.

        Returns:
            An upper bound for each image, shape (B,), float32 or wider.

        """
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self._filters()
        weight, std = weight.to(wide), self.std.to(wide)
        # gray values are rounded before the mean is subtracted: a constant image of the mean has errors too
        value = (x.to(wide).abs().amax((1, 2, 3)) + self.mean.to(wide)) / std
        if self.contrast is not None:
            gain = 1 / max(self.contrast.eps, math.sqrt(TINY))
            # the Gaussian form amplifies the last digit of the image, the other form that of the responses
            value = value * gain * (std if self.contrast.window == "filter" else DEVIATION)
        precise, given = (torch.finfo(dtype).eps for dtype in (wide, x.dtype))
        error = precise * weight.abs().sum((1, 2, 3)).max() * value + precise * bias.abs().max().to(wide)
        if given > precise:
            # products are summed in float32, of rounded pixels and weights: a quarter of the last digit each, at
            # random, so that the errors of the summands add in quadrature
            random = weight.square().sum((1, 2, 3)).max().sqrt() * value / NUM_SUM**0.5
            error = error + given / 4 * random
        return NUM_SUM * error

    def _filters(self) -> tuple[Tensor, Tensor]:
        """Return the filters and biases; filters without mean subtract the mean of a window."""
        weight, bias = self.conv.weight, cast(Tensor, self.conv.bias)
        if self.contrast is not None and self.contrast.window == "filter":
            weight = weight - weight.mean((-2, -1), keepdim=True)
        return weight, bias

    def _gain(self, z: Tensor) -> Tensor | None:
        """Return the factor of each window's filter responses, shape (B, 1, H - 24, W - 24); ``None``: 1."""
        if self.contrast is None or self.contrast.window != "filter":
            return None
        deviation = window_deviation(z, FILTER_SIZE)
        return (deviation + self.contrast.eps / self.std.to(deviation)).reciprocal()

    def _score(self, z: Tensor, direct: bool = False) -> Tensor:
        rows, cols = (side - FILTER_SIZE + 1 for side in z.shape[-2:])
        weight, bias = (each.to(torch.promote_types(each.dtype, z.dtype)) for each in self._filters())
        gain = self._gain(z)
        if not direct and is_plain(z, weight, bias) and rows * cols >= SMALLEST and z.sum().isfinite():
            return score(z, self._plan.get(weight, bias), gain)
        # no strips in a graph: they would fix the size of the images
        whole = torch.is_grad_enabled() or z.device.type != "cpu" or torch.compiler.is_compiling()
        if whole or rows <= STRIP_ROWS:
            return _convolve(z, weight, bias, gain)
        # strips keep the 16 filter responses in the cache instead of 16 whole images in memory
        strips = []
        for top in range(0, rows, STRIP_ROWS):
            bottom = min(top + STRIP_ROWS, rows)
            part = None if gain is None else gain[:, :, top:bottom]
            strips.append(_convolve(z[:, :, top : bottom + FILTER_SIZE - 1], weight, bias, part))
        return torch.cat(strips, dim=2)

    def score_normalized(self, z: Tensor) -> Tensor:
        """Score every pixel of images that went through :meth:`normalize`; (B, 1, H, W) as the input."""
        margin = FILTER_SIZE // 2
        return self._score(extended(z, (margin,) * 4))

    def forward(self, x: Tensor, sigmas: Tensor | None = None) -> Tensor:
        check_floating(x, type(self).__name__)
        if x.dim() != 4 or x.shape[1] != 1:
            raise ShapeError(f"LIFTResponse expects grayscale images (B, 1, H, W), got {tuple(x.shape)}")
        if sigmas is None:
            return self.score_normalized(self.normalize(x))
        return score_blurred(self, x, sigmas, self.sigma_ratio)


def _convolve(z: Tensor, weight: Tensor, bias: Tensor, gain: Tensor | None) -> Tensor:
    # channels_last: the one-channel 25x25 convolution runs 5 times faster on CPU in this layout
    z = z.contiguous(memory_format=torch.channels_last)
    if gain is None:
        responses = exact_conv2d(z, weight, bias)
    else:
        responses = exact_conv2d(z, weight)
        responses = responses * gain.to(responses) + bias.to(responses).view(-1, 1, 1)
    return ghh(responses, NUM_SUM, NUM_MAX)


def _take_contrast(network: LIFTResponse, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Register the buffers that a state dict has, so that filters are never used with another normalisation."""
    if any(name.startswith(prefix) for name in state):
        for name in network.optional_buffers:
            loaded = state.get(prefix + name)
            network.register_buffer(name, None if loaded is None else network.conv.weight.new_zeros(loaded.shape))


def _read_contrast(network: LIFTResponse, _: Any) -> None:
    """Set ``contrast`` to what the buffers hold."""
    stored: dict[str, list[float]] = {}
    for name, count in zip(network.optional_buffers, (1, 2), strict=True):
        buffer = getattr(network, name)
        if buffer is not None:
            if buffer.numel() != count:
                raise WeightFileError(f"LIFTResponse expects {count} values {name}, got shape {tuple(buffer.shape)}")
            stored[name] = buffer.flatten().tolist()
    if "window_eps" in stored:
        network.set_contrast(LocalContrast("filter", eps=stored["window_eps"][0]))
    elif "gaussian_sigma_eps" in stored:
        sigma, eps = stored["gaussian_sigma_eps"]
        network.set_contrast(LocalContrast("gaussian", eps=eps, sigma=sigma))
    else:
        network.set_contrast(None)
