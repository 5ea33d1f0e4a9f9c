"""LIFT frames and kornia's LAFs, crops, rotations and softargmax in patch units; epipolar geometry of matches."""

from kornia_lift.geometry.frames import (
    BIG_SIZE,
    CROP_RATIO,
    DESCRIPTOR_HALF_SUPPORT,
    DESCRIPTOR_SIZE,
    DETECTOR_HALF_SUPPORT,
    DETECTOR_SIZE,
    LAF_SCALE_PER_SIGMA,
    crop_rotate,
    lafs_from_lift,
    level_resize,
    lift_from_lafs,
    patch_score,
    rotation_matrix,
    softargmax,
    softargmax_margin,
)

__all__ = [
    "BIG_SIZE",
    "CROP_RATIO",
    "DESCRIPTOR_HALF_SUPPORT",
    "DESCRIPTOR_SIZE",
    "DETECTOR_HALF_SUPPORT",
    "DETECTOR_SIZE",
    "LAF_SCALE_PER_SIGMA",
    "crop_rotate",
    "lafs_from_lift",
    "level_resize",
    "lift_from_lafs",
    "patch_score",
    "rotation_matrix",
    "softargmax",
    "softargmax_margin",
]
