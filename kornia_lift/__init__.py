"""LIFT, the Learned Invariant Feature Transform (Yi et al., ECCV 2016), for kornia."""

from kornia_lift._version import __version__
from kornia_lift.descriptor import LIFTDescriptor
from kornia_lift.orientation import LIFTOrientation
from kornia_lift.response import LIFTResponse

__all__ = [
    "LIFTDescriptor",
    "LIFTOrientation",
    "LIFTResponse",
    "__version__",
]
