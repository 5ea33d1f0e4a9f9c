"""Modern recipe: all stages in order, from a store to one weight file."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn

from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.feature import LIFTFeature
from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.data.photometric import for_validation
from kornia_lift.training.data.posed_pairs import posed_pairs
from kornia_lift.training.data.split import without_kind
from kornia_lift.training.data.store import Store
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.descriptor import HardestDescriptorStage
from kornia_lift.training.modern.matchable import MatchableDetectorStage
from kornia_lift.training.modern.orientation import EquivariantOrientationStage
from kornia_lift.training.modern.pairs import PatchPairs, WarpConfig
from kornia_lift.training.modern.ranking import RankingSet, RankingSetBuilder
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage
from kornia_lift.training.modern.tracks import PatchTracks, cut_tracks
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.training.warped.images import aligned_images
from kornia_lift.training.warped.shapes import draw_shapes


class ModernRecipe(Recipe[ModernConfig]):
    """The stages of the modern recipe; see the base class.

    Args:
        data: training data. One kind of images is enough: locations are followed through scenes and exposures, and
            second views of single images are synthetic.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where the networks are trained.
        init: weights to start from.

    """

    NAME = "modern"
    OPTIONS = ModernConfig
    STAGES = ("descriptor", "orientation", "repeatable", "matchable", "refine")
    TRAINS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"repeatable": "response", "matchable": "response", "refine": "descriptor"}
    )
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {"matchable": ("descriptor", "orientation", "repeatable"), "refine": ("descriptor", "orientation")}
    )

    response: LIFTResponse
    orientation: LIFTOrientation
    descriptor: LIFTDescriptor

    def usable(self, data: Store) -> Store:
        """Scenes with depth maps are used where the options say so."""
        return data if self.config.use_posed else without_kind(data, "posed")

    def make_networks(self) -> None:
        """Make the networks; the response starts as a blob detector."""
        self.response = LIFTResponse(False, contrast=self.config.contrast)
        init_as_blob_detector(self.response, strength=self.config.blob_strength)
        self.response.to(self.device)
        self.orientation = LIFTOrientation(False).to(self.device)
        self.descriptor = LIFTDescriptor(False).to(self.device)

    def make_stage(self, name: str) -> Stage:
        """Return a stage."""
        c = self.config
        if name == "descriptor":
            pairs = self._pairs(c.descriptor_warp, c.images_per_batch, c.anchors_per_image)
            return HardestDescriptorStage(self.descriptor, *pairs, margin=c.margin)
        if name == "orientation":
            return EquivariantOrientationStage(self.orientation, *self._pairs(c.orientation_warp, 16, 16))
        if name == "repeatable":
            return self._repeatability()
        if name == "matchable":
            return self._matchability()
        # the orientation's own error replaces most of the random one
        pairs = self._pairs(replace(c.descriptor_warp, angle=0.08), c.refine_images, c.refine_anchors)
        return HardestDescriptorStage(self.descriptor, *pairs, orientation=self.orientation.eval(), margin=c.margin)

    def _repeatability(self) -> RepeatableDetectorStage:
        c = self.config
        crops = self._crop_pairs(c.crops)
        return RepeatableDetectorStage(self.response, *crops, num_images=c.detector_images, tolerance=c.tolerance)

    def _matchability(self) -> MatchableDetectorStage:
        c = self.config
        crops = self._crop_pairs(c.views)
        return MatchableDetectorStage(
            self.response,
            self._repeatability(),
            self._ranking("training", self.data, crops[0], c.warped_pairs),
            self._ranking("held-out", self.held_out, crops[1], c.warped_pairs // 4 + 1),
            weight=c.ranking_weight,
        )

    def _ranking(self, part: str, store: Store, crops: WarpedCrops, warped: int) -> RankingSet:
        """Detections of the response as it is now, matched through the frozen orientation and descriptor."""
        c = self.config
        # the images lie on the CPU
        response = copy.deepcopy(self.response).cpu().eval()
        orientation = copy.deepcopy(self.orientation).cpu().eval()
        descriptor = copy.deepcopy(self.descriptor).cpu().eval()
        feature = LIFTFeature(
            pretrained=False,
            detector=LIFTDetector(c.candidates, c.scale_space, resp_module=response),
            orienter=PatchOrienter(orientation),
            descriptor=PatchDescriptor(descriptor),
        )
        builder = RankingSetBuilder(feature, response, self.watch)
        with _named(part):
            images, pairs = posed_pairs(store, c.pairs)
        builder.add_posed(images, pairs, c.pairs)
        builder.add_warped(crops, warped, torch.Generator().manual_seed(c.seed), c.pairs.exact, c.pairs.loose)
        with _named(part):
            return builder.build()

    def _pairs(self, warp: WarpConfig, groups: int, per_group: int) -> tuple[PatchPairs, PatchPairs]:
        train, held_out = self._tracks
        with _named("training"):
            pairs = PatchPairs(train, groups, per_group, warp)
        with _named("held-out"):
            return pairs, PatchPairs(held_out, 8, 64, for_validation(warp, self.config.validation_photometric))

    @cached_property
    def _tracks(self) -> tuple[PatchTracks, PatchTracks]:
        with _named("training"):
            train = cut_tracks(self.data, self.config.cut)
        with _named("held-out"):
            return train, cut_tracks(self.held_out, self.config.cut)

    def _crop_pairs(self, crops: CropConfig) -> tuple[WarpedCrops, WarpedCrops]:
        c = self.config
        images, held_out = (aligned_images(s) for s in (self.data, self.held_out))
        if crops == c.crops:
            images += [[shapes] for shapes in draw_shapes(c.shapes, c.seed)]
        photometric = for_validation(c.crop_photometric, c.validation_photometric)
        return WarpedCrops(images, crops, c.crop_photometric), WarpedCrops(held_out, crops, photometric)


@contextmanager
def _named(part: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the {part} images: {error}") from error


def init_as_blob_detector(network: LIFTResponse, sigma: float = 1.958, strength: float = 4.0) -> None:
    """Start from the magnitude of a Laplacian of Gaussian at the scale of the level, plus noise on all filters.

    GHH can express it exactly, max(z, -z); a random start reaches the same later.
    """
    offset = torch.arange(FILTER_SIZE, dtype=torch.float32) - FILTER_SIZE // 2
    square = (offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * sigma**2)
    blob = (1 - square) * torch.exp(-square)
    blob = blob - blob.mean()
    blob = blob / blob.abs().sum() * strength
    with torch.no_grad():
        network.conv.weight.normal_(std=0.05 * float(blob.abs().max()))
        nn.init.zeros_(network.conv.bias)  # type: ignore[arg-type]
        network.conv.weight[0, 0] += blob
        network.conv.weight[1, 0] -= blob
