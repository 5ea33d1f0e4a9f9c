"""Options of the compact recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kornia_lift.training.compact.copies import CopyConfig
from kornia_lift.training.compact.dense.config import DenseConfig
from kornia_lift.training.compact.detections import DetectionConfig
from kornia_lift.training.compact.observations import ViewConfig
from kornia_lift.training.compact.response.stage import SCALE_CROPS
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.photometric import Photometric, ValidationPhotometric, as_in_use
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.warped.degraded import DegradedCrops
from kornia_lift.training.warped.homographies import CropConfig


def _loop(steps: int, rate: float, **more: Any) -> LoopConfig:
    base: dict[str, Any] = {
        "optimizer": "adamw",
        "schedule": "linear",
        "warmup_steps": 30,
        "weight_decay": 1e-4,
        "precision": "bfloat16",
        "ema_decay": 0.99,
        "validate_every": 200,
        "checkpoint_every": 50,
        "prefetch": True,
    }
    return LoopConfig(steps=steps, learning_rate=rate, **(base | more))


@dataclass(frozen=True)
class CompactConfig:
    """Options of the compact recipe.

    Args:
        detector: model whose response the result has: the name of a shipped one, or a weight file. A run that starts
            from weights has theirs.
        small: make the smaller forms of localization, orientation and descriptor, those of ``lift-plus``; a run that
            starts from weights keeps their forms.
        train_response: train that response further, as the first stage, where no stages are named.
        response_matcher: model whose orientation and descriptor say meanwhile which keypoints are matched correctly;
            a name or a file, as for ``detector``. Empty: keypoints only have to be found again.
        response_crops: how pairs of crops for the response are drawn.
        response_photometric: photometric augmentation of the crops.
        response_degraded: share of the crops that are strongly compressed, blurred or dark.
        response_shapes: drawn images of lines and polygons among those of the crops, whose edges are not found again.
        response_images: images of a batch, each with several pairs of crops.
        dense: how a dense response is trained, that of ``lift-dense``; the other options of the response are for
            LIFT's.
        views: which locations are used, and at which sizes.
        use_detections: locations of scenes with cameras are also the keypoints that ``detector`` finds there.
        detections: which of them are paired.
        copies: how images are warped for the localization, whose keypoints are those of the image and of its copies.
        localization_photometric: photometric augmentation of its patches.
        localization_images: images of a localization batch.
        localization_pairs: pairs of each.
        localization_jitter: standard deviation by which frames are moved, in sigmas, and rescaled, logarithmic.
        shape_copies: how images are warped for the affine shapes: more strongly stretched than for the localization.
        shape_photometric: photometric augmentation of their patches.
        shape_images: images of a batch of shapes.
        shape_pairs: pairs of each.
        shape_jitter: standard deviation by which frames are moved, in sigmas, and rescaled, logarithmic.
        orientation_warp: noise of the frames and photometric augmentation for the orientation, whose angles are exact.
        descriptor_warp: the same for the descriptor.
        refine_warp: the same for its second stage, where most of the error of the angle is the orientation's own.
        validation_photometric: photometric augmentation of the held-out data, as in use by default; ``"training"`` for
            that of the training data.
        context: side of the region that the orientation sees over that of the described one.
        tolerance: within which two angles agree, radians, about a standard deviation. A narrower one makes estimates
            more precise but leaves as many entirely wrong; the descriptor tolerates 20 degrees, not 90.
        orientation_images: images of an orientation batch.
        orientation_pairs: pairs of each.
        descriptor_images: images of a descriptor batch.
        descriptor_pairs: pairs of each, look-alikes among which the hardest negative is found.
        margin: of the descriptor's loss.
        response: loop of the response stage.
        localization: loop of the localization stage.
        orientation: loop of the orientation stage.
        descriptor: loop of the descriptor's first stage, with random angle errors.
        refine_upright: share of the images that this stage takes upright.
        refine_coarse: share of the locations in these whose views have an angle error of their own.
        refine_angle: standard deviation of that error, radians.
        refine: loop of its second stage, at the angles of the trained orientation.
        shape: loop of the affine shapes.
        split: what is held out.
        use_posed: use scenes with depth maps too, where there are any. Without, castle-P30 of our data is left as a
            development set that shares nothing with the training.
        seed: seed of the initial weights.

    """

    detector: str = "lift"
    small: bool = False
    train_response: bool = False
    response_matcher: str = "lift-plus"
    response_crops: CropConfig = SCALE_CROPS
    response_photometric: Photometric = field(
        default_factory=lambda: Photometric(
            gain=1.4, gamma=1.4, offset=0.08, noise=0.01, blur=0.5, shadow=0.1, jpeg=0.05, jpeg_quality=60
        )
    )
    response_degraded: DegradedCrops = field(default_factory=DegradedCrops)
    response_shapes: int = 110
    response_images: int = 3
    dense: DenseConfig = field(default_factory=DenseConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    use_detections: bool = True
    detections: DetectionConfig = field(default_factory=DetectionConfig)
    copies: CopyConfig = field(default_factory=CopyConfig)
    localization_photometric: Photometric = field(
        default_factory=lambda: Photometric(gain=1.4, gamma=1.3, noise=0.015, blur=0.5, shadow=0.1, jpeg=0.0)
    )
    localization_images: int = 6
    localization_pairs: int = 96
    localization_jitter: float = 0.15
    shape_copies: CopyConfig = field(
        default_factory=lambda: CopyConfig(
            warp=CropConfig(size=1000, scale=1.5, stretch=3.0, perspective=0.125, shift=0.0)
        )
    )
    shape_photometric: Photometric = field(
        default_factory=lambda: Photometric(gain=1.4, gamma=1.3, noise=0.015, blur=0.5, shadow=0.1, jpeg=0.0)
    )
    shape_images: int = 6
    shape_pairs: int = 64
    shape_jitter: float = 0.05
    orientation_warp: WarpConfig = field(
        default_factory=lambda: WarpConfig(
            angle=0.0, shift=0.04, gain=1.5, noise=0.01, blur=0.4, shadow=0.1, jpeg=0.1, jpeg_quality=50
        )
    )
    descriptor_warp: WarpConfig = field(
        # blur in pixels of a patch of half the size, and no quality so low that nothing is left of 32 pixels
        default_factory=lambda: WarpConfig(angle=0.07, noise=0.02, blur=0.5, jpeg_quality=40)
    )
    refine_warp: WarpConfig = field(
        default_factory=lambda: WarpConfig(
            angle=0.03, scale=1.3, shift=0.06, noise=0.015, blur=0.5, jpeg=0.1, jpeg_quality=40
        )
    )
    validation_photometric: ValidationPhotometric = field(default_factory=as_in_use)
    context: float = 1.5
    tolerance: float = 0.3
    orientation_images: int = 12
    orientation_pairs: int = 24
    descriptor_images: int = 3
    descriptor_pairs: int = 144
    margin: float = 1.0
    refine_upright: float = 0.45
    refine_coarse: float = 0.3
    refine_angle: float = 0.12
    response: LoopConfig = field(
        default_factory=lambda: _loop(
            1000, 4e-4, schedule="cosine", weight_decay=0.0, clip_norm=1.0, validate_every=100, prefetch=False
        )
    )
    localization: LoopConfig = field(default_factory=lambda: _loop(3000, 3e-3, validate_every=100))
    orientation: LoopConfig = field(default_factory=lambda: _loop(2000, 3e-3))
    descriptor: LoopConfig = field(default_factory=lambda: _loop(2000, 3e-3))
    refine: LoopConfig = field(default_factory=lambda: _loop(600, 1.5e-3))
    shape: LoopConfig = field(default_factory=lambda: _loop(4000, 3e-3))
    split: SplitConfig = field(default_factory=SplitConfig)
    use_posed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "context", "tolerance", "margin", above=0)
        check_limits(self, "refine_upright", "refine_coarse", at_least=0, at_most=1)
        check_limits(self, "refine_angle", at_least=0)
        counts = ("orientation_images", "orientation_pairs", "localization_images", "localization_pairs")
        check_limits(self, *counts, "descriptor_images", "response_images", "shape_images", "shape_pairs", at_least=1)
        check_limits(self, "localization_jitter", "shape_jitter", "response_shapes", "seed", at_least=0)
        check_limits(self, "descriptor_pairs", at_least=2)
