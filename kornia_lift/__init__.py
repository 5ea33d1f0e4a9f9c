"""LIFT, the Learned Invariant Feature Transform (Yi et al., ECCV 2016), for kornia."""

from kornia_lift._version import __version__
from kornia_lift.descriptor import LIFTDescriptor
from kornia_lift.detector import LIFTDetector
from kornia_lift.feature import LIFTFeature
from kornia_lift.mixing import mix_features
from kornia_lift.orientation import LIFTOrientation
from kornia_lift.response import LIFTResponse
from kornia_lift.scale_space import ScaleSpaceConfig

__all__ = [
    "LIFTDescriptor",
    "LIFTDetector",
    "LIFTFeature",
    "LIFTOrientation",
    "LIFTResponse",
    "ScaleSpaceConfig",
    "__version__",
    "mix_features",
]
