"""Modern recipe: all stages in order, from a folder of photographs to one weight file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lift._io import atomic_write
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.feature import LIFTFeature
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.patches import PatchDescriptor, PatchOrienter
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.data.images import PhotoSources, list_scene_photos, read_bracket, read_gray
from kornia_lift.training.data.posed_pairs import posed_pairs
from kornia_lift.training.data.split import keep_split, split_sources
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.crops import CropConfig, WarpedCrops
from kornia_lift.training.modern.descriptor import HardestDescriptorStage
from kornia_lift.training.modern.matchable import MatchableDetectorStage
from kornia_lift.training.modern.orientation import EquivariantOrientationStage
from kornia_lift.training.modern.pairs import PatchPairs, WarpConfig
from kornia_lift.training.modern.ranking import RankingSet, RankingSetBuilder
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage, init_as_blob_detector
from kornia_lift.training.modern.shapes import draw_shapes
from kornia_lift.training.modern.tracks import PatchTracks, cut_tracks
from kornia_lift.training.recipe import best_weights, check_needs


class ModernRecipe:
    """The stages of the modern recipe; each leaves its checkpoint in its own folder and can be resumed.

    Args:
        data: folder of the training data, see :func:`~kornia_lift.training.data.images.list_sources`. One kind of
            photographs is enough: places are followed through reconstructed scenes and brackets, and second views of
            single photographs are made.
        out: folder of the run.
        config: options.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if nothing is left to train on or to validate with, or if the run was begun with another split.

    """

    STAGES = ("descriptor", "orientation", "repeatable", "matchable", "refine")
    #: The stages whose networks a stage learns through, or goes on with.
    NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {"matchable": ("descriptor", "orientation", "repeatable"), "refine": ("descriptor", "orientation")}
    )

    def __init__(self, data: Path, out: Path, config: ModernConfig | None = None) -> None:
        self.out = out
        self.config = config or ModernConfig()
        self.train, self.held_out = split_sources(data, self.config.use_posed, self.config.split)
        for what, part in (("train on", self.train), ("hold out", self.held_out)):
            if part.empty:
                raise ValueError(
                    f"{data} leaves nothing to {what}: {len(self.train.sfm)} scenes, {len(self.train.photos)} single "
                    f"photographs and {len(self.train.brackets)} brackets are trained on, {len(self.held_out.sfm)}, "
                    f"{len(self.held_out.photos)} and {len(self.held_out.brackets)} held out. At least two of one "
                    "kind, or one scene of four photographs, are needed; put further photographs into the folder, or "
                    "change the options of the split"
                )
        keep_split(out, data, self.train, self.held_out)
        torch.manual_seed(self.config.seed)
        self.response = LIFTResponse(False, contrast=self.config.contrast)
        init_as_blob_detector(self.response, strength=self.config.blob_strength)
        self.orientation = LIFTOrientation(False)
        self.descriptor = LIFTDescriptor(False)
        self._tracks: tuple[PatchTracks, PatchTracks] | None = None
        self._crops: dict[CropConfig, tuple[WarpedCrops, WarpedCrops]] = {}

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
                self._network_of(name).load_state_dict(weights)
        return results

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the three networks to one ``.safetensors`` file in half precision."""
        save_model(path, self.response, self.orientation, self.descriptor, metadata)

    def _network_of(self, stage: str) -> nn.Module:
        return {"orientation": self.orientation, "descriptor": self.descriptor, "refine": self.descriptor}.get(
            stage, self.response
        )

    def _fit(self, stage: Any, loop: LoopConfig, folder: Path) -> Result:
        result = fit(stage, loop, folder, resolved=to_mapping(self.config))
        stage.network.eval()
        return result

    def _pairs(self, warp: WarpConfig, groups: int, per_group: int) -> tuple[PatchPairs, PatchPairs]:
        if self._tracks is None:
            with _said_of("training"):
                train = cut_tracks(self.train, self.config.cut)
            with _said_of("held-out"):
                self._tracks = train, cut_tracks(self.held_out, self.config.cut)
        with _said_of("training"):
            pairs = PatchPairs(self._tracks[0], groups, per_group, warp)
        with _said_of("held-out"):
            return pairs, PatchPairs(self._tracks[1], 8, 64, warp)

    def _crop_pairs(self, crops: CropConfig) -> tuple[WarpedCrops, WarpedCrops]:
        if crops not in self._crops:
            size = self.config.cut.photo_size
            light = self.config.crop_light
            images, held_out = (_photographs(s, size) for s in (self.train, self.held_out))
            if crops == self.config.crops:
                images += [[shapes] for shapes in draw_shapes(self.config.shapes, self.config.seed)]
            self._crops[crops] = WarpedCrops(images, crops, light), WarpedCrops(held_out, crops, light)
        return self._crops[crops]

    def _descriptor(self, folder: Path) -> Result:
        c = self.config
        train, held_out = self._pairs(c.descriptor_warp, c.images_per_batch, c.anchors_per_image)
        return self._fit(
            HardestDescriptorStage(self.descriptor, train, held_out, margin=c.margin), c.descriptor, folder
        )

    def _orientation(self, folder: Path) -> Result:
        train, held_out = self._pairs(self.config.orientation_warp, 16, 16)
        stage = EquivariantOrientationStage(self.orientation, train, held_out)
        return self._fit(stage, self.config.orientation, folder)

    def _repeatability(self) -> RepeatableDetectorStage:
        c = self.config
        train, held_out = self._crop_pairs(c.crops)
        return RepeatableDetectorStage(self.response, train, held_out, photos=c.photos_per_batch, tolerance=c.tolerance)

    def _repeatable(self, folder: Path) -> Result:
        return self._fit(self._repeatability(), self.config.repeatable, folder)

    def _matchable(self, folder: Path) -> Result:
        c = self.config
        train, held_out = self._crop_pairs(c.views)
        stage = MatchableDetectorStage(
            self.response,
            self._repeatability(),
            self._ranking("training", self.train, train, c.warped_pairs),
            self._ranking("held-out", self.held_out, held_out, c.warped_pairs // 4 + 1),
            weight=c.ranking_weight,
        )
        return self._fit(stage, c.matchable, folder)

    def _ranking(self, part: str, sources: PhotoSources, crops: WarpedCrops, warped: int) -> RankingSet:
        """Detections of the response as it is now, matched through the frozen orientation and descriptor."""
        c = self.config
        self.response.eval()
        feature = LIFTFeature(
            pretrained=False,
            detector=LIFTDetector(c.candidates, c.scale_space, resp_module=self.response),
            orienter=PatchOrienter(self.orientation.eval()),
            descriptor=PatchDescriptor(self.descriptor.eval()),
        )
        builder = RankingSetBuilder(feature, self.response)
        with _said_of(part):
            images, pairs = posed_pairs(sources, c.pairs)
        builder.add_posed(images, pairs, c.pairs)
        builder.add_warped(crops, warped, torch.Generator().manual_seed(c.seed), c.pairs.exact, c.pairs.loose)
        with _said_of(part):
            return builder.build()

    def _refine(self, folder: Path) -> Result:
        c = self.config
        # the orientation's own error replaces most of the random one
        warp = replace(c.descriptor_warp, angle=0.08)
        train, held_out = self._pairs(warp, c.refine_images, c.refine_anchors)
        stage = HardestDescriptorStage(
            self.descriptor, train, held_out, orientation=self.orientation.eval(), margin=c.margin
        )
        return self._fit(stage, c.refine, folder)


def save_model(
    path: Path,
    response: nn.Module,
    orientation: nn.Module,
    descriptor: nn.Module,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write three networks to one ``.safetensors`` file, in half precision, complete or not at all."""
    from kornia_lift._extras import require

    to_bytes = require("safetensors.torch", extra="train").save
    tensors: dict[str, Tensor] = {}
    for part, network in (("response", response), ("orientation", orientation), ("descriptor", descriptor)):
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = tensor.detach().to(torch.float16).contiguous().clone()
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_bytes(tensors, dict(metadata or {})))  # save_file hides the file from other users


@contextmanager
def _said_of(part: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the {part} photographs: {error}") from error


def _photographs(sources: PhotoSources, max_size: int) -> list[list[Tensor]]:
    """All photographs of a split, uint8; the exposures of a bracket belong together."""
    scenes = [[read_gray(path, max_size)] for path in sources.photos]
    for scene in sources.sfm:
        # neighbours in a walk around a scene are alike: every second one tells as much
        scenes += [[read_gray(path, max_size)] for path in list_scene_photos(scene)[::2]]
    for part in sources.parts:
        scenes += [[read_gray(part.scene / "images" / name, max_size)] for name in part.images]
    for folder in sources.brackets:
        exposures = read_bracket(folder, max_size)
        # the two shortest and longest of many exposures hold too little that is not black or white
        scenes += [exposures[2:-2] if len(exposures) > 6 else exposures] * 5
    return scenes


def describe_run(config: ModernConfig) -> str:
    """The options as JSON, for the metadata of a weight file."""
    return json.dumps(to_mapping(config), sort_keys=True)
