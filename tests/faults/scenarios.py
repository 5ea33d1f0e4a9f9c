"""Commands whose work may be interrupted: what they read, how they are called, and what they leave."""

from __future__ import annotations

import argparse
import json
import signal
import sys
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
from tests.faults.trainings import (
    correspondences,
    prepare_compact,
    prepare_lfnet,
    prepare_modern,
    prepare_paper,
    tilde,
    trained,
    trained_filters,
)

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One command.

    Args:
        prepare: writes the inputs into a folder.
        work: reads inputs from one folder, writes outputs to another, which exists, and returns an exit code.
        outcome: what the outputs hold, as arrays and plain values by name, without times.
        done: exit codes of a run that was not disturbed.
    """

    prepare: Callable[[Path], None]
    work: Callable[[Path, Path], int]
    outcome: Callable[[Path], Outcome]
    done: tuple[int, ...] = (0,)


def command(arguments: Callable[[Path, Path], list[object]]) -> Callable[[Path, Path], int]:
    """A command line, with SIFT in the place of LIFT: what is tested is the command.

    Args:
        arguments: from the folders of inputs and outputs.
    """
    return lambda inputs, out: main([str(word) for word in arguments(inputs, out)], make_feature=_sift)


def _stoppable(work: Callable[[Path, Path], object]) -> Callable[[Path, Path], int]:
    """Work that ends as a command does when it is interrupted or cannot write."""

    def call(inputs: Path, out: Path) -> int:
        try:
            work(inputs, out)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except OSError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    return call


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


_train = command(lambda i, o: ["train", i / "recipe.toml", "--out", o / "run"])

SCENARIOS: dict[str, Scenario] = {
    "extract": Scenario(
        lambda i: pictures(i / "images"),
        command(lambda i, o: ["extract", i / "images", "--out", o / "f.h5", "-n", 30, "--workers", 1]),
        lambda o: h5_contents(o / "f.h5"),
    ),
    "merge": Scenario(
        _shards,
        command(lambda i, o: ["merge", i / "f.shard-0-of-2.h5", i / "f.shard-1-of-2.h5", "--out", o / "m.h5"]),
        lambda o: h5_contents(o / "m.h5"),
    ),
    "evaluate": Scenario(
        _sequence,
        command(lambda i, o: ["evaluate", i / "sequence", "-f", "opencv-orb", "-o", o, "-q", "-n", 100, "--no-page"]),
        _evaluated,
    ),
    "build-dataset": Scenario(
        lambda i: pictures(i / "images", 3, 160),
        command(lambda i, o: ["build-dataset", i / "images", "--single", "--out", o / "data"]),
        lambda o: npz_contents(o / "data" / "images.npz"),
    ),
    "match": Scenario(
        lambda i: pictures(i, 2, 160),
        command(lambda i, o: ["match", i / "0.png", i / "1.png", "--out", o / "m.png", "-n", 200]),
        lambda o: {"picture": np.asarray(Image.open(o / "m.png"))},
        (0, 1),
    ),
    "reconstruct": Scenario(
        _views,
        command(
            lambda i, o: [
                *("reconstruct", i / "views", "--out", o / "model"),
                *("-n", 600, "--camera", "PINHOLE,300,300,160,120"),
            ]
        ),
        _reconstructed,
    ),
    "train paper": Scenario(prepare_paper, _train, trained),
    "train modern": Scenario(prepare_modern, _train, trained),
    "train compact": Scenario(prepare_compact, _train, trained),
    "train lfnet": Scenario(prepare_lfnet, _train, trained),
    # their commands read folders of scenes and stacks; here they train on made matches and made stacks
    "train correspondences": Scenario(lambda i: None, _stoppable(correspondences), trained),
    "train tilde": Scenario(lambda i: None, _stoppable(tilde), trained_filters),
}
