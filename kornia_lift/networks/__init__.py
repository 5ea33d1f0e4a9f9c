"""LIFT's three networks and the compact ones, each beside its fast CPU path in ``_fast``: no files, no losses."""

from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse

__all__ = [
    "CompactDescriptor",
    "LIFTDescriptor",
    "LIFTOrientation",
    "LIFTResponse",
    "PolarOrientation",
]
