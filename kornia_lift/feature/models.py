"""The feature of a model: LIFT's or LF-Net's, depending on its weights."""

from __future__ import annotations

import os

from kornia_lift.feature.lfnet import LFNetFeature
from kornia_lift.feature.lift import LIFTFeature
from kornia_lift.weights import network_family


def feature_of(
    pretrained: str | os.PathLike[str], num_features: int = 1000, upright: bool | None = None, *, affine: bool = False
) -> LIFTFeature:
    """Build the feature of a model, in eval mode.

    Args:
        pretrained: name of a shipped model (``"lift-plus"``, ``"lf-net"``, ...), or path of a ``.safetensors`` file.
        num_features: number of slots in the output; the best keypoints are kept.
        upright: leave the frames upright, see :class:`~kornia_lift.LIFTFeature`.
        affine: give the frames an affine shape, see :class:`~kornia_lift.LIFTFeature`; not for ``"lf-net"``.

    Raises:
        ValueError: if there is no such model, or ``affine`` is given for ``"lf-net"``.
        FileNotFoundError: if there is no such file.

    Example:
        >>> feature_of("lf-net", 50)(torch.rand(1, 1, 96, 128))[2].shape
        torch.Size([1, 50, 256])

    """
    if network_family(pretrained) != "lfnet":
        return LIFTFeature(num_features, upright, pretrained=pretrained, affine=affine)
    if affine:
        raise ValueError(
            f"affine is for upright frames, got the weights {str(pretrained)!r} of LF-Net, whose frames get their "
            "scale and orientation from its detector: leave affine out, or take lift-dense"
        )
    return LFNetFeature(num_features, pretrained, upright=bool(upright))
