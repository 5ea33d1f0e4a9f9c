"""A training run from its options: which recipe, which data, which device, where to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.config import ConfigError, LoopConfig, from_mapping, to_mapping
from kornia_lift.training.distributed import rank
from kornia_lift.training.loop import Result
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe

WEIGHTS = "weights.safetensors"
Options = TypeVar("Options", PaperConfig, ModernConfig, CompactConfig)
_RECIPES: dict[str, type[PaperRecipe | ModernRecipe | CompactRecipe]] = {
    "paper": PaperRecipe,
    "modern": ModernRecipe,
    "compact": CompactRecipe,
}


@dataclass(frozen=True)
class RunConfig:
    """All options of ``kornia-lift train``.

    Args:
        recipe: ``"paper"`` (LIFT as published), ``"modern"`` (the one that made LIFT's shipped weights) or
            ``"compact"`` (orientation and descriptor on 32x32 patches for the detector of a model).
        data: paper: stores written by ``kornia-lift build-dataset``, or folders of them; modern: the one folder of
            photographs (``sfm/``, ``photos/``, ``illumination/``, or scenes and photographs directly in it).
        validation: paper: stores of held-out scenes; where empty, photographs and points of ``data`` are held out.
        stages: which stages to train, in the recipe's order; all of them where empty.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``...; the other recipes run on the CPU.
        paper: options of the paper's recipe.
        modern: options of the modern recipe.
        compact: options of the compact recipe.

    """

    recipe: Literal["paper", "modern", "compact"]
    data: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    stages: tuple[str, ...] = ()
    device: str = "auto"
    paper: PaperConfig = field(default_factory=PaperConfig)
    modern: ModernConfig = field(default_factory=ModernConfig)
    compact: CompactConfig = field(default_factory=CompactConfig)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data names no training data")
        if self.recipe != "paper" and (len(self.data) != 1 or self.validation):
            raise ConfigError(
                f"the {self.recipe} recipe takes one data folder; what is held out are options of {self.recipe}.split"
            )
        known = self.all_stages
        unknown = [s for s in self.stages if s not in known]
        if unknown:
            raise ConfigError(f"unknown stage {unknown[0]!r}; the {self.recipe} recipe has {', '.join(known)}")

    @property
    def all_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe has."""
        if self.recipe == "paper":
            return (*PaperRecipe.STAGES, *PaperRecipe.OPTIONAL)
        return _RECIPES[self.recipe].STAGES

    @property
    def recipe_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe consists of."""
        return _RECIPES[self.recipe].STAGES

    @property
    def chosen_stages(self) -> tuple[str, ...]:
        """Names of the stages to train."""
        return tuple(s for s in self.all_stages if s in self.stages) if self.stages else self.recipe_stages

    @property
    def options(self) -> PaperConfig | ModernConfig | CompactConfig:
        """Options of the chosen recipe."""
        if self.recipe == "paper":
            return self.paper
        return self.modern if self.recipe == "modern" else self.compact


def read_run(mapping: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Make a run from plain values.

    Args:
        mapping: what a TOML or JSON file holds.
        overrides: options at the top level that replace those of the file.

    Raises:
        ConfigError: for an unknown or ill-typed option, or a table of the recipe that is not chosen.

    """
    mapping = {**mapping, **(overrides or {})}
    for other in _RECIPES.keys() - {mapping.get("recipe")}:
        if other in mapping and mapping.get("recipe") in _RECIPES:
            raise ConfigError(f"the table [{other}] has no effect on the recipe {mapping['recipe']!r}; remove it")
    return from_mapping(RunConfig, mapping)


def with_budget(config: RunConfig, minutes: float) -> RunConfig:
    """Divide a time budget over the chosen stages: by their own ``max_minutes`` where all have one, else equally."""
    options, stages = config.options, config.chosen_stages
    loops: dict[str, LoopConfig] = {name: getattr(options, name) for name in stages}
    own = [loop.max_minutes for loop in loops.values()]
    weights = [w or 1.0 for w in own] if all(own) else [1.0] * len(own)
    shares = {
        name: dataclasses.replace(loop, max_minutes=minutes * w / sum(weights))
        for (name, loop), w in zip(loops.items(), weights, strict=True)
    }
    if config.recipe == "paper":
        return dataclasses.replace(config, paper=_with_loops(config.paper, shares))
    if config.recipe == "compact":
        return dataclasses.replace(config, compact=_with_loops(config.compact, shares))
    return dataclasses.replace(config, modern=_with_loops(config.modern, shares))


def _with_loops(options: Options, loops: dict[str, LoopConfig]) -> Options:
    changes: dict[str, Any] = dict(loops)
    return dataclasses.replace(options, **changes)


def train(config: RunConfig, out: Path) -> dict[str, Result]:
    """Train the chosen stages and write ``out/weights.safetensors``; started again, it goes on where it was.

    Args:
        config: the run.
        out: folder of the run; one folder per stage inside.

    Returns:
        What each stage came to.

    Raises:
        FileNotFoundError: if data are missing.
        ConfigError: if there is no such device.

    """
    device = _device(config.device)
    recipe: PaperRecipe | ModernRecipe | CompactRecipe
    if config.recipe == "paper":
        stores, held_out = _stores(config.data), _stores(config.validation)
        recipe = PaperRecipe.from_files(stores, out, config.paper, held_out, device)
    elif config.recipe == "modern":
        recipe = ModernRecipe(config.data[0], out, config.modern)
    else:
        recipe = CompactRecipe(config.data[0], out, config.compact)
    results = recipe.run(config.chosen_stages)
    if rank() == 0:
        recipe.save(out / WEIGHTS, _metadata(config, results))
    return results


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts
        first = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({first}); use auto or cpu") from error
    return device


def _stores(paths: Sequence[Path]) -> list[Path]:
    """Files, and all the stores in folders."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(
                f"{path} holds no training store (*.npz); make one with `kornia-lift build-dataset`"
            )
        found += inside
    return found


def _metadata(config: RunConfig, results: Mapping[str, Result]) -> dict[str, str]:
    figures = {name: {"step": r.best_step, **r.figures} for name, r in results.items()}
    return {
        "recipe": config.recipe,
        "config": json.dumps(to_mapping(config.options), sort_keys=True),
        "figures": json.dumps(figures, sort_keys=True),
        "torch": torch.__version__,
    }
