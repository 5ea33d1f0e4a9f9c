"""Options of the recipes with which every stage takes seconds."""

from __future__ import annotations

from typing import Any

from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.copies import CopyConfig
from kornia_lift.training.compact.observations import ViewConfig
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.config import LoopConfig

TINY = """
recipe = "modern"
data = ["{data}"]
table = false
[modern]
images_per_batch = 2
anchors_per_image = 6
refine_images = 2
refine_anchors = 6
detector_images = 1
candidates = 30
warped_pairs = 2
shapes = 2
[modern.cut]
points_per_image = 12
points_per_scene = 40
max_sigma = 2.0
[modern.crops]
size = 80
per_image = 2
max_step = 1.5
[modern.views]
size = 110
max_step = 1.2
[modern.pairs]
max_images = 3
max_size = 400
[modern.descriptor]
steps = 1
[modern.orientation]
steps = 1
[modern.repeatable]
steps = 1
[modern.matchable]
steps = 2
[modern.refine]
steps = 1
"""
TINY_PAPER = """
recipe = "paper"
data = ["{data}"]
table = false
stages = ["descriptor"]
[paper.descriptor]
steps = 1
[paper.descriptor_options]
pairs = 4
validation_pairs = 8
"""


def tiny_compact(loop: LoopConfig, **options: Any) -> CompactConfig:
    """Options of the compact recipe, in Python."""
    base: dict[str, Any] = {
        "views": ViewConfig(points_per_image=30),
        "orientation_images": 2,
        "orientation_pairs": 4,
        "descriptor_images": 2,
        "descriptor_pairs": 6,
        "copies": CopyConfig(copies=1),
        "localization_images": 2,
        "localization_pairs": 12,
        "small": True,
    }
    return CompactConfig(**dict.fromkeys(CompactRecipe.STAGES, loop), **(base | options))
