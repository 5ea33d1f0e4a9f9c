"""Options of the training of the correspondence network."""

from __future__ import annotations

from dataclasses import dataclass, field

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.losses import LABEL_THRESHOLD
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class AugmentationConfig:
    """How the matches of a pair are varied. The true essential matrix follows, so nothing here makes labels wrong.

    Args:
        mirror: share of the pairs that are mirrored left to right, both images.
        roll: rotation of each camera about its axis, degrees, standard deviation.
        any_roll: share of the pairs whose cameras are rotated about their axes by any angle instead.
        tilt: rotation of each camera about an axis in its image, degrees, standard deviation.
        focal: change of the focal length of both, standard deviation of its logarithm.
        focal_apart: change of the focal length of one against the other, likewise.
        fewer_inliers: share of the pairs of which a part of the inliers is left out, between none and 95 %.
        fewer_outliers: share of the pairs of which a part of the outliers is left out, likewise.
        mutual_only: share of the pairs of which only mutual matches are taken.

    """

    mirror: float = 0.5
    roll: float = 10.0
    any_roll: float = 0.2
    tilt: float = 4.0
    focal: float = 0.15
    focal_apart: float = 0.05
    fewer_inliers: float = 0.4
    fewer_outliers: float = 0.2
    mutual_only: float = 0.25

    def __post_init__(self) -> None:
        shares = ("mirror", "any_roll", "fewer_inliers", "fewer_outliers", "mutual_only")
        check_limits(self, *shares, at_least=0, at_most=1)
        check_limits(self, "roll", "tilt", "focal", "focal_apart", at_least=0)


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Options of the recipe; the defaults are those of the authors' code, but for the number of steps.

    Args:
        keypoints: keypoints of an image.
        min_shared: pairs of images share at least this many points of the reconstruction.
        max_pairs: largest number of pairs drawn from a scene, both orders counted: no scene outweighs the others.
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
        channels: width of the network.
        blocks: residual blocks of the network.
        side: the network also sees ratio and mutuality of a match; not in the paper.
        augmentation: how matches are varied; ``None``, as in the paper, takes them as they are.
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
    channels: int = 128
    blocks: int = 12
    side: bool = False
    augmentation: AugmentationConfig | None = None
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=500_000, validate_every=5000))
    split: SplitConfig = field(default_factory=SplitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = ("keypoints", "min_shared", "max_pairs", "max_size", "pairs_per_batch", "channels", "blocks")
        check_limits(self, *whole, at_least=1)
        check_limits(self, "matches_per_pair", at_least=8)
        check_limits(self, "label_threshold", above=0)
        weights = ("classification_weight", "essential_weight", "essential_from", "min_gap")
        check_limits(self, *weights, "seed", at_least=0)
