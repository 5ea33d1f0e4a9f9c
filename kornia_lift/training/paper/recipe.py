"""Paper recipe: all stages in the paper's order, each from what the one before left (paper Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.photometric import ValidationPhotometric, as_in_use, for_validation
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.limits import check_limits
from kornia_lift.training.paper.descriptor import DescriptorOptions, PaperDescriptorStage
from kornia_lift.training.paper.detector import (
    DetectorOptions,
    JointStage,
    OverlapDetectorStage,
    PaperDetectorStage,
)
from kornia_lift.training.paper.orientation import OrientationOptions, PaperOrientationStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler, SyntheticView
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage


def _loop(steps: int, **more: Any) -> LoopConfig:
    return LoopConfig(steps=steps, **({"clip_norm": 10.0, "prefetch": True} | more))


@dataclass(frozen=True)
class PaperConfig:
    """Options of the paper's recipe. Optimiser and learning rate are those of the authors' TensorFlow code.

    Args:
        split: what is held out where no validation data are given.
        synthetic: second views of locations in single images.
        validation_photometric: photometric augmentation of the held-out data, as in use by default; ``"training"`` for
            that of the training data.
        pool3: the third pooling of the orientation network.
        dropout: of the orientation network, 0.3 in the authors' Theano code.
        orientation_statistics: gray values that the orientation network subtracts and divides by: ``"dataset"``, those
            of the training images (paper Sec. 3.2; the network then has to be built with ``mean=`` and ``std=``
            before its weights are loaded), or ``"patch"``, those of each patch, as the run-time network does.
        descriptor: loop of the descriptor stage.
        orientation: loop of the orientation stage.
        overlap: loop of the detector's pre-training.
        detector: loop of the detector through the frozen rest.
        joint: loop of the joint fine-tuning; the paper leaves it out since it over-fits.
        descriptor_options: of the descriptor stage.
        orientation_options: of the orientation stage.
        detector_options: of the detector stages and of the joint one.
        seed: of the initial weights.

    """

    split: SplitConfig = field(default_factory=SplitConfig)
    synthetic: SyntheticView = field(default_factory=SyntheticView)
    validation_photometric: ValidationPhotometric = field(default_factory=as_in_use)
    pool3: bool = True
    dropout: float = 0.3
    orientation_statistics: Literal["dataset", "patch"] = "patch"
    descriptor: LoopConfig = field(default_factory=lambda: _loop(20_000))
    orientation: LoopConfig = field(default_factory=lambda: _loop(10_000))
    overlap: LoopConfig = field(default_factory=lambda: _loop(5_000))
    detector: LoopConfig = field(default_factory=lambda: _loop(5_000))
    joint: LoopConfig = field(default_factory=lambda: _loop(1_000, learning_rate=1e-5))
    descriptor_options: DescriptorOptions = field(default_factory=DescriptorOptions)
    orientation_options: OrientationOptions = field(default_factory=OrientationOptions)
    detector_options: DetectorOptions = field(default_factory=DetectorOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "dropout", at_least=0, below=1)
        check_limits(self, "seed", at_least=0)


class PaperRecipe(Recipe[PaperConfig]):
    """The stages of the paper; see the base class.

    Args:
        data: training data.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where patches are cut and networks trained.
        init: weights to start from.

    """

    NAME = "paper"
    OPTIONS = PaperConfig
    STAGES = ("descriptor", "orientation", "overlap", "detector")
    OPTIONAL = ("joint",)
    TRAINS: ClassVar[Mapping[str, str]] = MappingProxyType({"overlap": "response", "detector": "response"})
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "orientation": ("descriptor",),
            "detector": ("descriptor", "orientation"),
            "joint": ("descriptor", "orientation", "detector"),
        }
    )

    response: LIFTResponse
    orientation: LIFTOrientation
    descriptor: LIFTDescriptor

    def make_networks(self) -> None:
        """Make the networks, whose gray values are those of the training images."""
        c = self.config
        held_out = for_validation(c.synthetic, c.validation_photometric)
        self.train, self.validation = (
            QuadrupletSampler(store, self.device, synthetic)
            for store, synthetic in ((self.data, c.synthetic), (self.held_out, held_out))
        )
        gray: dict[str, Any] = {"mean": self.train.mean, "std": self.train.std}
        angle = gray if c.orientation_statistics == "dataset" else {}
        self.response = LIFTResponse(False, **gray).to(self.device)
        self.orientation = LIFTOrientation(False, pool3=c.pool3, dropout=c.dropout, **angle).to(self.device)
        self.descriptor = LIFTDescriptor(False, normalize=False, **gray).to(self.device)

    def network_of(self, stage: str) -> nn.Module:
        """Return the network that a stage trains, all three for ``joint``."""
        if stage == "joint":
            return nn.ModuleDict(self.parts)
        return super().network_of(stage)

    def make_stage(self, name: str) -> Stage:
        """Return a stage; its network is trainable again where an earlier stage froze it."""
        c = self.config
        data = (self.train, self.validation)
        self.network_of(name).requires_grad_(True)
        if name == "descriptor":
            return PaperDescriptorStage(self.descriptor, *data, c.descriptor_options)
        if name == "orientation":
            return PaperOrientationStage(self.orientation, self.descriptor, *data, c.orientation_options)
        if name == "overlap":
            return OverlapDetectorStage(self.response, *data, c.detector_options)
        kind = JointStage if name == "joint" else PaperDetectorStage
        return kind(self.response, self.orientation, self.descriptor, *data, c.detector_options)
