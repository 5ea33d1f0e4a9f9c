"""Options of the training of the correspondence network."""

from __future__ import annotations

from dataclasses import dataclass, field

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.losses import LABEL_THRESHOLD
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Options of the recipe; the defaults are those of the authors' code, but for the number of steps.

    Args:
        keypoints: keypoints of an image.
        min_shared: pairs of images share at least this many points of the reconstruction.
        max_pairs: pairs drawn from a scene, both orders counted, so that no scene outweighs the others.
        max_size: larger side of the images, pixels; larger ones are scaled down.
        pairs_per_batch: pairs of a batch.
        matches_per_pair: matches drawn from a pair; where there are fewer, the rest is padding.
        label_threshold: largest squared epipolar distance of an inlier, normalised coordinates.
        classification_weight: factor of the cross-entropy.
        essential_weight: factor of the distance of essential matrices.
        essential_from: step at which that distance sets in: the gradient of an eigenvector is unusable before the
            weights are.
        min_gap: pairs whose essential matrix is determined worse are left out of it, see
            :class:`~kornia_lift.geometry.epipolar.EightPoint`.
        loop: of the only stage.
        split: what is held out.
        seed: of the initial weights and of the choice of pairs.

    """

    keypoints: int = 2000
    min_shared: int = 100
    max_pairs: int = 1000
    max_size: int = 1024
    pairs_per_batch: int = 32
    matches_per_pair: int = 2000
    label_threshold: float = LABEL_THRESHOLD
    classification_weight: float = 1.0
    essential_weight: float = 0.1
    essential_from: int = 20_000
    min_gap: float = 1e-6
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=500_000, validate_every=5000))
    split: SplitConfig = field(default_factory=SplitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = ("keypoints", "min_shared", "max_pairs", "max_size", "pairs_per_batch")
        check_limits(self, *whole, at_least=1)
        check_limits(self, "matches_per_pair", at_least=8)
        check_limits(self, "label_threshold", above=0)
        check_limits(self, "classification_weight", "essential_weight", "essential_from", "min_gap", at_least=0)
