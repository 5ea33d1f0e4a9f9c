"""From an image to oriented, described keypoints: the pipeline, its patch stages, and parts of other methods in it."""

from kornia_lift.feature.extract import extract_features, shrink
from kornia_lift.feature.lift import LIFTFeature

__all__ = ["LIFTFeature", "extract_features", "shrink"]
