"""A training run from its options: which recipe, which data, which device, where to."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from kornia_lift._checks import check_device
from kornia_lift._io import atomic_write
from kornia_lift.detector.model import has_dense_response
from kornia_lift.evaluation.report.results import FeatureResults
from kornia_lift.files.lock import FileLock
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.config import ConfigError, LoopConfig, from_mapping, to_mapping
from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.report import shortages
from kornia_lift.training.data.split import check_apart
from kornia_lift.training.held_out.referee import SIFT, Referee, Verdict, judge
from kornia_lift.training.held_out.report import PICTURE, HeldOutReport, make_report, write_picture, write_report
from kornia_lift.training.held_out.scenes import HeldOutConfig
from kornia_lift.training.held_out.verdicts import read_verdicts
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.recipe import LFNetRecipe
from kornia_lift.training.loop import Result
from kornia_lift.training.loop.distributed import from_first, rank
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe
from kornia_lift.training.plan import describe_plan
from kornia_lift.training.recipe import Recipe, check_needs
from kornia_lift.weights import WeightFileError, network_family

WEIGHTS = "weights.safetensors"
#: Shipped models that a run is measured beside, by the networks that it trains.
SHIPPED = MappingProxyType({"lift": ("lift",), "compact": ("lift", "lift-plus"), "lfnet": ("lf-net",)})
#: The recipes; the options of each are a table of its name.
RECIPES: Mapping[str, type[Recipe[Any]]] = MappingProxyType(
    {"paper": PaperRecipe, "modern": ModernRecipe, "compact": CompactRecipe, "lfnet": LFNetRecipe}
)


@dataclass(frozen=True)
class RunConfig:
    """All options of ``kornia-lift train``.

    Args:
        recipe: ``"paper"`` (LIFT as published), ``"modern"`` (the one that made LIFT's shipped weights),
            ``"compact"`` (orientation and descriptor on 32x32 patches for the detector of a model) or ``"lfnet"``
            (LF-Net from whole images).
        data: stores written by ``kornia-lift build-dataset``, folders of them, or folders of scenes and images.
        validation: held-out data of the same forms; where empty, a part of ``data`` is held out as the ``split`` of
            the recipe says.
        stages: which stages to train, in the recipe's order; all of them where empty.
        init: weights to start from: the name of a shipped model, or a ``.safetensors`` file. A stage after
            which the held-out pairs match worse is then undone. Random weights where absent.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``...
        table: measure the held-out pairs before and after, beside the shipped model and SIFT.
        held_out: which pairs these are.
        read: how folders of images are read; stores were read when they were built.
        paper: options of the paper's recipe.
        modern: options of the modern recipe.
        compact: options of the compact recipe.
        lfnet: options of the LF-Net recipe.

    """

    recipe: Literal["paper", "modern", "compact", "lfnet"]
    data: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    stages: tuple[str, ...] = ()
    init: str | None = None
    device: str = "auto"
    table: bool = True
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    read: ReadOptions = field(default_factory=lambda: ReadOptions(quality=95))
    paper: PaperConfig = field(default_factory=PaperConfig)
    modern: ModernConfig = field(default_factory=ModernConfig)
    compact: CompactConfig = field(default_factory=CompactConfig)
    lfnet: LFNetConfig = field(default_factory=LFNetConfig)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data names no training data")
        known = self.all_stages
        unknown = [s for s in self.stages if s not in known]
        if unknown:
            raise ConfigError(f"unknown stage {unknown[0]!r}; the {self.recipe} recipe has {', '.join(known)}")

    @property
    def all_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe has."""
        return (*RECIPES[self.recipe].STAGES, *RECIPES[self.recipe].OPTIONAL)

    @property
    def recipe_stages(self) -> tuple[str, ...]:
        """Names of the stages that the recipe consists of."""
        return RECIPES[self.recipe].stages_of(self.options)

    @property
    def chosen_stages(self) -> tuple[str, ...]:
        """Names of the stages to train."""
        return tuple(s for s in self.all_stages if s in self.stages) if self.stages else self.recipe_stages

    @property
    def options(self) -> Any:
        """Options of the chosen recipe."""
        return getattr(self, self.recipe)


def read_run(mapping: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Make a run from plain values.

    Args:
        mapping: what a TOML or JSON file holds.
        overrides: options at the top level that replace those of the file.

    Raises:
        ConfigError: for an unknown or ill-typed option, or a table of the recipe that is not chosen.

    """
    mapping = {**mapping, **(overrides or {})}
    recipe = mapping.get("recipe")
    others = [name for name in RECIPES if name != recipe and name in mapping]
    if others and isinstance(recipe, str) and recipe in RECIPES:
        raise ConfigError(f"the table [{others[0]}] has no effect on the recipe {recipe!r}; remove it")
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
    changes: dict[str, Any] = {config.recipe: dataclasses.replace(options, **shares)}
    return dataclasses.replace(config, **changes)


def make_recipe(config: RunConfig, out: Path, say: Callable[[str], object] = lambda text: None) -> Recipe[Any]:
    """Read the data of a run and make its recipe.

    Args:
        config: the run.
        out: its folder.
        say: called with what is read and what is left out.

    Raises:
        FileNotFoundError: if data are missing.
        ValueError: if the data do not suffice, or this machine has no such device.

    """
    device, kind = check_device(config.device, "device", auto=True), RECIPES[config.recipe]
    check_needs(out, config.chosen_stages, kind.NEEDS, config.all_stages if config.init is not None else ())
    if config.init is not None:
        network_family(config.init)  # an early error where there is no such model
    data = load_data(config.data, config.read, say)
    held_out = load_data(config.validation, config.read, say) if config.validation else None
    if held_out is not None:
        check_apart(data, held_out)
    return kind(data, out, config.options, held_out, device, config.init)


@dataclass(frozen=True)
class Outcome:
    """What a run led to.

    Args:
        stages: the result of each stage that was trained.
        verdicts: of each stage that was measured on held-out pairs; those that were not accepted are undone.
        report: what the run did to the held-out pairs; None where they were not measured.
        picture: names of the two images of the picture of matches; None where there is none.
        remarks: why something was not measured.

    """

    stages: dict[str, Result]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    report: HeldOutReport | None = None
    picture: str | None = None
    remarks: tuple[str, ...] = ()


def train(config: RunConfig, out: Path, say: Callable[[str], object] = lambda text: None) -> Outcome:
    """Train the chosen stages and write ``out/weights.safetensors``; started again, it continues where it stopped.

    Args:
        config: the run.
        out: folder of the run; one folder per stage inside.
        say: called with what is read and what is left out.

    Returns:
        The results of the stages, and what became of the held-out pairs.

    Raises:
        FileNotFoundError: if data are missing.
        ValueError: if the data do not suffice, or this machine has no such device.
        FileInUseError: if another run trains in this folder.

    """
    recipe = make_recipe(config, out, say)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / WEIGHTS) if rank() == 0 else nullcontext():
        return _train(recipe, config, out, say)


def _train(recipe: Recipe[Any], config: RunConfig, out: Path, say: Callable[[str], object]) -> Outcome:
    say(describe_plan(recipe, config.chosen_stages))
    for line in shortages(recipe.data, recipe.held_out, (recipe.NAME,)):
        say(line)
    fine_tuned = config.init is not None
    referee = None
    if config.table or fine_tuned:
        referee = Referee(recipe.held_out, out, config.held_out, recipe.device, say)
        if not referee.pairs:
            referee = None
    with tempfile.TemporaryDirectory(prefix="kornia-lift-") as folder:
        before, after = Path(folder) / "before.safetensors", Path(folder) / "after.safetensors"
        recipe.save(before, {"recipe": config.recipe, "init": config.init or "random"})
        results = recipe.run(config.chosen_stages, referee=referee if fine_tuned else None)
        verdicts = {n: v for n, v in read_verdicts(out).items() if n in results}
        outcome = Outcome(results, verdicts)
        if rank() == 0:
            recipe.save(after, _metadata(config, results))
            if referee is not None:
                outcome = _measured(outcome, config, referee, (before, after), out)
            better = before if fine_tuned and outcome.report and not outcome.report.verdict.accepted else after
            with atomic_write(out / WEIGHTS) as temporary:
                temporary.write_bytes(better.read_bytes())
        return from_first(outcome)


def _measured(outcome: Outcome, config: RunConfig, referee: Referee, weights: tuple[Path, Path], out: Path) -> Outcome:
    """Measure the weights before and after, the shipped model and SIFT, and write the table and the picture."""
    before, after = weights
    affine = not RECIPES[config.recipe].AFFINE.isdisjoint(outcome.stages)
    models: dict[str, str | Path] = {f"before ({config.init or 'random weights'})": before, "after": after}
    shipped = ("lift-dense",) if has_dense_response(after) else SHIPPED[network_family(after)]
    models |= {f"shipped {name}": name for name in shipped} | {"SIFT": SIFT}
    try:
        rows = [referee.measure(name, model, affine) for name, model in models.items()]
    except WeightFileError as error:
        remark = f"held-out pairs were not measured: the weights do not load into a feature as they are ({error})"
        return dataclasses.replace(outcome, remarks=(remark,))
    verdict = judge(rows[0], rows[1])
    said = _sentences(config, verdict, rows, outcome.verdicts)
    said += ["All models but SIFT were measured with affine shapes (affine=True)."] * affine
    report = make_report(referee, rows, verdict, said, chosen=config.init is not None)
    write_report(report, out)
    drawn = {name: models[name] for name in (*list(models)[:2], "SIFT")}
    picture = write_picture(referee, drawn, rows[1], out / PICTURE, affine)
    return dataclasses.replace(outcome, report=report, picture=picture)


def _sentences(
    config: RunConfig, verdict: Verdict, rows: list[FeatureResults], stages: Mapping[str, Verdict]
) -> list[str]:
    """What the table says: which weights are kept, and which are best."""
    said = []
    for name, v in stages.items():
        outcome = "unchanged" if v.unchanged else "kept" if v.accepted else "undone"
        said.append(f"{name}: {outcome}; {v.as_text()}")
    if config.init is not None:
        kept = "the trained weights are kept" if verdict.accepted else "the weights of the start are kept"
        if not any(v.accepted and not v.unchanged for v in stages.values()):
            kept = "nothing was gained: the weights are those of the start"
        said.append(f"{kept}; {verdict.as_text()}")
    best = max(rows[2:-1], key=lambda row: judge(rows[1], row).correct[1])
    against = judge(best, rows[1])
    if against.correct[1] < against.correct[0]:
        advice = "use it" if config.init is not None else f"use it, or start from it: --init {best.name.split()[-1]}"
        said.append(
            f"{best.name} matches these pairs better than the weights of this run ({against.correct[0]:.0f} correct "
            f"matches against {against.correct[1]:.0f}): {advice}"
        )
    return said


def _metadata(config: RunConfig, results: Mapping[str, Result]) -> dict[str, str]:
    figures = {name: result.summary for name, result in results.items()}
    return {
        "recipe": config.recipe,
        "config": json.dumps(to_mapping(config.options), sort_keys=True),
        "figures": json.dumps(figures, sort_keys=True),
        "torch": torch.__version__,
    }
