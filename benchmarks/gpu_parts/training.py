"""The part of ``benchmarks/gpu.py`` that trains: every stage of every recipe for a minute, from one file of data."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kornia_lift.evaluation.features.peers import opencv_sift
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.training.config import LoopConfig, read_mapping
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.data import match_scene
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.data.images import to_float
from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.packing import store_bytes
from kornia_lift.training.data.prepare.read import ReadOptions, read_source
from kornia_lift.training.data.prepare.sources import Source, find_sources
from kornia_lift.training.data.split import DECLARED_SPLIT, split_names, split_store, without_kind
from kornia_lift.training.data.store import Store, join_stores, save_store
from kornia_lift.training.folder_run import read_folder_run
from kornia_lift.training.held_out.scenes import CAMERAS, HeldOutConfig, held_out_scenes
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.log import LOG, read_log
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import RECIPES, read_run
from kornia_lift.training.stage import Stage
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.stacks import make_stack
from kornia_lift.training.tilde.stage import TildeStage, make_response

LIMIT_BYTES = 60 * 2**20
#: Weights that a recipe starts from, so that every stage finds what it learns through.
INITIAL = {"modern": "lift", "compact": "lift-plus", "paper": None}
#: Options of stages that are trained on request only.
ON_REQUEST: dict[str, dict[str, Any]] = {"response": {"train_response": True}}
FEW = {
    "candidates": 30,
    "warped_pairs": 2,
    "shapes": 2,
    "detector_images": 1,
    "images_per_batch": 2,
    "refine_images": 2,
}
FEW |= {"anchors_per_image": 6, "refine_anchors": 6}
#: Options of the miniature.
QUICK: dict[str, dict[str, Any]] = {
    "modern": FEW
    | {
        "cut": {"points_per_image": 12, "points_per_scene": 40, "max_sigma": 2.0},
        "crops": {"size": 80, "per_image": 2, "max_step": 1.5},
        "views": {"size": 110, "max_step": 1.2},
    },
    "compact": {
        "response_crops": {"size": 96, "per_image": 2},
        "response_images": 1,
        "response_shapes": 2,
        "copies": {"copies": 1},
        "localization_images": 2,
        "localization_pairs": 8,
        "orientation_images": 2,
        "orientation_pairs": 4,
        "descriptor_images": 2,
        "descriptor_pairs": 4,
    },
    "lfnet": {"size": 64, "pairs_per_batch": 1, "keypoints": 40, "validation_pairs": 2},
    "correspondences": {
        "keypoints": 300,
        "min_shared": 10,
        "max_pairs": 4,
        "pairs_per_batch": 2,
        "matches_per_pair": 60,
        "channels": 8,
        "blocks": 1,
    },
    "tilde": {
        "num_sum": 2,
        "num_max": 2,
        "channels": 1,
        "filter_size": 11,
        "map_size": 7,
        "locations_per_batch": 4,
        "apart": 4.0,
    },
    "paper": {
        "descriptor_options": {"pairs": 4, "validation_pairs": 8},
        "orientation_options": {"pairs": 3, "validation_pairs": 6},
        "detector_options": {"quadruplets": 2, "mining_ratio": 2, "validation_quadruplets": 6},
    },
}


def run_training(data: Path, device: str, quick: bool, deadline: float, write: Callable[[Any], None]) -> dict[str, Any]:
    """Train every stage of every recipe for a minute, or for its share of the time that is left."""
    store = load_data([data])
    results: dict[str, Any] = {}
    left = sum(len(kind.STAGES) for kind in RECIPES.values()) + len(IN_MEMORY)

    def train(name: str, one: Callable[[float], dict[str, Any]]) -> None:
        nonlocal left
        share = min(60.0, 0.75 * (deadline - time.monotonic()) / left)
        left -= 1
        if share < (0 if quick else 3):
            results[name] = {"error": "no time left"}
            return
        results[name] = _reported(one, 0.1 if quick else share)
        write(results)

    for name, kind in RECIPES.items():
        options = read_run({"recipe": name, "data": [str(data)], **({name: QUICK[name]} if quick else {})}).options
        with tempfile.TemporaryDirectory() as folder:
            init = {"init": INITIAL[name]} if name in INITIAL else {}
            recipe = kind(store, Path(folder) / "run", options, None, device, **init)
            for stage in kind.STAGES:
                if stage in kind.stages_of(options):
                    train(f"{name}/{stage}", partial(_train_stage, recipe, stage))
                else:  # the initial weights have nothing to start this stage from
                    more = replace(options, **ON_REQUEST[stage])
                    other = kind(store, Path(folder) / stage, more, None, device)
                    train(f"{name}/{stage}", partial(_train_stage, other, stage))
    for name, make in IN_MEMORY.items():
        options = _options_of(name, quick)
        with tempfile.TemporaryDirectory() as folder:
            train(f"{name}/{name}", partial(_train_in_memory, make, store, options, device, Path(folder)))
    return results


def _timed(loop: LoopConfig, seconds: float) -> LoopConfig:
    return replace(loop, steps=10**6, max_minutes=seconds / 60, log_every=1, tensorboard=False)


def _train_stage(recipe: Any, stage: str, seconds: float) -> tuple[Result, Path]:
    recipe.config = replace(recipe.config, **{stage: _timed(getattr(recipe.config, stage), seconds)})
    return recipe.run([stage], given=recipe.STAGES, progress=False)[stage], recipe.out / stage


def _train_in_memory(
    make: Callable[..., tuple[Stage, LoopConfig]], store: Store, options: Any, device: str, out: Path, seconds: float
) -> tuple[Result, Path]:
    stage, loop = make(store, options, device)
    return fit(stage, _timed(loop, seconds), out, progress=False), out


def _options_of(name: str, quick: bool) -> Any:
    """Options of a recipe that trains from folders, as it is shipped."""
    mapping = read_mapping(recipe_path(Path(name)))
    return getattr(read_folder_run({**mapping, name: {**mapping[name], **(QUICK[name] if quick else {})}}, {}), name)


def _correspondences(store: Store, options: CorrespondenceConfig, device: str) -> tuple[Stage, LoopConfig]:
    """The correspondence network on SIFT's matches of the scenes with cameras, whose images are gray here."""
    extract = opencv_sift(options.keypoints)
    choice = HeldOutConfig(pairs=options.max_pairs, images=100, min_shared=15, warped=0)
    parts = [
        [
            pair
            for scene in held_out_scenes(part, choice).get(CAMERAS, [])
            if isinstance(scene, CalibratedScene)
            for pair in match_scene(scene, extract, options)
        ]
        for part in split_store(without_kind(store, "posed"), options.split)
    ]
    torch.manual_seed(options.seed)
    network = CorrespondenceNet(channels=options.channels, blocks=options.blocks, side=options.side).to(device)
    return CorrespondenceStage(network, *parts, options), options.loop


