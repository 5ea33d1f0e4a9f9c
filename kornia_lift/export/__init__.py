"""Features in the formats of other programs."""

from kornia_lift.export._h5 import FeatureFileError
from kornia_lift.export._lock import FileInUseError
from kornia_lift.export.hloc import FeatureFile
from kornia_lift.export.merge import Merged, merge_feature_files

__all__ = ["FeatureFile", "FeatureFileError", "FileInUseError", "Merged", "merge_feature_files"]
