"""Trainings that may be interrupted: inputs of a few seconds, and what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.recipe import save_correspondence
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg, save_store
from kornia_lift.training.loop import fit
from kornia_lift.training.recipe import best_weights
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.stage import TildeStage, make_response
from kornia_lift.weights import read_safetensors
from tests.helpers.training import aligned_stack, matched_pair, picture

# SGD: Adam's first steps are all signs, which rounding flips where a gradient is nearly zero
_LOOP = """steps = 3
optimizer = "sgd"
learning_rate = 1e-4
validate_every = 3
checkpoint_every = 1
log_every = 1
prefetch = false
"""
_STAGES = {
    "paper": ("descriptor", "orientation", "overlap", "detector"),
    "modern": ("descriptor", "orientation", "repeatable", "matchable", "refine"),
    "compact": ("response", "localization", "orientation", "descriptor", "refine"),
    "lfnet": ("lfnet",),
}


def _store(folder: Path) -> None:
    """One image and its rotated, unevenly illuminated copy."""
    size, angle, zoom = 420, 40.0, 1.2
    base, middle = picture(1, size), (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -angle, zoom)
    second = cv2.warpAffine(base, matrix, (size, size), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    y, x = np.mgrid[:size, :size] / 20.0
    second = (second * 0.7 + 20 * np.sin(x) * np.cos(1.3 * y) + 40).clip(0, 255).astype(np.uint8)
    rng, number = np.random.default_rng(2), np.arange(40)
    radius, angle = rng.uniform(0, 95, 40), rng.uniform(0, 2 * np.pi, 40)
    xy = middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    sigma, theta = rng.uniform(2, 3, 40), rng.uniform(0, 2 * np.pi, 40)
    tracks = Observations(
        np.repeat([0, 1], 40), np.concatenate([number, number]),
        np.concatenate([xy, xy @ matrix[:, :2].T + matrix[:, 2]]),
        np.concatenate([sigma, zoom * sigma]), np.concatenate([theta, theta + np.radians(angle)]),
    )  # fmt: skip
    empty = Observations(np.full(8, 2), np.full(8, -1), rng.uniform(60, 140, (8, 2)), np.full(8, 2.5), np.zeros(8))
    flat = np.full((200, 200), 110, dtype=np.uint8)
    images = (("rotated/0", base), ("rotated/1", second), ("flat/0", flat))
    for name, quality in (("train", 98), ("held_out", 90)):
        stored = tuple(
            StoredImage(f"{name}/{n}", f"{name}/{n[:-2]}", "sfm", encode_jpeg(i, quality)) for n, i in images
        )
        save_store(folder / f"{name}.npz", Store(stored, tracks, empty))


def _recipe(folder: Path, kind: str, options: Mapping[str, int | str], tables: str = "") -> None:
    head = f'recipe = "{kind}"\ndata = ["{folder}/train"]\nvalidation = ["{folder}/validation"]\n'
    head += f"[{kind}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
    loops = "".join(f"[{kind}.{stage}]\n{_LOOP}" for stage in _STAGES[kind])
    table = "[held_out]\nwarped = 1\nnum_features = 50\n[held_out.crops]\nsize = 96\nper_image = 1\n"
    (folder / "recipe.toml").write_text(f"{head}{loops}{tables}{table}")


def _singles(folder: Path) -> None:
    for name, seeds in (("train", range(3)), ("validation", range(3, 5))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(seed, 200)).save(folder / name / f"{name}{seed}.png")


def prepare_paper(folder: Path) -> None:
    """Stores of an image and its rotated copy."""
    _store(folder)
    for name, part in (("train", "train"), ("validation", "held_out")):
        (folder / name).mkdir()
        (folder / f"{part}.npz").rename(folder / name / "store.npz")
    tables = (
        "[paper.descriptor_options]\npairs = 4\nvalidation_pairs = 8\n"
        "[paper.orientation_options]\npairs = 3\nvalidation_pairs = 6\n"
        "[paper.detector_options]\nquadruplets = 2\nmining_ratio = 1\nvalidation_quadruplets = 6\n"
    )
    _recipe(folder, "paper", {}, tables)


def prepare_modern(folder: Path) -> None:
    """Single images."""
    _singles(folder)
    numbers = {"images_per_batch": 2, "anchors_per_image": 6, "refine_images": 2, "refine_anchors": 6,
               "detector_images": 1, "candidates": 30, "warped_pairs": 2, "shapes": 4}  # fmt: skip
    tables = (
        "[modern.cut]\npoints_per_image = 12\nmax_sigma = 2.0\n"
        "[modern.crops]\nsize = 80\nper_image = 2\nmax_step = 1.5\n"
        "[modern.views]\nsize = 110\nper_image = 1\nmin_step = 1.0\nmax_step = 1.2\nscale = 1.6\n"
    )
    _recipe(folder, "modern", numbers, tables)


def prepare_compact(folder: Path) -> None:
    """Single images."""
    _singles(folder)
    numbers = {"response_shapes": 1, "response_images": 1,
               "localization_images": 2, "localization_pairs": 6, "orientation_images": 2, "orientation_pairs": 4,
               "descriptor_images": 2, "descriptor_pairs": 6, "train_response": "true"}  # fmt: skip
    tables = "[compact.views]\npoints_per_image = 30\n[compact.response_crops]\nsize = 96\n"
    _recipe(folder, "compact", numbers, tables)


def prepare_lfnet(folder: Path) -> None:
    """Single images, which are warped."""
    _singles(folder)
    _recipe(folder, "lfnet", {"size": 96, "pairs_per_batch": 1, "keypoints": 40, "validation_pairs": 2})


def trained(out: Path) -> dict[str, Any]:
    """Weights and losses of a run."""
    tensors, metadata = read_safetensors(out / "run" / "weights.safetensors")
    return _plain(tensors) | _losses(out) | {"names of metadata": sorted(metadata)}


def trained_filters(out: Path) -> dict[str, Any]:
    """Weights and losses of a run of TILDE."""
    weights = best_weights(out / "run" / "tilde")
    assert weights is not None
    return _plain(weights) | _losses(out)


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def _losses(out: Path) -> dict[str, Any]:
    """The loss of every step of every stage."""
    found = {}
    for log in sorted((out / "run").glob("*/log.jsonl")):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        found[f"log {log.parent.name}"] = np.array([r["loss"] for r in rows if r["kind"] == "train"])
    return found


def _three_steps() -> LoopConfig:
    return LoopConfig(
        steps=3, optimizer="sgd", learning_rate=1e-4, validate_every=3, checkpoint_every=1, log_every=1, prefetch=False
    )


def correspondences(inputs: Path, out: Path) -> None:
    """Train the correspondence network as its recipe does, on made matches."""
    config = CorrespondenceConfig(pairs_per_batch=3, matches_per_pair=40, essential_from=2, loop=_three_steps())
    pairs = [matched_pair(seed, count=60) for seed in range(8)]
    torch.manual_seed(config.seed)
    network = CorrespondenceNet(channels=8, blocks=1)
    stage = CorrespondenceStage(network, pairs[:6], pairs[6:], config)
    result = fit(stage, config.loop, out / "run" / "correspondences", progress=False)
    save_correspondence(out / "run" / "weights.safetensors", network, config, result)


def tilde(inputs: Path, out: Path) -> None:
    """Train TILDE's filters on made stacks; it keeps them in its checkpoint."""
    config = TildeConfig(num_sum=2, num_max=2, channels=1, filter_size=11, map_size=7, locations_per_batch=8,
                         tilde=_three_steps())  # fmt: skip
    stage = TildeStage(make_response(config), [aligned_stack(0), aligned_stack(1)], [aligned_stack(2)], config)
    fit(stage, config.tilde, out / "run" / "tilde", progress=False)
