"""LFNetDetector: keypoints with scale and orientation from dense maps (Ono et al., NeurIPS 2018)."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor, nn

from kornia_lift._checks import check_count, check_image, check_mask
from kornia_lift.detector.padding import find_padding, sees_padding
from kornia_lift.detector.soft_nms import merge_scales, sample_squares, soft_argmax, soft_nms, strict_maxima
from kornia_lift.networks.lfnet import SCALES, Grid, LFNetMaps, normalise_maps, resize_maps
from kornia_lift.weights import LFNET_MODEL, load_network

BORDER = 16  # pixels: eight convolutions of radius 2 see beyond the image there
PATCH_HALF = 16.0  # half side of the described patch over the scale, between the centres of its first and last pixels
LAF_SCALE = PATCH_HALF * 32 / 31  # kornia counts to the outer edges of these pixels
REFINE_HALF = 4.5  # the same of the patch of scores whose soft maximum is the sub-pixel position
REFINE_SIZE = 9


class ChosenPixels(NamedTuple):
    """Pixels that become keypoints, N in all.

    Attributes:
        image: index of the image, shape (N,).
        slot: number of the keypoint in its image, by decreasing score, shape (N,).
        row: shape (N,).
        column: shape (N,).
    """

    image: Tensor
    slot: Tensor
    row: Tensor
    column: Tensor


class LFNetDetector(nn.Module):
    r"""Detect keypoints at the maxima of a score that a network gives every pixel, with its scale and orientation.

    Five score maps, of scales from sqrt 2 to 1 / sqrt 2, are suppressed softly over a window of 15 pixels and all
    scales, and merged into one score and one scale per pixel. Keypoints are strict maxima of 5x5 pixels.

    Args:
        num_features: number of slots in the output; the keypoints with the highest scores are kept.
        pretrained: ``True`` for the weights that the package ships (``"lf-net"``), the path of a ``.safetensors`` file
            with tensors ``detector.*``, or ``False`` for random weights, in train mode.
        joint: suppress over all scales at once, as the authors' code does; otherwise every scale by itself, at its own
            resolution, as their paper describes it.
        refine_strength: strength of the soft maximum that moves keypoints by fractions of a pixel. The published value,
            1, moves them by hundredths only; its purpose is the gradient.
        skip_padding: treat black regions around a rotated or rectified image as lying beyond the border, see
            :func:`~kornia_lift.detector.padding.find_padding`.
        upright: leave the frames upright instead of using the orientations: better where no camera is rotated.
        grid: how maps are resized; ``"legacy"`` for published weights, see
            :func:`~kornia_lift.networks.lfnet.resize_maps`.

    Shape:
        - Input: images :math:`(B, 1, H, W)`, values in [0, 1]; ``mask`` :math:`(1|B, 1, H, W)`
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, :math:`N` = ``num_features``

    Raises:
        kornia.core.exceptions.ShapeError: if the images or the mask have another shape.
        TypeError: if the images are not floating point.
        ValueError: if pixel values are NaN, infinite or far outside [0, 1], or an argument is out of range.

    Convention:
        Pixel centres lie at integers. A LAF has the scale 16.516 s, so that its 32-pixel patch spans +-16 s between the
        centres of its outer pixels, and the negative of the network's angle, which runs clockwise on screen. Keypoints
        are sorted by decreasing response; empty slots follow, zero LAFs with zero response. There are no keypoints
        within 16 pixels of the border, hence none in images with a side below 33 pixels, nor in constant images.

        Boolean and integer masks keep what is not 0, floating-point masks are factors of the score. Gradients reach the
        network through response, scale, orientation and position. A pixel has only one angle and one scale.

    Example:
        >>> lafs, responses = LFNetDetector(100).eval()(torch.rand(1, 1, 96, 128))
        >>> lafs.shape, responses.shape
        (torch.Size([1, 100, 2, 3]), torch.Size([1, 100]))

    """

    def __init__(
        self,
        num_features: int = 512,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        joint: bool = True,
        refine_strength: float = 1.0,
        skip_padding: bool = True,
        upright: bool = False,
        grid: Grid = "half",
    ) -> None:
        super().__init__()
        self.num_features = check_count(num_features, type(self).__name__)
        if not 0 <= refine_strength < math.inf:
            raise ValueError(f"refine_strength expects a number of at least 0, got {refine_strength!r}")
        self.joint = joint
        self.refine_strength = refine_strength
        self.skip_padding = skip_padding
        self.upright = upright
        self.maps = LFNetMaps(grid)
        if pretrained is not False:
            load_network(self, "detector", LFNET_MODEL if pretrained is True else pretrained)

    def extra_repr(self) -> str:
        return (
            f"num_features={self.num_features}, joint={self.joint}, refine_strength={self.refine_strength}, "
            f"skip_padding={self.skip_padding}, upright={self.upright}"
        )

    def dense(self, img: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the dense maps that training compares between images.

        Args:
            img: images, shape (B, 1, H, W), values in [0, 1].
            padding: pixels that show nothing of the scene, boolean, shape (B, H, W). ``None``: there are none.

        Returns:
            Score (B, H, W), 0 in a border of 16 pixels, of the image and of the padding; scale (B, H, W); orientation
            (cosine, sine), (B, 2, H, W).

        """
        size = img.shape[-2], img.shape[-1]
        scores, orientation = self.maps(normalise_maps(img.to(self.maps.input.weight.dtype), padding), padding)
        grid = self.maps.grid
        if self.joint:
            suppressed = soft_nms(torch.cat([resize_maps(s, size, grid) for s in scores], 1))
        else:
            suppressed = torch.cat([resize_maps(soft_nms(s), size, grid) for s in scores], 1)
        score, scale = merge_scales(suppressed, SCALES)
        inner = torch.zeros(size, dtype=torch.bool, device=img.device)
        inner[BORDER : size[0] - BORDER, BORDER : size[1] - BORDER] = True
        if padding is not None:
            inner = inner & ~sees_padding(padding, BORDER)
        return torch.where(inner, score, 0), scale, orientation.to(score.dtype)

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_image(img, type(self).__name__, channels=(1,), value_range=True)
        if mask is not None:
            check_mask(mask, img, type(self).__name__)
        count = self.num_features
        wide = torch.promote_types(img.dtype, torch.float32)
        lafs = torch.zeros(len(img), count, 2, 3, dtype=wide, device=img.device)
        responses = torch.zeros(len(img), count, dtype=wide, device=img.device)
        if not len(img) or min(img.shape[-2:]) <= 2 * BORDER:
            return lafs, responses.to(img.dtype)
        score, scale, orientation = self.dense(img, find_padding(img) if self.skip_padding else None)
        worth = score
        if mask is not None:
            worth = score * (mask[:, 0].to(score.dtype) if mask.is_floating_point() else (mask[:, 0] != 0))
        # the score of a constant image varies by rounding errors only
        worth = torch.where((img.amax((1, 2, 3)) > img.amin((1, 2, 3)))[:, None, None], worth, 0)
        found = self.choose(score, worth, count)
        if not len(found.image):
            return lafs, responses.to(img.dtype)
        if self.upright:
            orientation = orientation.new_tensor([1.0, 0.0])[:, None, None].expand_as(orientation)
        frames = self.frames(score, scale, orientation, found)
        lafs = lafs.index_put((found.image, found.slot), frames.to(wide))
        worth = worth[found.image, found.row, found.column].to(wide)
        return lafs, responses.index_put((found.image, found.slot), worth).to(img.dtype)

    @staticmethod
    def choose(score: Tensor, worth: Tensor, count: int) -> ChosenPixels:
        """Choose the maxima of the score, the best ``count`` of each image by ``worth``.

        Maxima are found without the mask: its edges would become maxima.

        Args:
            score: shape (B, H, W).
            worth: the score where a mask allows it, else 0; shape (B, H, W).
            count: largest number of keypoints of an image.

        """
        kept = strict_maxima(score) & (worth.detach() > 0)
        value = torch.where(kept, worth.detach(), 0).flatten(1)
        best = value.topk(min(count, value.shape[1]), dim=1)
        image, slot = (best.values > 0).nonzero(as_tuple=True)
        pixel = best.indices[image, slot]
        width = score.shape[-1]
        return ChosenPixels(image, slot, pixel // width, pixel % width)

    def frames(self, score: Tensor, scale: Tensor, orientation: Tensor, found: ChosenPixels) -> Tensor:
        """Return the frames of chosen pixels, moved by fractions of a pixel; gradients reach all three maps.

        Args:
            score: shape (B, H, W).
            scale: shape (B, H, W).
            orientation: (cosine, sine), shape (B, 2, H, W).
            found: N pixels.

        Returns:
            LAFs of shape (N, 2, 3).

        """
        image, row, column = found.image, found.row, found.column
        s = scale[image, row, column]
        at = torch.stack([column, row], 1).to(score.dtype)
        around = sample_squares(score, image, at, s * REFINE_HALF, REFINE_SIZE)
        at = at + soft_argmax(around, self.refine_strength) * (s * REFINE_HALF)[:, None]
        return self.frames_at(at, s, orientation[image, :, row, column])

    @staticmethod
    def frames_at(xy: Tensor, scale: Tensor, orientation: Tensor) -> Tensor:
        """Return the frames (N, 2, 3) of positions (N, 2), scales (N,) and (cosine, sine) (N, 2)."""
        cosine, sine = orientation.unbind(1)
        cosine = torch.where((cosine == 0) & (sine == 0), cosine + 1, cosine)  # atan2(0, 0) has no gradient
        # y points down, kornia's angles run counter-clockwise
        angle = -torch.rad2deg(torch.atan2(sine, cosine))
        frames: Tensor = laf_from_center_scale_ori(
            xy[None], (LAF_SCALE * scale)[None, :, None, None], angle[None, :, None]
        )[0]
        return frames
