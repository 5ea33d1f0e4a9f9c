"""Compact recipe: the response of a model, and localization, orientation and descriptor for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.detector.model import DENSE_PASSES, Response, default_scale_space, response_of
from kornia_lift.feature import LIFTFeature
from kornia_lift.feature.patches import PatchOrienter
from kornia_lift.feature.stages import shape_of
from kornia_lift.networks.compact_descriptor import SMALL_CHANNELS, CompactDescriptor
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.shape import KeypointShape
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.copies import CopyConfig, KeypointPairs, copy_images
from kornia_lift.training.compact.dense.stage import DenseResponseStage
from kornia_lift.training.compact.dense.views import RotatedViews
from kornia_lift.training.compact.descriptor import ViewDescriptorStage
from kornia_lift.training.compact.detections import find_pairs
from kornia_lift.training.compact.localization import LocalizationStage
from kornia_lift.training.compact.observations import Observations, join_observations, load_observations
from kornia_lift.training.compact.orientation import AgreementOrientationStage
from kornia_lift.training.compact.response.levels import LevelGrid
from kornia_lift.training.compact.response.matches import KeypointMatcher
from kornia_lift.training.compact.response.stage import ScaleSpaceResponseStage
from kornia_lift.training.compact.shape import ShapeStage
from kornia_lift.training.compact.views import ViewPairs
from kornia_lift.training.data.photometric import for_validation
from kornia_lift.training.data.report import FEW_HELD_OUT
from kornia_lift.training.data.split import without_kind
from kornia_lift.training.data.store import Store
from kornia_lift.training.held_out.verdicts import is_kept, read_verdicts
from kornia_lift.training.initial import Model
from kornia_lift.training.loop.checkpoint import BEST
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.images import aligned_images
from kornia_lift.training.warped.shapes import draw_shapes
from kornia_lift.weights import has_part

VALIDATION_PAIRS = (6, 128)  # images and pairs of each of a validation batch of the descriptor
VALIDATION_ANGLES = (24, 32)
OCTAVES = 2  # of the levels on which the crops of the response are searched


class CompactRecipe(Recipe[CompactConfig]):
    """The stages of the compact recipe; see the base class.

    Args:
        data: training data; scenes with depth maps are left out unless the options say otherwise.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where the networks are trained.
        init: weights to start from, as for the base class.

    """

    NAME = "compact"
    OPTIONS = CompactConfig
    STAGES = ("response", "localization", "orientation", "descriptor", "refine")
    OPTIONAL = ("shape",)
    AFFINE = frozenset({"shape"})
    FAMILY = "compact"
    TRAINS: ClassVar[Mapping[str, str]] = MappingProxyType({"refine": "descriptor"})
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"refine": ("orientation", "descriptor")})

    response: Response
    localization: KeypointLocalization
    orientation: PolarOrientation
    descriptor: CompactDescriptor
    shape: KeypointShape

    def usable(self, data: Store) -> Store:
        """Scenes with depth maps are used where the options say so."""
        return data if self.config.use_posed else without_kind(data, "posed")

    @classmethod
    def stages_of(cls, config: CompactConfig) -> tuple[str, ...]:
        """All of them, but for the response where that of another model is kept."""
        return cls.STAGES if config.train_response else cls.STAGES[1:]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by the names under which they are saved."""
        parts: dict[str, nn.Module] = {
            "response": self.response,
            "orientation": self.orientation,
            "descriptor": self.descriptor,
            "localization": self.localization,
        }
        trained = (self.out / "shape" / BEST).is_file() and is_kept(read_verdicts(self.out), "shape")
        trained = trained or (self.init is not None and has_part(self.init, "shape"))
        return parts | {"shape": self.shape} if trained else parts

    def initial_parts(self, init: Model) -> dict[str, nn.Module]:
        """Return the networks to be loaded: all that the model has, but for the response, which has its weights."""
        optional = ("localization", "shape")
        parts = {n: network for n, network in self.parts.items() if n not in optional or has_part(init, n)}
        return {name: network for name, network in parts.items() if name != "response"}

    def make_networks(self) -> None:
        """Make the networks; the response is that of the initial weights, else of ``detector``."""
        init, small = self.init, self.config.small
        self.response = response_of(self._model_of_detector).requires_grad_(True).to(self.device)
        # initial weights decide the form of their networks
        if init is not None and has_part(init, "localization"):
            localization = KeypointLocalization(init)
        else:
            localization = KeypointLocalization(False, blocks=small)
        self.localization = localization.to(self.device)
        channels = SMALL_CHANNELS if small else None
        orientation = PolarOrientation(False, small=small) if init is None else PolarOrientation(init)
        self.orientation = orientation.to(self.device)
        descriptor = CompactDescriptor(False, channels=channels) if init is None else CompactDescriptor(init)
        self.descriptor = descriptor.to(self.device)
        # models without shapes of their own use those of the package
        shape = KeypointShape(False) if init is None else shape_of(init).network
        self.shape = shape.requires_grad_(True).to(self.device)

    @property
    def _model_of_detector(self) -> Model:
        return self.config.detector if self.init is None else self.init

    def make_stage(self, name: str) -> Stage:
        """Return a stage."""
        c = self.config
        if name == "response":
            return self._response_stage()
        if name == "localization":
            return LocalizationStage(
                self.localization,
                *self._copies(c.copies),
                images=c.localization_images,
                per_image=c.localization_pairs,
                jitter=c.localization_jitter,
                photometric=c.localization_photometric,
            )
        if name == "shape":
            return self._shape_stage()
        if name == "orientation":
            pairs = self._pairs(c.orientation_warp, (c.orientation_images, c.orientation_pairs), VALIDATION_ANGLES)
            return AgreementOrientationStage(self.orientation, *pairs, context=c.context, tolerance=c.tolerance)
        per_batch = (c.descriptor_images, c.descriptor_pairs)
        if name == "descriptor":
            pairs = self._pairs(c.descriptor_warp, per_batch, VALIDATION_PAIRS)
            return ViewDescriptorStage(self.descriptor, *pairs, margin=c.margin)
        return ViewDescriptorStage(
            self.descriptor,
            *self._pairs(c.refine_warp, per_batch, VALIDATION_PAIRS),
            orientation=self.orientation.eval(),
            context=c.context,
            upright_share=c.refine_upright,
            coarse_share=c.refine_coarse,
            coarse_angle=c.refine_angle,
            margin=c.margin,
        )

    def _make_detector(self, count: int, localizer: LAFLocalizer | None) -> nn.Module:
        """Return the detector of up to ``count`` upright keypoints, which the localizer corrects where there is one."""
        config = default_scale_space(self.response, localized=True)
        return LIFTDetector(count, config, resp_module=self.response.eval(), localizer=localizer).eval()

    def _localizer(self) -> LAFLocalizer:
        return LAFLocalizer(self.localization.eval(), DENSE_PASSES if isinstance(self.response, DenseResponse) else 1)

    def _response_stage(self) -> Stage:
        c = self.config
        if isinstance(self.response, DenseResponse):
            return self._dense_stage()
        levels = default_scale_space(self.response, localized=True)
        grid = LevelGrid(c.response_crops.size, OCTAVES * levels.levels_per_octave + 1, levels.levels_per_octave)
        # a model that does not suit is refused before the shapes are drawn, which takes seconds
        matcher = self._matcher(c.response_matcher, grid) if c.response_matcher else None
        images, held_out = (aligned_images(s) for s in (self.data, self.held_out))
        images += [[shapes] for shapes in draw_shapes(c.response_shapes, c.seed)]
        judged = for_validation(c.response_photometric, c.validation_photometric)
        crops = WarpedCrops(images, c.response_crops, c.response_photometric, self.device, c.response_degraded)
        return ScaleSpaceResponseStage(
            self.response,
            crops,
            WarpedCrops(held_out, c.response_crops, judged, device=self.device),
            images=c.response_images,
            grid=grid,
            radius=levels.nms_radius,
            matcher=matcher,
        )

    def _dense_stage(self) -> Stage:
        c = self.config.dense
        judged = replace(c, photometric=for_validation(c.photometric, c.validation_photometric))
        model = self.config.response_matcher
        matcher = self._matcher(model, LevelGrid(c.size, 1), self._localizer()) if model else None
        views = RotatedViews(self.data, c), RotatedViews(self.held_out, judged)
        return DenseResponseStage(self.response, *views, c, matcher)

    def _matcher(self, model: str, grid: LevelGrid, localizer: nn.Module | None = None) -> KeypointMatcher:
        feature = LIFTFeature(1, pretrained=model)
        if not isinstance(feature.orienter, PatchOrienter):
            raise ValueError(
                f"compact.response_matcher expects a model with an orientation network, got the upright {model!r}"
            )
        parts = feature.orienter, feature.descriptor
        return KeypointMatcher(*parts, grid, feature.scaling_coef, localizer).to(self.device)

    def _shape_stage(self) -> Stage:
        c = self.config
        return ShapeStage(
            self.shape,
            *self._copies(c.shape_copies, self._localizer()),
            images=c.shape_images,
            per_image=c.shape_pairs,
            jitter=c.shape_jitter,
            photometric=c.shape_photometric,
        )

    def _copies(
        self, copies: CopyConfig, localizer: LAFLocalizer | None = None
    ) -> tuple[list[KeypointPairs], list[KeypointPairs]]:
        """Keypoints of the training and of the held-out images and of warped copies; without a localizer as found."""
        count = self.config.detections.per_image
        detector = self._make_detector(count, localizer)
        judged = replace(copies, photometric=for_validation(copies.photometric, self.config.validation_photometric))
        training, held_out = (
            copy_images([image.decode() for image in store.images], detector, how, self.watch)
            for store, how in ((self.data, copies), (self.held_out, judged))
        )
        return training, held_out

    def _pairs(
        self, warp: WarpConfig, training: tuple[int, int], validation: tuple[int, int]
    ) -> tuple[ViewPairs, ViewPairs]:
        views, (seen, held_out) = self.config.views, self._seen
        judged = for_validation(warp, self.config.validation_photometric)
        return (
            ViewPairs(seen, *training, warp, views, device=self.device),
            ViewPairs(held_out, *validation, judged, views, device=self.device),
        )

    @cached_property
    def _seen(self) -> tuple[Observations, Observations]:
        seen, found = self._observe(self.data)
        held_out, judged = self._observe(self.held_out)
        # validation uses detections, as at run time, unless there are too few
        enough = judged.num_locations >= min(FEW_HELD_OUT, held_out.num_locations) > 0
        return join_observations(seen.images, [seen, found]), judged if enough else held_out

    def _observe(self, store: Store) -> tuple[Observations, Observations]:
        """Return the locations of a store, and the pairs of detections in its scenes with cameras."""
        c = self.config
        seen = load_observations(store, c.views)
        if not c.use_detections:
            return seen, join_observations(seen.images, [])
        detector = self._make_detector(c.detections.per_image, self._localizer())
        return seen, find_pairs(seen, [image.camera for image in store.images], detector, c.detections, self.watch)
