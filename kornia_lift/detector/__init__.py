"""From an image to keypoints: the scale space, maxima of the score in it, and their refinement (paper Sec. 3.6)."""

from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.scale_space import ScaleSpaceConfig

__all__ = ["LIFTDetector", "ScaleSpaceConfig"]
