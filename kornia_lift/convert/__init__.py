"""Readers of published weights, from the user's own copy; none of these weights come with the package.

They are for academic, non-commercial use: read the licence of what you convert.
"""

from kornia_lift.convert.converted import convert, load_converted
from kornia_lift.convert.deepdesc import load_deepdesc
from kornia_lift.convert.learned_orientation import LearnedOrientation, load_learned_orientation
from kornia_lift.convert.lift_h5 import load_lift_descriptor
from kornia_lift.convert.tilde import TILDEResponse, tilde_channels
from kornia_lift.convert.tilde_files import load_tilde

__all__ = [
    "LearnedOrientation",
    "TILDEResponse",
    "convert",
    "load_converted",
    "load_deepdesc",
    "load_learned_orientation",
    "load_lift_descriptor",
    "load_tilde",
    "tilde_channels",
]
