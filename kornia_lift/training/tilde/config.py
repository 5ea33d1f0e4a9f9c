"""Options of TILDE's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class TildeConfig:
    """Options of the stage; the sizes of the filters are those of the release.

    Args:
        num_sum: maxima in the signed sum.
        num_max: filters in each maximum.
        channels: 1, gray, or 6, gradients and colours.
        filter_size: side of the filters in pixels, odd.
        keypoints: keypoints of an image from which positives are taken.
        repeated: share of the images of a stack in which a location must be found to be a positive.
        within: pixels within which it counts as found again.
        locations: positives of a stack, those that repeat most.
        apart: least distance of negatives from every keypoint of the stack, pixels.
        locations_per_batch: number of positives, and of negatives, in a batch.
        images_per_location: images of the stack in which each is seen.
        map_size: side of the score map around a positive whose shape is compared, odd.
        sharpness: of the peak, alpha.
        reach: of the peak, beta, pixels.
        classification: weight of the squared hinge.
        shape: weight of the shape.
        temporal: weight of the constancy over time.
        tilde: the loop; the filters see normalised channels.
        split: which stacks are held out.
        seed: of the initial filters.

    """

    num_sum: int = 4
    num_max: int = 4
    channels: int = 6
    filter_size: int = 21
    keypoints: int = 500
    repeated: float = 0.5
    within: float = 3.0
    locations: int = 300
    apart: float = 10.0
    locations_per_batch: int = 32
    images_per_location: int = 2
    map_size: int = 15
    sharpness: float = 2.0
    reach: float = 4.0
    classification: float = 1.0
    shape: float = 1.0
    temporal: float = 1.0
    tilde: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2000, learning_rate=3e-4, validate_every=200))
    split: SplitConfig = field(default_factory=SplitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = ("num_sum", "num_max", "keypoints", "locations", "locations_per_batch")
        check_limits(self, *whole, at_least=1)
        check_limits(self, "images_per_location", at_least=2)
        check_limits(self, "repeated", above=0, at_most=1)
        check_limits(self, "within", "sharpness", "reach", above=0)
        check_limits(self, "apart", "classification", "shape", "temporal", "seed", at_least=0)
        for name in ("filter_size", "map_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")
        if self.channels not in (1, 6):
            raise ValueError(f"channels must be 1 or 6, got {self.channels}")
