"""How sources of training data are read."""

from __future__ import annotations

from dataclasses import dataclass

from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read.

    Args:
        max_size: larger side, in pixels, to which single images and exposures are scaled down. The images of scenes
            keep their size: their geometry refers to it.
        points_per_scene: largest number of locations of a scene; those that SIFT confirms come first.
        points_per_image: largest number of locations of a single image.
        quality: of the JPEG images.
        seed: of the choice of locations and of the regions without keypoint.

    """

    max_size: int = 1024
    points_per_scene: int = 6000
    points_per_image: int = 600
    quality: int = 88
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "max_size", at_least=64)
        check_limits(self, "points_per_scene", "points_per_image", at_least=2)
        check_limits(self, "quality", at_least=1, at_most=100)
        check_limits(self, "seed", at_least=0)
