"""From an image to oriented, described keypoints: the pipeline, its patch stages, and parts of other methods in it."""

from kornia_lift.feature.extract import extract_features, shrink
from kornia_lift.feature.lfnet import LFNetFeature
from kornia_lift.feature.lift import LIFTFeature
from kornia_lift.feature.models import feature_of

__all__ = ["LFNetFeature", "LIFTFeature", "extract_features", "feature_of", "shrink"]
