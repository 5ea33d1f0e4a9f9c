"""What a run is about to do, in one line: until the first validation, which may take minutes, a stage is silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kornia_lift._words import counted
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store
from kornia_lift.training.recipe import Recipe

SHOWN = 5  # names of scenes


def describe_plan(recipe: Recipe[Any], stages: Sequence[str]) -> str:
    """Say which stages are trained for how long, on what, and what is held out.

    Args:
        recipe: holds the data and the options.
        stages: names of the stages to train, in order.

    """
    loops: dict[str, LoopConfig] = {name: getattr(recipe.config, name) for name in stages}
    times = [f"{name} ({_minutes(loop)}at most {counted(loop.steps, 'step')})" for name, loop in loops.items()]
    limited = any(loop.max_minutes is not None for loop in loops.values())
    more = ". This is not counted in the minutes, and neither is measuring the held-out pairs" if limited else ""
    return (
        f"stages: {', '.join(times)}; trained on {_count(recipe.data)}, held out: {_count(recipe.held_out)}. "
        f"Every stage first prepares its data and validates, which takes seconds to minutes{more}"
    )


def _count(store: Store) -> str:
    scenes = list(dict.fromkeys(image.scene for image in store.images if image.kind != "single"))
    single = sum(image.kind == "single" for image in store.images)
    parts = scenes[:SHOWN] + ([f"{len(scenes) - SHOWN} more scenes"] if len(scenes) > SHOWN else [])
    parts += [f"{single} single ones"] if single else []
    return f"{counted(len(store.images), 'image')} of {', '.join(parts)}" if scenes else counted(single, "single image")


def _minutes(loop: LoopConfig) -> str:
    if loop.max_minutes is None:
        return ""
    return f"{loop.max_minutes:.3g} minute{'' if loop.max_minutes == 1 else 's'}, "
