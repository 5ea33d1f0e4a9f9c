"""Trainings whose data are folders instead of stores: matches of any feature, aligned stacks of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kornia_lift._checks import check_device
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.files.lock import FileLock
from kornia_lift.training.config import ConfigError, from_mapping
from kornia_lift.training.correspondences import recipe as correspondences
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.loop import Result
from kornia_lift.training.tilde import recipe as tilde
from kornia_lift.training.tilde.config import TildeConfig

FOLDER_RECIPES = ("correspondences", "tilde")


@dataclass(frozen=True)
class FolderRun:
    """All options of such a training.

    Args:
        recipe: ``"correspondences"`` (which matches to believe) or ``"tilde"`` (where keypoints are).
        data: folders of training data; a part of their scenes is held out.
        features: what finds keypoints: a peer's name, a shipped model, a ``.safetensors`` file of a model. The
            correspondence network is for the matches of all of them; TILDE takes the first.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``...
        correspondences: options of that recipe.
        tilde: options of that recipe.

    """

    recipe: Literal["correspondences", "tilde"]
    data: tuple[Path, ...]
    features: tuple[str, ...] = ("opencv-sift",)
    device: str = "auto"
    correspondences: CorrespondenceConfig = field(default_factory=CorrespondenceConfig)
    tilde: TildeConfig = field(default_factory=TildeConfig)

    def __post_init__(self) -> None:
        for name in ("data", "features"):
            if not getattr(self, name):
                raise ConfigError(f"{name} names nothing")
        if self.recipe == "tilde" and len(self.features) > 1:
            raise ConfigError(f"the recipe 'tilde' takes one of features, got {', '.join(self.features)}")


def read_folder_run(
    mapping: Mapping[str, Any], overrides: Mapping[str, Any], max_minutes: float | None = None
) -> FolderRun:
    """Make a training from plain values.

    Args:
        mapping: what a TOML or JSON file holds.
        overrides: options at the top level that replace those of the file.
        max_minutes: time for the training.

    Raises:
        ConfigError: for an unknown or ill-typed option, or one that these recipes do not have.

    """
    run = from_mapping(FolderRun, {**mapping, **overrides})
    if max_minutes is None:
        return run
    if run.recipe == "tilde":
        loop = dataclasses.replace(run.tilde.tilde, max_minutes=max_minutes)
        return dataclasses.replace(run, tilde=dataclasses.replace(run.tilde, tilde=loop))
    loop = dataclasses.replace(run.correspondences.loop, max_minutes=max_minutes)
    return dataclasses.replace(run, correspondences=dataclasses.replace(run.correspondences, loop=loop))


def train_from_folders(
    run: FolderRun, out: Path, say: Callable[[str], object] = lambda text: None
) -> tuple[Result, Path]:
    """Train and write the weights; started again, it continues where it stopped.

    Args:
        run: what to train.
        out: folder of the run.
        say: called with what is being done.

    Returns:
        The result, and the file of the weights.

    Raises:
        FileNotFoundError: if data are missing.
        ValueError: if they do not suffice, there is no such feature, or this machine has no such device.
        FileInUseError: if another run trains in this folder.

    """
    device = check_device(run.device, "device", auto=True)
    count = run.tilde.keypoints if run.recipe == "tilde" else run.correspondences.keypoints
    builders = []
    for name in run.features:
        build = candidate(name).build
        if build is None:
            raise ConfigError(f"features expects something that extracts, got the file {name}")
        builders.append(build(count))
    say(f"reading {', '.join(map(str, run.data))}: {count} keypoints an image of {', '.join(run.features)}")
    recipe: tilde.TildeRecipe | correspondences.CorrespondenceRecipe
    if run.recipe == "tilde":
        weights = out / tilde.WEIGHTS
        recipe = tilde.TildeRecipe(run.data, builders[0], out, run.tilde, device, run.features)
    else:
        weights = out / correspondences.WEIGHTS
        recipe = correspondences.CorrespondenceRecipe(
            run.data, builders, out, run.correspondences, device, run.features
        )
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(weights):
        return recipe.run(), weights
