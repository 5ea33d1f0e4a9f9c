"""Options of the recipe that trains LF-Net."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.photometric import Photometric, ValidationPhotometric, as_in_use
from kornia_lift.training.data.posed_pairs import PairConfig
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.lfnet.losses import LARGEST_POOL
from kornia_lift.training.limits import check_limits

SMALLEST = 64  # side of the images: a border of 16 pixels on each side has no keypoints


@dataclass(frozen=True)
class ViewPairConfig:
    """How pairs of views are drawn: two images of a scene, or an image and a synthetic warp of it.

    Args:
        size: side of the square views in pixels.
        pairs_per_batch: pairs of views of a batch.
        tracked: share of the pairs that are two images of a scene, where there are scenes; the others are an image and
            a synthetic warp of it.
        min_step: finest resolution, in pixels of the stored image per pixel.
        max_step: coarsest one.
        scale: largest ratio of scale that is added between two views.
        rotation: largest rotation that is added, degrees.
        reach: pixels around a common point of a scene in which its local similarity is taken for the warp.
        epipolar: largest distance of the warped position from the epipolar line, pixels.
        photometric: how the illumination of both views is changed.
        validation_photometric: photometric augmentation of the held-out data, as in use by default; ``"training"`` for
            that of the training data.
        pairs: which pairs of images of a scene.
        validation_pairs: pairs of the validation.

    """

    size: int = 256
    pairs_per_batch: int = 6
    tracked: float = 0.5
    min_step: float = 0.8
    max_step: float = 3.0
    scale: float = 1.414
    rotation: float = 180.0
    reach: float = 12.0
    epipolar: float = 1.5
    photometric: Photometric = field(default_factory=Photometric)
    validation_photometric: ValidationPhotometric = field(default_factory=as_in_use)
    pairs: PairConfig = field(default_factory=PairConfig)
    validation_pairs: int = 16

    def __post_init__(self) -> None:
        check_limits(self, "size", at_least=SMALLEST)
        check_limits(self, "pairs_per_batch", "validation_pairs", at_least=1)
        check_limits(self, "tracked", at_least=0, at_most=1)
        check_limits(self, "min_step", "reach", "epipolar", above=0)
        check_limits(self, "max_step", at_least=self.min_step)
        check_limits(self, "scale", at_least=1)
        check_limits(self, "rotation", at_least=0, at_most=180)


@dataclass(frozen=True)
class LFNetConfig(ViewPairConfig):
    """Options of the recipe; the weights of the losses are those of the authors' code.

    The views are pairs of square images, see :class:`ViewPairConfig`.

    Args:
        keypoints: keypoints of an image, and impulses of a target.
        score: weight of the distance of the score from its target.
        pair: weight of the distance of descriptors, in the loss of the detector.
        orientation: weight of the consistency of orientations.
        consistent_scale: weight of the consistency of scales.
        margin: of the triplet loss.
        apart: positives within this many pixels of one's own are not used as negatives.
        pool: of how many of the hardest negatives one is drawn at first.
        pool_rate: factor by which this number, which never falls below 5, shrinks per 1000 steps: 0.81 as in the
            authors' code; 0.55 as in their paper, for a run of a few thousand steps.
        posed: folders of scenes with depth maps to train on as well (``cameras.npz``, ``images/``, ``depth/``;
            scans of DTU; ``dense0`` of MegaDepth).
        correct_within: pixels within which a match is correct, in the validation.
        lfnet: the loop of the only stage.
        split: what is held out.
        seed: of the initial weights.

    """

    keypoints: int = 512
    score: float = 1.0
    pair: float = 0.01
    orientation: float = 0.1
    consistent_scale: float = 0.1
    margin: float = 1.0
    apart: float = 32.0
    pool: int = LARGEST_POOL
    pool_rate: float = 0.81
    posed: tuple[Path, ...] = ()
    correct_within: float = 5.0
    lfnet: LoopConfig = field(default_factory=lambda: LoopConfig(steps=50_000, validate_every=1000))
    split: SplitConfig = field(default_factory=SplitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, "keypoints", at_least=2)
        check_limits(self, "correct_within", above=0)
        check_limits(self, "pool", at_least=5, at_most=LARGEST_POOL)
        check_limits(self, "pool_rate", above=0, at_most=1)
        weights = ("score", "pair", "orientation", "consistent_scale", "margin", "apart")
        check_limits(self, *weights, "seed", at_least=0)
