"""LIFT's three networks, each beside its fast CPU path in ``_fast``: no files, no losses."""

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse

__all__ = ["LIFTDescriptor", "LIFTOrientation", "LIFTResponse"]
