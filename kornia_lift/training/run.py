"""A training run from its options: which recipe, which data, which device, where to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from kornia_lift.training.config import ConfigError, LoopConfig, from_mapping, to_mapping
from kornia_lift.training.distributed import rank
from kornia_lift.training.loop import Result
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe

WEIGHTS = "weights.safetensors"
Options = TypeVar("Options", PaperConfig, ModernConfig)


@dataclass(frozen=True)
class RunConfig:
    """All options of ``kornia-lift train``.

    Args:
        recipe: ``"paper"`` (LIFT as published) or ``"modern"`` (the one that made the shipped weights).
        data: paper: stores written by ``kornia-lift build-dataset``, or folders of them; modern: the one folder of
            photographs (``sfm/``, ``photos/``, ``illumination/``, or scenes and photographs directly in it).
        validation: paper: stores of held-out scenes; where empty, photographs and points of ``data`` are held out.
        stages: which stages to train, in the recipe's order; all of them where empty.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``...; the modern recipe runs on the CPU.
        paper: options of the paper's recipe.
        modern: options of the modern recipe.

    """

    recipe: Literal["paper", "modern"]
    data: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    stages: tuple[str, ...] = ()
    device: str = "auto"
    paper: PaperConfig = field(default_factory=PaperConfig)
    modern: ModernConfig = field(default_factory=ModernConfig)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data names no training data")
        if self.recipe == "modern" and (len(self.data) != 1 or self.validation):
            raise ConfigError("the modern recipe takes one data folder; what is held out are options of modern.split")
        known = self.all_stages
        unknown = [s for s in self.stages if s not in known]
        if unknown:
            raise ConfigError(f"unknown stage {unknown[0]!r}; the {self.recipe} recipe has {', '.join(known)}")

    @property
    def all_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe has."""
        if self.recipe == "paper":
            return (*PaperRecipe.STAGES, *PaperRecipe.OPTIONAL)
        return ModernRecipe.STAGES

    @property
    def recipe_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe consists of."""
        return PaperRecipe.STAGES if self.recipe == "paper" else ModernRecipe.STAGES

    @property
    def chosen_stages(self) -> tuple[str, ...]:
        """Names of the stages to train."""
        return tuple(s for s in self.all_stages if s in self.stages) if self.stages else self.recipe_stages

    @property
    def options(self) -> PaperConfig | ModernConfig:
        """Options of the chosen recipe."""
        return self.paper if self.recipe == "paper" else self.modern


def read_run(mapping: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Make a run from plain values.

    Args:
        mapping: what a TOML or JSON file holds.
        overrides: options at the top level that replace those of the file.

    Raises:
        ConfigError: for an unknown or ill-typed option, or a table of the recipe that is not chosen.

    """
    mapping = {**mapping, **(overrides or {})}
    other = {"paper": "modern", "modern": "paper"}.get(mapping.get("recipe", ""))
    if other in mapping:
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
    recipe: PaperRecipe | ModernRecipe
    if config.recipe == "paper":
        stores, held_out = _stores(config.data), _stores(config.validation)
        recipe = PaperRecipe.from_files(stores, out, config.paper, held_out, device)
    else:
        recipe = ModernRecipe(config.data[0], out, config.modern)
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
