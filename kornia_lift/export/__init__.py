"""Features in the formats of other programs."""

from kornia_lift.export.hloc import FeatureFile, FeatureFileError, merge_feature_files

__all__ = ["FeatureFile", "FeatureFileError", "merge_feature_files"]
