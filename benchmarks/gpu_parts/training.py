"""The part of ``benchmarks/gpu.py`` that trains: every stage of every recipe for a minute, from one file of data."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.packing import store_bytes
from kornia_lift.training.data.prepare.read import ReadOptions, read_source
from kornia_lift.training.data.prepare.sources import find_sources
from kornia_lift.training.data.split import DECLARED_SPLIT
from kornia_lift.training.data.store import Store, join_stores, save_store
from kornia_lift.training.loop.log import LOG, read_log
from kornia_lift.training.run import RECIPES, read_run

LIMIT_BYTES = 60 * 2**20
#: Weights that a recipe starts from, so that every stage finds what it learns through.
INITIAL = {"modern": "lift", "compact": "lift-plus", "paper": None}
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
    "compact": {"orientation_images": 2, "orientation_pairs": 4, "descriptor_images": 2, "descriptor_pairs": 4},
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
    recipes = {name: kind for name, kind in RECIPES.items() if name in QUICK or not quick}
    left = sum(len(kind.STAGES) for kind in recipes.values())
    for name, kind in recipes.items():
        options = read_run({"recipe": name, "data": [str(data)], **({name: QUICK[name]} if quick else {})}).options
        with tempfile.TemporaryDirectory() as folder:
            init = {"init": INITIAL[name]} if name in INITIAL else {}
            recipe = kind(store, Path(folder), options, None, device, **init)
            for stage in kind.STAGES:
                share = min(60.0, 0.75 * (deadline - time.monotonic()) / left)
                left -= 1
                if share < (0 if quick else 3):
                    results[f"{name}/{stage}"] = {"error": "no time left"}
                    continue
                results[f"{name}/{stage}"] = _train(recipe, stage, 0.5 if quick else share)
                write(results)
    return results


def _train(recipe: Any, stage: str, seconds: float) -> dict[str, Any]:
    loop = replace(getattr(recipe.config, stage), steps=10**6, max_minutes=seconds / 60, log_every=1, tensorboard=False)
    recipe.config = replace(recipe.config, **{stage: loop})
    start = time.perf_counter()
    try:
        result = recipe.run([stage], given=recipe.STAGES, progress=False)[stage]
    except (RuntimeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    entries = [e for e in read_log(recipe.out / stage / LOG) if e["kind"] == "train"]
    return {
        "seconds": seconds,
        "seconds_with_preparation": time.perf_counter() - start,
        "steps": result.step,
        # the median over the steps leaves out those that a validation stands before
        "samples_per_s": statistics.median(e["samples_per_s"] for e in entries) if entries else None,
        "loss": [entries[0]["loss"], entries[-1]["loss"]] if entries else None,
        "error_at_the_start": result.start,
        "error": result.error,
        "measure": result.measure.as_text() if result.measure is not None else None,
    }


def pack(data: Path, out: Path, limit: int = LIMIT_BYTES) -> Store:
    """Write one file of at most ``limit`` bytes: held-out scenes first, then others, of every kind something."""
    sources = find_sources(data)
    held_out = [
        s for s in sources if any(re.fullmatch(p.replace("*", ".*"), s.name.split("/")[-1]) for p in DECLARED_SPLIT)
    ]
    kinds = {
        kind: [s for s in sources if s.kind == kind and s not in held_out] for kind in ("sfm", "exposures", "single")
    }
    order = held_out[:2] + [s for group in kinds.values() for s in group[:1]]
    order += [s for s in sources if s not in order and s.kind in kinds]
    chosen: list[Store] = []
    for source in order:
        store = read_source(source, ReadOptions(quality=80), say=print)
        if sum(map(store_bytes, [*chosen, store])) <= limit:
            chosen.append(store)
            print(f"{source.name}: {store_bytes(store) / 2**20:.1f} MiB")
    if not chosen:
        raise ValueError(f"{data} holds no source of at most {limit} bytes")
    store = join_stores(chosen)
    save_store(out, store)
    return store
