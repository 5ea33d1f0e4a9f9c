"""Options of the stage that trains a dense response."""

from __future__ import annotations

from dataclasses import dataclass, field

from kornia_lift.training.lfnet.config import ViewPairConfig
from kornia_lift.training.limits import check_limits
from kornia_lift.training.warped.degraded import DegradedCrops


@dataclass(frozen=True)
class DenseConfig(ViewPairConfig):
    """Options of the stage; ``rotation`` holds for half of the pairs, on average.

    Args:
        slight: largest rotation that is added to the other pairs, degrees.
        fewest: smallest number of keypoints of a million pixels that both views show.
        most: largest such number; drawn for every pair.
        radius: of the suppression, pixels.
        soft_radius: of the soft suppression in the loss. Two keypoints are farther apart than that, so with a tolerance
            below half of it none of the other view can serve both.
        tolerance: standard deviation of where a keypoint may be found again, pixels.
        degraded: share of the views that are degraded, and how much.

    """

    size: int = 192
    tracked: float = 0.6
    validation_pairs: int = 48
    slight: float = 25.0
    fewest: float = 650.0
    most: float = 2700.0
    radius: int = 3
    soft_radius: int = 4
    tolerance: float = 1.0
    degraded: DegradedCrops = field(default_factory=lambda: DegradedCrops(share=0.25))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, "slight", at_least=0, at_most=180)
        check_limits(self, "fewest", "tolerance", above=0)
        check_limits(self, "most", at_least=self.fewest)
        check_limits(self, "radius", "soft_radius", at_least=1)
