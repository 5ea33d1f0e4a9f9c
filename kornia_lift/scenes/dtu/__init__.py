"""DTU's multi-view stereo data in their published layout."""

from kornia_lift.scenes.dtu.scan import DTUScan, decompose_projection, is_dtu_scan

__all__ = ["DTUScan", "decompose_projection", "is_dtu_scan"]
