"""Options of the modern recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.networks.contrast import LocalContrast
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.photometric import Photometric, ValidationPhotometric, as_in_use
from kornia_lift.training.data.posed_pairs import PairConfig
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.modern.tracks import CutConfig
from kornia_lift.training.warped.homographies import CropConfig


def _loop(steps: int, rate: float, **more: Any) -> LoopConfig:
    base: dict[str, Any] = {
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup_steps": 50,
        "precision": "bfloat16",
        "ema_decay": 0.995,
        "validate_every": 200,
        "checkpoint_every": 100,
        "clip_norm": 5.0,
        "prefetch": True,
    }
    return LoopConfig(steps=steps, learning_rate=rate, **(base | more))


@dataclass(frozen=True)
class ModernConfig:
    """Options of the modern recipe.

    Args:
        cut: how locations are chosen for the patch stages.
        descriptor_warp: noise of frames and photometric augmentation for the descriptor.
        orientation_warp: the same for the orientation, whose angles must be exact.
        images_per_batch: images from which a descriptor batch is drawn.
        anchors_per_image: pairs per image.
        refine_images: images of a batch of the second descriptor stage: fewer, with more look-alikes from each.
        refine_anchors: pairs per image of that stage.
        margin: of the descriptor's loss.
        blob_strength: size of the blob filter from which the response starts.
        detector_images: images of a detector batch, each with several crops.
        contrast: how the response normalises local contrast; ``None`` as in the paper.
        tolerance: standard deviation, in pixels, of where the repeatable stage wants a keypoint again.
        scale_space: the run-time detector whose detections the matchable stage ranks.
        candidates: detections ranked per image.
        pairs: which pairs of images of reconstructed scenes the matchable stage uses, and when a match is correct.
        warped_pairs: pairs of warped crops that it uses beside them, of single images and of exposures.
        ranking_weight: factor of its ranking loss; that of the repeatability is 1.
        crops: how pairs of crops are drawn for the repeatability.
        shapes: drawn images of lines and polygons among those of the crops, which teach that edges are not found again.
        crop_photometric: photometric augmentation of crops.
        validation_photometric: photometric augmentation of the held-out data, as in use by default; ``"training"`` for
            that of the training data.
        views: how the larger pairs of the matchable stage are drawn.
        descriptor: loop of the first descriptor stage.
        orientation: loop of the orientation stage.
        repeatable: loop of the detector's first stage.
        matchable: loop of the detector's second stage.
        refine: loop of the descriptor's second stage, on frames rotated by the trained orientation.
        split: what is held out: the declared scenes and images of the data of the shipped weights; of anyone
            else's data a share of each kind, drawn by the seed.
        use_posed: use scenes with depth maps too, where there are any. Without, castle-P30 of our data is left as a
            development set that shares nothing with the training.
        seed: seed of the initial weights.

    """

    cut: CutConfig = field(default_factory=CutConfig)
    descriptor_warp: WarpConfig = field(default_factory=WarpConfig)
    orientation_warp: WarpConfig = field(default_factory=lambda: WarpConfig(angle=0.0, shift=0.04))
    images_per_batch: int = 8
    anchors_per_image: int = 32
    refine_images: int = 4
    refine_anchors: int = 64
    margin: float = 0.25
    blob_strength: float = 80.0
    detector_images: int = 4
    contrast: LocalContrast | None = field(default_factory=LocalContrast)
    tolerance: float = 0.7
    scale_space: ScaleSpaceConfig = field(default_factory=ScaleSpaceConfig)
    candidates: int = 1200
    pairs: PairConfig = field(default_factory=PairConfig)
    warped_pairs: int = 40
    ranking_weight: float = 0.2
    crops: CropConfig = field(default_factory=CropConfig)
    shapes: int = 50
    crop_photometric: Photometric = field(default_factory=Photometric)
    validation_photometric: ValidationPhotometric = field(default_factory=as_in_use)
    views: CropConfig = field(
        default_factory=lambda: CropConfig(size=480, per_image=1, min_step=1.0, max_step=2.0, scale=1.6)
    )
    descriptor: LoopConfig = field(default_factory=lambda: _loop(2000, 1e-3, weight_decay=1e-4))
    orientation: LoopConfig = field(default_factory=lambda: _loop(3000, 5e-4, weight_decay=1e-3))
    repeatable: LoopConfig = field(default_factory=lambda: _loop(2000, 5e-3, clip_norm=None, precision="float32"))
    matchable: LoopConfig = field(default_factory=lambda: _loop(2000, 2e-3, clip_norm=None, precision="float32"))
    refine: LoopConfig = field(default_factory=lambda: _loop(2000, 8e-4, weight_decay=1e-4))
    split: SplitConfig = field(default_factory=SplitConfig)
    use_posed: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(
            self, "images_per_batch", "refine_images", "detector_images", "candidates", "warped_pairs", at_least=1
        )
        check_limits(self, "anchors_per_image", "refine_anchors", at_least=2)
        check_limits(self, "margin", "blob_strength", "tolerance", above=0)
        check_limits(self, "ranking_weight", "shapes", "seed", at_least=0)