def _tilde(store: Store, options: TildeConfig, device: str) -> tuple[Stage, LoopConfig]:
    """TILDE's filters on the stacks of exposures, which are gray here."""
    extract = opencv_sift(options.keypoints)
    images: dict[str, list[torch.Tensor]] = {}
    for index, image in enumerate(store.images):
        if image.kind == "exposures":
            images.setdefault(image.scene, []).append(to_float(store.decode(index)))
    parts = [
        [make_stack(name, images[name], extract, options) for name in part]
        for part in split_names(list(images), options.split)
    ]
    network = make_response(options).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TildeStage(network, *parts, options), options.tilde


#: The stages of the recipes that train from folders, from what the file holds of scenes and exposures.
IN_MEMORY: dict[str, Callable[..., tuple[Stage, LoopConfig]]] = {"correspondences": _correspondences, "tilde": _tilde}


def _reported(train: Callable[[float], tuple[Result, Path]], seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        result, out = train(seconds)
    except (RuntimeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    entries = [e for e in read_log(out / LOG) if e["kind"] == "train"]
    return {
        "seconds": seconds,
        "seconds_with_preparation": time.perf_counter() - start,
        "steps": result.step,
        # the median ignores the few steps before which a validation ran
        "samples_per_s": statistics.median(e["samples_per_s"] for e in entries) if entries else None,
        "loss": [entries[0]["loss"], entries[-1]["loss"]] if entries else None,
        "error_at_the_start": result.start,
        "error": result.error,
        "measure": result.measure.as_text() if result.measure is not None else None,
    }


def order_of(sources: Sequence[Source]) -> list[Source]:
    """Sources of a file in the order of their importance: of every kind one to hold out and one to train on, then all.

    Scenes with depth maps are left out.
    """

    def aside(source: Source) -> bool:
        return any(re.fullmatch(p.replace("*", ".*"), source.name.split("/")[-1]) for p in DECLARED_SPLIT)

    order: list[Source] = []
    for kind in ("sfm", "exposures", "single"):
        mine = [s for s in sources if s.kind == kind]
        first = [s for s in mine if aside(s)][:1]
        order += first + [s for s in mine if not aside(s)][: 2 - len(first)]
    return order + [s for s in sources if s not in order and s.kind != "posed"]


def pack(data: Path, out: Path, limit: int = LIMIT_BYTES) -> Store:
    """Write one file of at most ``limit`` bytes: of every kind something to train on and to hold out, then others."""
    chosen: list[Store] = []
    for source in order_of(find_sources(data)):
        store = read_source(source, ReadOptions(quality=80), say=print)
        if sum(map(store_bytes, [*chosen, store])) <= limit:
            chosen.append(store)
            print(f"{source.name}: {store_bytes(store) / 2**20:.1f} MiB")
    if not chosen:
        raise ValueError(f"{data} holds no source of at most {limit} bytes")
    store = join_stores(chosen)
    save_store(out, store)
    return store
