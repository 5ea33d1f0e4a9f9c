"""Commands whose work may be interrupted: what they read, how they are called, and what they leave."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from kornia.feature import SIFTFeature
from PIL import Image
from skimage import data
from torch import nn

from kornia_lift.cli import main
from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg, save_store
from kornia_lift.weights import read_safetensors

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One command.

    Args:
        prepare: writes the inputs into a folder.
        argv: arguments for inputs in one folder and outputs in another, which exists.
        outcome: what the outputs hold, as arrays and plain values by name, without times.
        done: exit codes of a run that was not disturbed.
    """

    prepare: Callable[[Path], None]
    argv: Callable[[Path, Path], list[str]]
    outcome: Callable[[Path], Outcome]
    done: tuple[int, ...] = (0,)

    def call(self, inputs: Path, out: Path) -> int:
        """Run the command with SIFT in the place of LIFT: what is tested is the command."""
        return main(self.argv(inputs, out), make_feature=_sift)


def _sift(args: argparse.Namespace) -> nn.Module:
    return SIFTFeature(args.num_features, upright=True)


def pictures(folder: Path, count: int = 4, size: int = 96) -> None:
    """Parts of a real image."""
    image = cv2.resize(data.astronaut(), (3 * size, 3 * size), interpolation=cv2.INTER_AREA)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        x, y = 11 * k, 7 * k
        Image.fromarray(image[y : y + size, x + size // 2 : x + size // 2 + size]).save(folder / f"{k}.png")


def h5_contents(path: Path) -> Outcome:
    """Every dataset and attribute of an h5 file; neither order nor layout matter."""
    found: Outcome = {}
    with h5py.File(path) as file:
        found.update({f"attribute {k}": _plain(v) for k, v in file.attrs.items()})

        def visit(name: str, node: Any) -> None:
            found.update({f"{name} {k}": _plain(v) for k, v in node.attrs.items()})
            if isinstance(node, h5py.Dataset):
                found[name] = node[()]

        file.visititems(visit)
    return found


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def npz_contents(path: Path) -> Outcome:
    """Every array of an npz file."""
    with np.load(path, allow_pickle=False) as file:
        return {f"{path.name} {name}": file[name] for name in file.files}


# --- features ------------------------------------------------------------------------------------------------------


def _shards(folder: Path) -> None:
    pictures(folder / "images", 6)
    for index in range(2):
        words = ["extract", folder / "images", "--out", folder / "f.h5", "-n", "30", "--shard", f"{index}/2"]
        assert main([*map(str, words), "--workers", "1"], make_feature=_sift) == 0


def _sequence(folder: Path) -> None:
    root = folder / "sequence"
    pictures(root, 1, 120)
    (root / "0.png").rename(root / "1.png")
    Image.open(root / "1.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "3.png")
    Image.open(root / "1.png").save(root / "2.png")
    (root / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 1\n")
    (root / "H_1_3").write_text("1 0 3\n0 1 0\n0 0 1\n")


def _evaluated(out: Path) -> Outcome:
    features = json.loads((out / "results.json").read_text())["features"]
    report = (out / "report.md").read_text().partition("Made 20")[0]
    found: Outcome = {f"pairs {f['name']}": json.dumps(f["pairs"], sort_keys=True) for f in features}
    for path in sorted((out / "features").glob("*.h5")):
        found.update({f"{path.name} {key}": value for key, value in h5_contents(path).items()})
    return found | {"report": report}


# --- training ------------------------------------------------------------------------------------------------------


def _texture(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 110.0, dtype=np.float32)
    for sigma, strength in ((3.0, 12), (6.0, 25)):
        noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigma)
        image += strength * noise / noise.std()
    return image.clip(0, 255).astype(np.uint8)


def _store(folder: Path) -> None:
    """One image and its rotated, unevenly illuminated copy."""
    size, angle, zoom = 420, 40.0, 1.2
    base, middle = _texture(1, size), (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -angle, zoom)
    second = cv2.warpAffine(base, matrix, (size, size), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    y, x = np.mgrid[:size, :size] / 20.0
    second = (second * 0.7 + 20 * np.sin(x) * np.cos(1.3 * y) + 40).clip(0, 255).astype(np.uint8)
    rng, number = np.random.default_rng(2), np.arange(40)
    radius, turn = rng.uniform(0, 95, 40), rng.uniform(0, 2 * np.pi, 40)
    xy = middle + np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
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


_LOOP = 'steps = 3\noptimizer = "sgd"\nlearning_rate = 1e-4\nvalidate_every = 3\ncheckpoint_every = 1\nlog_every = 1\n'
_PAPER_STAGES = ("descriptor", "orientation", "overlap", "detector")
_MODERN_STAGES = ("descriptor", "orientation", "repeatable", "matchable", "refine")


def _recipe(folder: Path, kind: str, stages: tuple[str, ...], more: str) -> None:
    head = f'recipe = "{kind}"\ndata = ["{folder}/train"]\nvalidation = ["{folder}/validation"]\n'
    loops = "".join(f"[{kind}.{stage}]\n{_LOOP}prefetch = false\n" for stage in stages)
    (folder / "recipe.toml").write_text(f"{head}{loops}{more}")


def _paper(folder: Path) -> None:
    _store(folder)
    for name, part in (("train", "train"), ("validation", "held_out")):
        (folder / name).mkdir()
        (folder / f"{part}.npz").rename(folder / name / "store.npz")
    options = (
        "[paper.descriptor_options]\npairs = 4\nvalidation_pairs = 8\n"
        "[paper.orientation_options]\npairs = 3\nvalidation_pairs = 6\n"
        "[paper.detector_options]\nquadruplets = 2\nmining_ratio = 1\nvalidation_quadruplets = 6\n"
    )
    _recipe(folder, "paper", _PAPER_STAGES, options)


def _modern(folder: Path) -> None:
    for name, seeds in (("train", range(3)), ("validation", range(3, 5))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(_texture(seed, 200)).save(folder / name / f"{name}{seed}.png")
    options = (
        "[modern.cut]\npoints_per_image = 12\nmax_sigma = 2.0\n"
        "[modern.crops]\nsize = 80\nper_image = 2\nmax_step = 1.5\n"
        "[modern.views]\nsize = 110\nper_image = 1\nmin_step = 1.0\nmax_step = 1.2\nscale = 1.6\n"
    )
    _recipe(folder, "modern", _MODERN_STAGES, options)
    recipe = folder / "recipe.toml"
    numbers = {"images_per_batch": 2, "anchors_per_image": 6, "refine_images": 2, "refine_anchors": 6,
               "detector_images": 1, "candidates": 30, "warped_pairs": 2, "shapes": 4}  # fmt: skip
    table = "[modern]\n" + "".join(f"{key} = {value}\n" for key, value in numbers.items())
    recipe.write_text(recipe.read_text().replace("[modern.descriptor]", f"{table}[modern.descriptor]", 1))


def _trained(out: Path) -> Outcome:
    tensors, metadata = read_safetensors(out / "run" / "weights.safetensors")
    found: Outcome = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    for log in sorted((out / "run").glob("*/log.jsonl")):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        found[f"log {log.parent.name}"] = np.array([r["loss"] for r in rows if r["kind"] == "train"])
    return found | {"names of metadata": sorted(metadata)}


# --- models --------------------------------------------------------------------------------------------------------


def _views(folder: Path) -> None:
    """Four views of two textured planes by a camera that moves sideways."""
    rng = np.random.default_rng(0)
    (folder / "views").mkdir(parents=True)
    layers = []
    for depth, share in ((6.0, 1.0), (4.0, 0.5)):
        texture = np.zeros((480, 640))
        for cell in (6, 12, 24):
            texture += cv2.resize(rng.random((480 // cell, 640 // cell)), (640, 480), interpolation=cv2.INTER_CUBIC)
        layers.append((depth, share, (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)))
    for k, (x, y) in enumerate([(0.0, 0.0), (0.4, 0.0), (0.8, 0.15), (1.2, 0.0)]):
        picture = np.zeros((240, 320), np.uint8)
        for depth, share, texture in layers:
            scale = 0.0125 * 300 / depth
            shift = (160 + 300 * (0.6 - x) / depth - scale * 320, 120 - 300 * y / depth - scale * 240 * (2 - share))
            warp = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
            here = cv2.warpAffine(texture, warp, (320, 240), flags=cv2.INTER_AREA)
            mask = cv2.warpAffine(np.full_like(texture, 255), warp, (320, 240))
            if share < 1:  # the nearer plane covers the lower half
                mask[:120] = 0
            picture = np.where(mask > 0, here, picture)
        cv2.imwrite(str(folder / "views" / f"view{k}.png"), picture)


def _reconstructed(out: Path) -> Outcome:
    import pycolmap

    model = pycolmap.Reconstruction(str(out / "model" / "0"))
    found = h5_contents(out / "model" / "features.h5")
    with pycolmap.Database.open(out / "model" / "database.db") as database:
        found["pairs"] = database.num_verified_image_pairs()
    # the mapper's threads may change a point or two
    return found | {"registered": model.num_reg_images(), "models": len(list((out / "model").glob("[0-9]")))}


def _words(*words: object) -> list[str]:
    return [str(word) for word in words]


SCENARIOS: dict[str, Scenario] = {
    "extract": Scenario(
        lambda i: pictures(i / "images"),
        lambda i, o: _words("extract", i / "images", "--out", o / "f.h5", "-n", 30, "--workers", 1),
        lambda o: h5_contents(o / "f.h5"),
    ),
    "merge": Scenario(
        _shards,
        lambda i, o: _words("merge", i / "f.shard-0-of-2.h5", i / "f.shard-1-of-2.h5", "--out", o / "m.h5"),
        lambda o: h5_contents(o / "m.h5"),
    ),
    "evaluate": Scenario(
        _sequence,
        lambda i, o: _words("evaluate", i / "sequence", "-f", "opencv-orb", "-o", o, "-q", "-n", 100, "--no-page"),
        _evaluated,
    ),
    "build-dataset": Scenario(
        lambda i: pictures(i / "images", 3, 160),
        lambda i, o: _words("build-dataset", i / "images", "--single", "--out", o / "data"),
        lambda o: npz_contents(o / "data" / "images.npz"),
    ),
    "match": Scenario(
        lambda i: pictures(i, 2, 160),
        lambda i, o: _words("match", i / "0.png", i / "1.png", "--out", o / "m.png", "-n", 200),
        lambda o: {"picture": np.asarray(Image.open(o / "m.png"))},
        (0, 1),
    ),
    "reconstruct": Scenario(
        _views,
        lambda i, o: _words(
            "reconstruct", i / "views", "--out", o / "model", "-n", 600, "--camera", "PINHOLE,300,300,160,120"
        ),
        _reconstructed,
    ),
    "train paper": Scenario(_paper, lambda i, o: _words("train", i / "recipe.toml", "--out", o / "run"), _trained),
    "train modern": Scenario(_modern, lambda i, o: _words("train", i / "recipe.toml", "--out", o / "run"), _trained),
}
