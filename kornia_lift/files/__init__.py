"""Features in the formats of other programs."""

from kornia_lift.files.h5 import FeatureFileError
from kornia_lift.files.hloc import FeatureFile
from kornia_lift.files.lock import FileInUseError
from kornia_lift.files.merge import Merged, merge_feature_files

__all__ = ["FeatureFile", "FeatureFileError", "FileInUseError", "Merged", "merge_feature_files"]
