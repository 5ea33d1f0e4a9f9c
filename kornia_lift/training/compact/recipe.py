"""Compact recipe: orientation and descriptor on 32x32 patches for the detector of a model, to one weight file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch

from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.descriptor import ViewDescriptorStage
from kornia_lift.training.compact.orientation import AgreementOrientationStage
from kornia_lift.training.compact.views import Observations, ViewPairs, load_observations
from kornia_lift.training.data.split import without_kind
from kornia_lift.training.data.store import Store
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage

VALIDATION_PAIRS = (4, 128)  # images and pairs of each of a validation batch of the descriptor: 512
VALIDATION_ANGLES = (16, 32)


class CompactRecipe(Recipe):
    """The stages of the compact recipe; see the base class.

    Args:
        data: training data; scenes with depth maps are left out.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where the networks are trained.

    """

    STAGES = ("orientation", "descriptor", "refine")
    TRAINS: ClassVar[Mapping[str, str]] = MappingProxyType({"refine": "descriptor"})
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"refine": ("orientation", "descriptor")})

    response: LIFTResponse
    orientation: PolarOrientation
    descriptor: CompactDescriptor

    def __init__(
        self,
        data: Store,
        out: Path,
        config: CompactConfig | None = None,
        validation: Store | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(without_kind(data, "posed"), out, config or CompactConfig(), validation, device)
        self._seen: tuple[Observations, Observations] | None = None

    def make_networks(self) -> None:
        """Make the networks; the response is that of the model ``config.detector``."""
        self.response = LIFTResponse(self.config.detector).to(self.device)
        self.orientation = PolarOrientation(False).to(self.device)
        self.descriptor = CompactDescriptor(False).to(self.device)

    def make_stage(self, name: str) -> Stage:
        """Return a stage."""
        c: CompactConfig = self.config
        if name == "orientation":
            pairs = self._pairs(c.orientation_warp, (c.orientation_images, c.orientation_pairs), VALIDATION_ANGLES)
            return AgreementOrientationStage(self.orientation, *pairs, context=c.context, tolerance=c.tolerance)
        per_batch = (c.descriptor_images, c.descriptor_pairs)
        if name == "descriptor":
            pairs = self._pairs(c.descriptor_warp, per_batch, VALIDATION_PAIRS)
            return ViewDescriptorStage(self.descriptor, *pairs, margin=c.margin)
        # the orientation's own error replaces most of the random one
        pairs = self._pairs(replace(c.descriptor_warp, angle=0.03), per_batch, VALIDATION_PAIRS)
        return ViewDescriptorStage(
            self.descriptor, *pairs, orientation=self.orientation.eval(), context=c.context, margin=c.margin
        )

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the three networks to one ``.safetensors`` file in half precision."""
        super().save(path, {"networks": "compact", **(metadata or {})})

    def _pairs(
        self, warp: WarpConfig, training: tuple[int, int], validation: tuple[int, int]
    ) -> tuple[ViewPairs, ViewPairs]:
        views = self.config.views
        if self._seen is None:
            self._seen = load_observations(self.data, views), load_observations(self.held_out, views)
        return ViewPairs(self._seen[0], *training, warp, views), ViewPairs(self._seen[1], *validation, warp, views)
