"""Paper recipe: all stages in the paper's order, each from what the one before left (paper Sec. 3.1, LIFT spec 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.data.store import Store, check_apart, join_stores, load_store, split_store
from kornia_lift.training.limits import check_limits
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.modern.recipe import save_model
from kornia_lift.training.paper.descriptor import DescriptorOptions, PaperDescriptorStage
from kornia_lift.training.paper.detector import (
    DetectorOptions,
    JointStage,
    OverlapDetectorStage,
    PaperDetectorStage,
)
from kornia_lift.training.paper.orientation import OrientationOptions, PaperOrientationStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler, SyntheticView
from kornia_lift.training.recipe import best_weights, check_needs
from kornia_lift.training.stage import Stage


def _loop(steps: int, **more: Any) -> LoopConfig:
    return LoopConfig(steps=steps, **({"clip_norm": 10.0, "prefetch": True} | more))


@dataclass(frozen=True)
class PaperConfig:
    """Options of the paper's recipe. Optimiser and learning rate are those of the authors' TensorFlow code.

    Args:
        holdout: share of photographs and of points held out where no validation data are given.
        synthetic: second views of places in single photographs.
        pool3: the third pooling of the orientation network.
        dropout: of the orientation network, 0.3 in the authors' Theano code.
        orientation_statistics: grey values that the orientation network subtracts and divides by: ``"dataset"``, those
            of the training photographs (paper Sec. 3.2; the network then has to be built with ``mean=`` and ``std=``
            before its weights are loaded), or ``"patch"``, those of each patch, as the run-time network does.
        descriptor: loop of the descriptor stage.
        orientation: loop of the orientation stage.
        overlap: loop of the detector's pre-training.
        detector: loop of the detector through the frozen rest.
        joint: loop of the joint fine-tuning; the paper leaves it out since it over-fits.
        descriptor_options: of the descriptor stage.
        orientation_options: of the orientation stage.
        detector_options: of the detector stages and of the joint one.
        seed: of the initial weights and of the split.

    """

    holdout: float = 0.2
    synthetic: SyntheticView = field(default_factory=SyntheticView)
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
        check_limits(self, "holdout", above=0, below=1)
        check_limits(self, "dropout", at_least=0, below=1)


class PaperRecipe:
    """The stages of the paper; each leaves its checkpoint in its own folder and can be resumed.

    Args:
        train: training data.
        validation: held-out data; where absent, photographs and points of ``train`` are held out.
        out: folder of the run.
        config: options.
        device: where patches are cut and networks trained.

    """

    STAGES = ("descriptor", "orientation", "overlap", "detector")
    OPTIONAL = ("joint",)
    #: The stages whose networks a stage learns through.
    NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "orientation": ("descriptor",),
            "detector": ("descriptor", "orientation"),
            "joint": ("descriptor", "orientation", "detector"),
        }
    )

    def __init__(
        self,
        train: Store,
        out: Path,
        config: PaperConfig | None = None,
        validation: Store | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = c = config or PaperConfig()
        self.out = out
        if validation is None:
            train, validation = split_store(train, c.holdout, c.seed)
        self.train = QuadrupletSampler(train, device, c.synthetic)
        self.validation = QuadrupletSampler(validation, device, c.synthetic)
        gray: dict[str, Any] = {"mean": self.train.mean, "std": self.train.std}
        angle = gray if c.orientation_statistics == "dataset" else {}
        with torch.random.fork_rng([]):
            torch.manual_seed(c.seed)
            self.response = LIFTResponse(False, **gray).to(device)
            self.orientation = LIFTOrientation(False, pool3=c.pool3, dropout=c.dropout, **angle).to(device)
            self.descriptor = LIFTDescriptor(False, normalize=False, **gray).to(device)

    @classmethod
    def from_files(
        cls,
        train: Sequence[Path],
        out: Path,
        config: PaperConfig | None = None,
        validation: Sequence[Path] = (),
        device: torch.device | str = "cpu",
    ) -> PaperRecipe:
        """Read the stores; see the class.

        Raises:
            FileNotFoundError: if a file is missing.
            StoreError: if one is damaged.
            ValueError: if a photograph is in both the training and the validation data.

        """
        data = join_stores([load_store(p) for p in train])
        held_out = join_stores([load_store(p) for p in validation]) if validation else None
        if held_out is not None:
            check_apart(data, held_out)
        return cls(data, out, config, held_out, device)

    def run(
        self, stages: Sequence[str] = STAGES, *, given: Collection[str] = (), progress: bool = True
    ) -> dict[str, Result]:
        """Train the given stages in order; networks of stages that are not among them come from their folders.

        Args:
            stages: names of stages.
            given: stages whose networks hold weights that the caller has put there; nothing is read for them.
            progress: show progress bars.

        Raises:
            ValueError: if a stage is unknown, or learns through a network that nobody has trained.

        """
        every = (*self.STAGES, *self.OPTIONAL)
        unknown = sorted(set(stages) - set(every))
        if unknown:
            raise ValueError(f"unknown stages {', '.join(unknown)}; the stages are {', '.join(every)}")
        check_needs(self.out, [name for name in every if name in stages], self.NEEDS, given)
        results = {}
        for name in every:
            folder = self.out / name
            if name in stages:
                stage = self._stage(name)
                loop = getattr(self.config, name)
                results[name] = fit(stage, loop, folder, progress=progress, resolved=to_mapping(self.config))
                stage.network.eval()
            elif name not in given and (weights := best_weights(folder)) is not None:
                self._network(name).load_state_dict(weights)
        return results

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write the three networks to one ``.safetensors`` file."""
        save_model(path, self.response, self.orientation, self.descriptor, metadata)

    def _network(self, name: str) -> nn.Module:
        if name == "joint":
            parts = {"response": self.response, "orientation": self.orientation, "descriptor": self.descriptor}
            return nn.ModuleDict(parts)
        return {"descriptor": self.descriptor, "orientation": self.orientation}.get(name, self.response)

    def _stage(self, name: str) -> Stage:
        c, data = self.config, (self.train, self.validation)
        # an earlier stage may have frozen it
        self._network(name).requires_grad_(True)
        if name == "descriptor":
            return PaperDescriptorStage(self.descriptor, *data, c.descriptor_options)
        if name == "orientation":
            return PaperOrientationStage(self.orientation, self.descriptor, *data, c.orientation_options)
        if name == "overlap":
            return OverlapDetectorStage(self.response, *data, c.detector_options)
        kind = JointStage if name == "joint" else PaperDetectorStage
        return kind(self.response, self.orientation, self.descriptor, *data, c.detector_options)
