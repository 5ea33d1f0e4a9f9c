"""The response network of a model, and the scale space that suits a response."""

from __future__ import annotations

import os

from kornia.feature import PassLAF
from torch import nn

from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.networks._fast.folded import Precision, product_dtype
from kornia_lift.networks.compact_response import CompactResponse
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.weights import load_tensors

LOCALIZATION = "localization."  # prefix of the tensors of a network that some models have
OWN_TENSORS = "response.at_eighth."  # prefix of tensors that only the compact response has


def response_of(
    pretrained: bool | str | os.PathLike[str], precision: Precision = "auto"
) -> LIFTResponse | CompactResponse:
    """Build the response of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights the network is LIFT's.
        precision: number format of the compact response's products on a CPU; LIFT's are in float32.

    """
    product_dtype(precision)  # refuses an unknown one, which LIFT's response would ignore
    if not isinstance(pretrained, (str, os.PathLike)):
        return LIFTResponse(pretrained)  # which refuses anything else
    compact = has_compact_response(pretrained)
    return CompactResponse(pretrained, precision=precision) if compact else LIFTResponse(pretrained)


def has_compact_response(pretrained: str | os.PathLike[str]) -> bool:
    """Return whether a model has the compact response, which may belong to either family of models."""
    return any(name.startswith(OWN_TENSORS) for name in load_tensors(pretrained)[0])


def has_localization(pretrained: bool | str | os.PathLike[str]) -> bool:
    """Return whether a model has a network that corrects keypoints."""
    return any(name.startswith(LOCALIZATION) for name in load_tensors(pretrained)[0])


def localizer_of(pretrained: bool | str | os.PathLike[str], precision: Precision = "auto") -> LAFLocalizer | PassLAF:
    """Build what corrects the keypoints of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights it is ``PassLAF``.
        precision: number format of the products on a CPU.

    """
    if pretrained is False or not has_localization(pretrained):
        return PassLAF()
    assert not isinstance(pretrained, bool)
    return LAFLocalizer(KeypointLocalization(pretrained, precision=precision))


def scale_space_for(response: nn.Module, *, localized: bool = False) -> ScaleSpaceConfig:
    """Return the scale space in which a response is searched unless another one is asked for.

    Args:
        response: the response.
        localized: whether a network corrects the scales: two levels per octave are then enough.

    """
    return _scale_space(isinstance(response, CompactResponse), localized)


def scale_space_of(pretrained: str | os.PathLike[str]) -> ScaleSpaceConfig:
    """Return the scale space of a model's detector, as :func:`scale_space_for` does, without building its networks."""
    return _scale_space(has_compact_response(pretrained), has_localization(pretrained))


def _scale_space(compact: bool, localized: bool) -> ScaleSpaceConfig:
    if compact:
        return ScaleSpaceConfig.compact()
    return ScaleSpaceConfig(levels_per_octave=2) if localized else ScaleSpaceConfig()
