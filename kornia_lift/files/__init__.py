"""Feature files: hloc's h5 layout, read, written and merged."""

from kornia_lift.files.h5 import FeatureFileError
from kornia_lift.files.hloc import UnreadableImageError
from kornia_lift.files.lock import FileInUseError
from kornia_lift.files.merge import Merged, merge_feature_files
from kornia_lift.files.reader import FeatureReader
from kornia_lift.files.writer import FeatureFile

__all__ = [
    "FeatureFile",
    "FeatureFileError",
    "FeatureReader",
    "FileInUseError",
    "Merged",
    "UnreadableImageError",
    "merge_feature_files",
]
