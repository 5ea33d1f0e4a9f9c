"""MegaDepth: images of landmarks from the internet, with cameras and depth maps, in their published layout."""

from kornia_lift.scenes.megadepth.files import dense_folders, dense_name, is_dense_folder
from kornia_lift.scenes.megadepth.scene import MegaDepthScene

__all__ = ["MegaDepthScene", "dense_folders", "dense_name", "is_dense_folder"]
