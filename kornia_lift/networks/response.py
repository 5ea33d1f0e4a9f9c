"""LIFTResponse: the piecewise-linear convolution that scores every pixel (paper Sec. 3.2, Eq. 5)."""

from __future__ import annotations

import os
from typing import cast

import torch
import torch.nn.functional as F
from kornia.core.exceptions import ShapeError
from torch import Tensor, nn

from kornia_lift._checks import check_floating
from kornia_lift.geometry import level_resize
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.response import SMALLEST, ResponsePlan, score
from kornia_lift.networks.layers import ghh
from kornia_lift.weights import load_network

FILTER_SIZE = 25
STRIP_ROWS = 64
NUM_SUM = NUM_MAX = 4


class LIFTResponse(nn.Module):
    r"""Score every pixel of grayscale images by 16 filters of 25x25 and a GHH activation (LIFT spec 1.2).

    Without gradient, in float32 on a CPU, the filters run in the frequency domain: four times faster, the same up to
    rounding (:mod:`kornia_lift.networks._fast.response`).

    Args:
        pretrained: ``True`` for the weights that the package ships (``"lift"``), the name of a shipped model, a path
            to a ``.safetensors`` file, or ``False`` for random weights (the module then stays in train mode).
        mean: mean grey value of the training patches, subtracted from the input, in [0, 1] units.
        std: standard deviation of the training patches; the input is divided by it.
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
        The filter has one size, so the response of one pixel speaks about one scale: sigma = 1.958 pixels of the map
        (LIFT spec 2.3). With ``sigmas``, the blur of every map, as kornia's ``ScaleSpaceDetector`` passes it, the map
        is resized so that keypoints of ``sigma_ratio * sigma`` get that size, scored and resized back: responses of
        all levels and octaves are then comparable, as on LIFT's image pyramid. Give such a detector
        ``mr_size=sigma_ratio * LAF_SCALE_PER_SIGMA`` (2 * 6.095). LIFT's levels are not blurred; with the ratio 2 the
        remaining blur is 1 pixel of the resized map and the scale of a Gaussian blob is underestimated by a tenth,
        with the ratio 1 by three tenths. Beyond the border the image is replicated; scores within 12 pixels of it
        depend on that.

    Example:
        >>> response = LIFTResponse(pretrained=False).eval()
        >>> response(torch.rand(1, 1, 32, 40)).shape
        torch.Size([1, 1, 32, 40])

    """

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = True,
        *,
        mean: float | Tensor = 0.45,
        std: float | Tensor = 0.25,
        sigma_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        self.sigma_ratio = sigma_ratio
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.get_default_dtype()))
        self.mean: Tensor
        self.std: Tensor
        self.conv = nn.Conv2d(1, NUM_SUM * NUM_MAX, FILTER_SIZE)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear")  # N(0, 1/fan_in), LIFT spec 4.8
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self._plan = PlanCache(ResponsePlan)
        if pretrained is not False:
            load_network(self, "response", pretrained)

    def valid(self, x: Tensor, direct: bool = False) -> Tensor:
        """Score the pixels whose whole 25x25 window lies in the image, as in training.

        Args:
            x: the images.
            direct: never convolve in the frequency domain: pixels with the same surroundings then get the same score,
                without rounding errors of 1e-6 of the largest one.

        Shape:
            - Input: (B, 1, H, W), values in [0, 1], H, W >= 25
            - Output: (B, 1, H - 24, W - 24)

        """
        rows, cols = (side - FILTER_SIZE + 1 for side in x.shape[-2:])
        weights = self.conv.weight, cast(Tensor, self.conv.bias)
        if not direct and is_plain(x, *weights) and rows * cols >= SMALLEST and x.sum().isfinite():
            return score((x - self.mean) / self.std, self._plan.get(*weights))
        # no strips in a graph: they would fix the size of the images
        whole = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
        if whole or rows <= STRIP_ROWS:
            return self._strip(x)
        # strips keep the 16 filter responses in the cache instead of 16 whole images in memory
        strips = [
            self._strip(x[:, :, top : min(top + STRIP_ROWS, rows) + FILTER_SIZE - 1])
            for top in range(0, rows, STRIP_ROWS)
        ]
        return torch.cat(strips, dim=2)

    def _strip(self, x: Tensor) -> Tensor:
        z = (x - self.mean.to(x)) / self.std.to(x)
        # channels_last: the one-channel 25x25 convolution runs 5 times faster on CPU in this layout
        z = self.conv(z.contiguous(memory_format=torch.channels_last))
        return ghh(z, NUM_SUM, NUM_MAX)

    def _same_size(self, x: Tensor) -> Tensor:
        margin = FILTER_SIZE // 2
        return self.valid(F.pad(x, (margin, margin, margin, margin), mode="replicate"))

    def forward(self, x: Tensor, sigmas: Tensor | None = None) -> Tensor:
        check_floating(x, type(self).__name__)
        if x.dim() != 4 or x.shape[1] != 1:
            raise ShapeError(f"LIFTResponse expects grayscale images (B, 1, H, W), got {tuple(x.shape)}")
        if sigmas is None:
            return self._same_size(x)
        if sigmas.shape != (len(x),):
            raise ValueError(f"LIFTResponse expects one sigma per image, ({len(x)},), got {tuple(sigmas.shape)}")
        height, width = x.shape[-2:]
        out = x.new_zeros(x.shape)
        for sigma in sigmas.unique().tolist():  # the levels of all images that share a scale go through at once
            index = (sigmas == sigma).nonzero()[:, 0]
            size = [max(1, round(side * level_resize(self.sigma_ratio * sigma))) for side in (height, width)]
            level = F.interpolate(x[index], size=size, mode="bilinear", align_corners=False)
            # cubic: the maps of a linear one have their maxima on the pixels of the level
            score = F.interpolate(self._same_size(level), size=(height, width), mode="bicubic", align_corners=False)
            out = out.index_copy(0, index, score)
        return out
