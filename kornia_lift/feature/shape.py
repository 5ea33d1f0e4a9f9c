"""LAFShapeEstimator: affine shapes of frames, between the detector and the orientation."""

from __future__ import annotations

import math

import torch
from kornia.feature import scale_laf
from torch import Tensor, nn

from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks._fast.pyramid import of_patches
from kornia_lift.networks.shape import KeypointShape, stretch

CONTEXT = 2.0  # side of the region that the network sees, relative to that of the frame
STRENGTH = 0.5  # chosen on the development scenes, with the descriptor of lift-plus
CHUNK = 1024  # patches that exist at once
GRADIENT_CHUNK = 256  # the same while gradients are recorded


class LAFShapeEstimator(nn.Module):
    r"""Give frames an affine shape, with the interface of kornia's ``LAFAffineShapeEstimator``.

    In two views of a slanted surface, the frames then cover the same part of it. kornia's ``ScaleSpaceDetector`` takes
    it as ``aff_module``, :class:`~kornia_lift.LIFTFeature` as ``affine``.

    Args:
        network: patches (N, 1, S, S) -> (N, 2), see :class:`~kornia_lift.networks.shape.KeypointShape`. ``None``: with
            the weights that the package ships.
        strength: share of the stretch that is applied, logarithmic: 0 leaves the frames as they are, 1 undoes slants as
            well as the network can. Less than 1 suits descriptors that were trained on round regions.
        context: side of the region that the network sees, relative to that of the frame.

    Raises:
        ValueError: if ``strength`` is negative, or ``context`` not positive.

    Shape:
        - Input: LAFs (B, N, 2, 3); images (B, 1, H, W), or their :class:`~kornia_lift.geometry.pyramid.PatchPyramid`
        - Output: LAFs (B, N, 2, 3); empty slots, which have no extent, stay empty

    Convention:
        Position, area and orientation of a frame stay the same: the direction of its first row, which is what kornia's
        ``get_laf_orientation`` reads. So the vertical of an upright frame stays vertical.

    Example:
        >>> from kornia.feature import laf_from_center_scale_ori
        >>> lafs = laf_from_center_scale_ori(torch.tensor([[[40.0, 40.0]]]), torch.full((1, 1, 1, 1), 12.0))
        >>> LAFShapeEstimator()(lafs, torch.rand(1, 1, 80, 80)).shape
        torch.Size([1, 1, 2, 3])

    """

    def __init__(
        self, network: KeypointShape | None = None, strength: float = STRENGTH, context: float = CONTEXT
    ) -> None:
        super().__init__()
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength expects a number of at least 0, got {strength!r}")
        if not 0 < context < math.inf:
            raise ValueError(f"context expects a factor above 0, got {context!r}")
        self.network = KeypointShape(True) if network is None else network
        self.strength = float(strength)
        self.context = float(context)

    def extra_repr(self) -> str:
        return f"strength={self.strength}, context={self.context}"

    def forward(self, laf: Tensor, img: Tensor | PatchPyramid) -> Tensor:
        seen = scale_laf(laf, self.context)
        found = of_patches(self.network, self.network.patch_size, img, seen, CHUNK, GRADIENT_CHUNK)
        wide = laf.to(torch.promote_types(laf.dtype, torch.float32))  # half precision cannot hold squares of pixels
        axes = wide[..., :2]
        shaped = axes @ stretch(self.strength * found.to(wide.dtype))
        return torch.cat([_aligned(shaped, axes), wide[..., 2:]], -1).to(laf.dtype)


def _aligned(axes: Tensor, like: Tensor) -> Tensor:
    """Rotate frames (..., 2, 2) in their own coordinates so that their first rows point as those of others."""
    is_, should = axes[..., 0, :], like[..., 0, :]
    cosine = (is_ * should).sum(-1)
    sine = is_[..., 0] * should[..., 1] - is_[..., 1] * should[..., 0]
    squared = cosine.square() + sine.square()
    length = torch.where(squared > 0, squared, 1).sqrt()  # empty slots have no extent
    cosine, sine = cosine / length, sine / length
    rotation = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
    return axes @ rotation
