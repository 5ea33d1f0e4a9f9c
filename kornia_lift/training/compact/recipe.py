"""Compact recipe: orientation and descriptor on 32x32 patches for the detector of a model, to one weight file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.descriptor import ViewDescriptorStage
from kornia_lift.training.compact.orientation import AgreementOrientationStage
from kornia_lift.training.compact.views import Observations, ViewPairs, load_observations
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.data.split import keep_split, split_sources
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.modern.recipe import save_model
from kornia_lift.training.recipe import best_weights, check_needs

VALIDATION_PAIRS = (4, 128)  # images and pairs of each of a validation batch of the descriptor: 512
VALIDATION_ANGLES = (16, 32)


class CompactRecipe:
    """The stages of the compact recipe; each leaves its checkpoint in its own folder and can be resumed.

    Args:
        data: folder of the training data, see :func:`~kornia_lift.training.data.images.list_sources`.
        out: folder of the run.
        config: options.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if nothing is left to train on or to validate with, or if the run was begun with another split.

    """

    STAGES = ("orientation", "descriptor", "refine")
    #: The stages whose networks a stage learns through, or goes on with.
    NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType({"refine": ("orientation", "descriptor")})

    def __init__(self, data: Path, out: Path, config: CompactConfig | None = None) -> None:
        self.out = out
        self.config = config or CompactConfig()
        self.train, self.held_out = split_sources(data, False, self.config.split)
        for what, part in (("train on", self.train), ("hold out", self.held_out)):
            if part.empty:
                raise ValueError(f"{data} leaves no images to {what}; put further ones into it, or change the split")
        keep_split(out, data, self.train, self.held_out)
        self.response = LIFTResponse(self.config.detector)
        torch.manual_seed(self.config.seed)
        self.orientation = PolarOrientation(False)
        self.descriptor = CompactDescriptor(False)
        self._seen: tuple[Observations, Observations] | None = None

    def run(self, stages: Sequence[str] = STAGES, *, given: Collection[str] = ()) -> dict[str, Result]:
        """Train the given stages in the order of :attr:`STAGES`; the others are taken from their folders.

        Args:
            stages: names of stages.
            given: stages whose networks hold weights that the caller has put there; nothing is read for them.

        Raises:
            ValueError: if a stage is unknown, or learns through a network that nobody has trained.

        """
        unknown = set(stages) - set(self.STAGES)
        if unknown:
            raise ValueError(f"unknown stages {sorted(unknown)}; the stages are {', '.join(self.STAGES)}")
        check_needs(self.out, [name for name in self.STAGES if name in stages], self.NEEDS, given)
        results = {}
        for name in self.STAGES:
            folder = self.out / name
            if name in stages:
                results[name] = getattr(self, f"_{name}")(folder)
            elif name not in given and (weights := best_weights(folder)) is not None:
                network: nn.Module = self.orientation if name == "orientation" else self.descriptor
                network.load_state_dict(weights)
        return results

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the three networks to one ``.safetensors`` file in half precision."""
        save_model(path, self.response, self.orientation, self.descriptor, {"networks": "compact", **(metadata or {})})

    def _pairs(
        self, warp: WarpConfig, training: tuple[int, int], validation: tuple[int, int]
    ) -> tuple[ViewPairs, ViewPairs]:
        views = self.config.views
        if self._seen is None:
            self._seen = load_observations(self.train, views), load_observations(self.held_out, views)
        return ViewPairs(self._seen[0], *training, warp, views), ViewPairs(self._seen[1], *validation, warp, views)

    def _fit(self, stage: Any, loop: LoopConfig, folder: Path) -> Result:
        result = fit(stage, loop, folder, resolved=to_mapping(self.config))
        stage.network.eval()
        return result

    def _orientation(self, folder: Path) -> Result:
        c = self.config
        pairs = self._pairs(c.orientation_warp, (c.orientation_images, c.orientation_pairs), VALIDATION_ANGLES)
        stage = AgreementOrientationStage(self.orientation, *pairs, context=c.context, tolerance=c.tolerance)
        return self._fit(stage, c.orientation, folder)

    def _descriptor(self, folder: Path) -> Result:
        c = self.config
        pairs = self._pairs(c.descriptor_warp, (c.descriptor_images, c.descriptor_pairs), VALIDATION_PAIRS)
        return self._fit(ViewDescriptorStage(self.descriptor, *pairs, margin=c.margin), c.descriptor, folder)

    def _refine(self, folder: Path) -> Result:
        c = self.config
        # the orientation's own error replaces most of the random one
        warp = replace(c.descriptor_warp, angle=0.03)
        pairs = self._pairs(warp, (c.descriptor_images, c.descriptor_pairs), VALIDATION_PAIRS)
        stage = ViewDescriptorStage(
            self.descriptor, *pairs, orientation=self.orientation.eval(), context=c.context, margin=c.margin
        )
        return self._fit(stage, c.refine, folder)
