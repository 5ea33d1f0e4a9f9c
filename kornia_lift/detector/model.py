"""The parts of a model's detector: its response, its scale space, and what corrects its keypoints."""

from __future__ import annotations

import os

from kornia.feature import PassLAF

from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.detector.scale_space import LEVEL_SIGMA, ScaleSpaceConfig
from kornia_lift.networks._fast.folded import IntegerPrecision
from kornia_lift.networks._fast.quantized import known_precision
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.weights import has_part

Model = bool | str | os.PathLike[str]
Response = LIFTResponse | DenseResponse

#: Of a dense response, which sees its surroundings at several resolutions itself: three levels in an octave.
DENSE_SCALE_SPACE = ScaleSpaceConfig(
    min_sigma=LEVEL_SIGMA, max_sigma=2 * LEVEL_SIGMA, levels_per_octave=2, nms_radius=3
)
DENSE_PASSES = 2  # of the localizer: frames of few scales are far from the sizes of the keypoints


def has_dense_response(pretrained: Model) -> bool:
    """Return whether a model scores pixels by a :class:`~kornia_lift.networks.dense_response.DenseResponse`."""
    return not isinstance(pretrained, bool) and has_part(pretrained, "response.head")


def response_of(pretrained: Model) -> Response:
    """Build the response of a model, see :class:`~kornia_lift.LIFTFeature`; without weights it is LIFT's."""
    return DenseResponse(pretrained) if has_dense_response(pretrained) else LIFTResponse(pretrained)


def has_localization(pretrained: Model) -> bool:
    """Return whether a model has a network that corrects keypoints."""
    return has_part(pretrained, "localization")


def localizer_of(pretrained: Model, precision: IntegerPrecision = "auto") -> LAFLocalizer | PassLAF:
    """Build what corrects the keypoints of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights it is ``PassLAF``.
        precision: number format of the products on a CPU.

    """
    known_precision(precision)  # refuses an unknown one, also where no network would use it
    if pretrained is False or not has_localization(pretrained):
        return PassLAF()
    assert not isinstance(pretrained, bool)
    passes = DENSE_PASSES if has_dense_response(pretrained) else 1
    return LAFLocalizer(KeypointLocalization(pretrained, precision=precision), passes)


def default_scale_space(response: object, localized: bool) -> ScaleSpaceConfig:
    """Return the scale space that suits a response.

    Args:
        response: scores the pixels of a level.
        localized: whether a network corrects the keypoints: two levels per octave are then enough.

    """
    if isinstance(response, DenseResponse):
        return DENSE_SCALE_SPACE
    return ScaleSpaceConfig(levels_per_octave=2) if localized else ScaleSpaceConfig()


def scale_space_of(pretrained: str | os.PathLike[str]) -> ScaleSpaceConfig:
    """Return the scale space of a model's detector, without building its networks."""
    if has_dense_response(pretrained):
        return DENSE_SCALE_SPACE
    return default_scale_space(None, has_localization(pretrained))
