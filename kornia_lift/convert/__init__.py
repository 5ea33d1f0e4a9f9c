"""Readers of published weights, from the user's own copy; none of these weights come with the package.

They are for academic, non-commercial use: read the licence of what you convert.
"""

from kornia_lift.convert.deepdesc import load_deepdesc
from kornia_lift.convert.lift_h5 import load_lift_descriptor

__all__ = ["load_deepdesc", "load_lift_descriptor"]
