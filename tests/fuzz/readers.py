"""Every reader of files: a whole file that it reads, how such a file is damaged, and which errors are documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image

from kornia_lift import LIFTDescriptor, LIFTResponse, load_image
from kornia_lift.convert import load_converted, load_lift_descriptor, load_tilde
from kornia_lift.convert.learned_orientation import _SHAPES, load_learned_orientation
from kornia_lift.convert.torch7 import read_t7
from kornia_lift.evaluation.report.blocks import to_markdown
from kornia_lift.evaluation.report.results import FORMAT, Results
from kornia_lift.evaluation.report.sfm_report import SfmResults, sfm_report
from kornia_lift.evaluation.report.tables import report
from kornia_lift.evaluation.sfm import SfmScores
from kornia_lift.features import Features
from kornia_lift.reconstruction import match_pairs, read_pairs
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.images import image_file_size, read_depth_png
from kornia_lift.scenes.patch_sets import BROWN_GRID, BROWN_PATCH, PatchSet
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.config import read_mapping
from kornia_lift.training.curves import _read, _series
from kornia_lift.training.data.images import read_gray
from kornia_lift.training.data.prepare.provenance import check_record, keep_record
from kornia_lift.training.data.store import (
    Camera,
    Observations,
    Store,
    StoredImage,
    encode_jpeg,
    load_store,
    save_store,
)
from kornia_lift.training.loop.checkpoint import load_checkpoint, save_checkpoint
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import read_run
from kornia_lift.weights import load_network, read_safetensors, write_safetensors
from tests.fuzz import mutators
from tests.fuzz.mutators import Mutator
from tests.torch7 import torch7


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        name: file name that is damaged, below an empty folder.
        write: makes a whole file of that name, and what belongs beside it.
        read: reads it; gets the path of the file.
        mutate: how it is damaged.
        errors: what is documented, beside errors of the file system.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    mutate: Mutator
    errors: tuple[type[Exception], ...] = (ValueError,)


# --- images --------------------------------------------------------------------------------------------------------


def picture(mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    """Write a small image."""

    def write(path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 255, (24, 31, 3), dtype=np.uint8)
        image = Image.fromarray(values)
        if mode == "I;16":
            image = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(path, **options)

    return write


def read_image(path: Path) -> None:
    """Read an image and its size."""
    image_file_size(path)
    pixels = load_image(path)
    assert pixels.min() >= 0 and pixels.max() <= 1


# --- scenes --------------------------------------------------------------------------------------------------------


def sequence(path: Path) -> None:
    """Two images and a homography."""
    for name in ("1.png", "2.png"):
        picture("L")(path.with_name(name))
    path.write_text("1.1 0.02 3\n-0.01 0.9 2\n1e-5 0 1\n")


def read_sequence(path: Path) -> None:
    """Read it; what is kept must be usable."""
    scene = HomographySequence.load(path.parent)
    for pair in scene.pairs:
        moved = scene.transfer(pair.i, pair.j, np.array([[3.0, 4.0], [30.0, 20.0]]))
        assert np.isfinite(moved.points[moved.status == 1]).all()
    if not scene.pairs:
        raise ValueError(scene.skipped[0].reason)


CAMERA_FILE = "50 0 25\n0 50 20\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n50 40\n"


def read_strecha(path: Path) -> None:
    """Read cameras."""
    scene = CalibratedScene.from_strecha(path.parent)
    assert np.isfinite(scene.intrinsics).all() and np.isfinite(scene.translations).all()


def cameras(path: Path, **changes: Any) -> Path:
    """Two posed cameras, changed or with an array left out (None)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "K": np.tile(np.diag([50.0, 50.0, 1.0]), (2, 1, 1)),
        "R": np.tile(np.eye(3), (2, 1, 1)),
        "t": np.zeros((2, 3)),
        "names": np.array(["a", "b"]),
        "width": np.array(50),
        "height": np.array(40),
        "depth_scale": np.array(0.001),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def read_posed(path: Path) -> None:
    """Read a posed scene."""
    scene = PosedScene.load(path.parent)
    assert np.isfinite(scene.rotations).all() and 0 < scene.size[0] < 2**20
    assert np.isfinite(scene.relative_pose(0, 1)[1]).all() if len(scene) > 1 else True


def pairs_of_scene(path: Path) -> None:
    """A posed scene whose list of pairs is damaged."""
    cameras(path.with_name("cameras.npz"))
    path.write_text("0 1 0.5 20\n1 0\n")


MODEL = {
    "cameras.txt": "1 PINHOLE 50 40 50 50 25 20\n2 SIMPLE_RADIAL 50 40 50 25 20 0.01\n",
    "images.txt": "1 1 0 0 0 0 0 0 1 a.jpg\n10 11 1 20 21 2\n2 1 0 0 0 1 0 0 2 b.jpg\n12 11 1 22 21 2\n",
    "points3D.txt": "1 0 0 5 9 9 9 0.5 1 0 2 0\n2 1 0 5 9 9 9 0.5 1 1 2 1\n",
}


def model(path: Path) -> None:
    """A COLMAP model, binary or text."""
    for name, text in MODEL.items():
        path.with_name(name).write_text(text)
    if path.suffix == ".bin":
        import pycolmap

        pycolmap.Reconstruction(str(path.parent)).write_binary(str(path.parent))
        for name in MODEL:
            path.with_name(name).unlink()


def read_model(path: Path) -> None:
    """Read it as a scene."""
    scene = CalibratedScene.from_colmap(path.parent, path.parent, min_shared=1)
    for name in ("intrinsics", "rotations", "translations"):
        assert np.isfinite(getattr(scene, name)).all(), name


# --- patches, training data, configs -------------------------------------------------------------------------------


def patch_file(path: Path) -> None:
    """Some patches."""
    np.savez_compressed(path, patches=np.zeros((3, 8, 8), np.uint8), point_ids=np.arange(3))


def brown(path: Path) -> None:
    """A PhotoTour folder."""
    path.with_name("info.txt").write_text("0 0\n0 0\n1 0\n")
    path.with_name("m50_100000_100000_0.txt").write_text("0 0 0 1 0 0 0\n0 0 0 2 1 0 0\n")
    Image.new("L", (BROWN_GRID * BROWN_PATCH,) * 2).save(path.with_name("patches0000.bmp"))


def a_store(path: Path) -> None:
    """A store of two images that show one location, with a camera each."""
    image = encode_jpeg(np.full((40, 50), 90, np.uint8))
    camera = Camera("PINHOLE", (50.0, 50.0, 25.0, 20.0), (50, 40), np.eye(3), np.zeros(3))
    images = tuple(StoredImage(f"s/{i}", "s", "sfm", image, camera) for i in range(2))
    table = Observations(np.array([0, 1]), np.zeros(2), np.full((2, 2), 20.0), np.ones(2), np.zeros(2))
    save_store(path, Store(images, table, Observations.none(), {"s": {"found": 1}}))


def read_store(path: Path) -> None:
    """Read everything in it."""
    store = load_store(path)
    for image in store.images:
        image.decode()
        if image.camera is not None:
            assert np.isfinite(image.camera.intrinsics).all()
    store.with_sift_frames()


def record(path: Path) -> None:
    """What something was made of."""
    keep_record(path.with_suffix(".npz"), {"source": "/x", "files": {"a.jpg": 3}, "options": {"seed": 0}})


def read_record(path: Path) -> None:
    """Compare with what it is made of now."""
    check_record(path.with_suffix(".npz"), {"source": "/x", "files": {"a.jpg": 3}, "options": {"seed": 0}})


def a_log(path: Path) -> None:
    """The log of a training."""
    rows = [
        {"step": s, "kind": kind, "loss": 0.5, "error": 0.2, "more": 1}
        for s in range(3)
        for kind in ("train", "validation")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_a_log(path: Path) -> None:
    """Read it as the curves do."""
    entries = _read(path)
    for kind, key in (("train", "loss"), ("validation", "error")):
        _series(entries, kind, key)


def checkpoint(path: Path) -> None:
    """A checkpoint of one layer."""
    layer = torch.nn.Linear(3, 2)
    save_checkpoint(path, {"stage": "s", "config": {}, "step": 3, "network": layer.state_dict()})


def read_checkpoint(path: Path) -> None:
    """Read it."""
    assert load_checkpoint(path)["version"] == 1


def part_of_matches(path: Path) -> None:
    """Matches of a run that was stopped: exactly one file, whatever its name."""
    _match(path.parent)
    (part,) = path.parent.glob("*.npz")
    part.rename(path)


def read_part_of_matches(path: Path) -> None:
    """Go on from it; what is damaged is made again."""
    rows = _match(path.parent, path)
    assert all(row.shape[1] == 2 for row in rows)


def _match(folder: Path, part: Path | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    values = {n: Features(np.zeros((5, 2)), rng.normal(size=(5, 8)).astype(np.float32)) for n in ("a", "b", "c")}
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    if part is not None:
        _match_name(folder, part)
    found = match_pairs(values.__getitem__, [("a", "b"), ("a", "c")], 1.0, parts=parts)
    if part is None:
        for file in parts.iterdir():
            file.rename(folder / file.name)
            (folder / "name").write_text(file.name)
    return list(found.values())


def _match_name(folder: Path, part: Path) -> None:
    part.replace(folder / "parts" / (folder / "name").read_text())


# --- results -------------------------------------------------------------------------------------------------------


def results(path: Path) -> None:
    """Results of two features."""
    pair = {"scene": "s", "first": "a", "second": "b", "status": "ok", "reason": "", "angle_deg": 12.5,
            "values": {"matching_score": 0.5, "pose_error": None}}  # fmt: skip
    failed = {**pair, "second": "c", "status": "failed", "reason": "why", "values": {}}
    features = [{"name": n, "options": {"model": "x"}, "pairs": {"posed": [pair, failed]}} for n in ("one", "two")]
    provenance = {"time": "now", "versions": {"torch": "2"}}
    options = {"threshold": 3.0, "num_features": 10, "estimator_label": "none"}
    content = {"format": FORMAT, "title": "t", "options": options, "provenance": provenance, "features": features}
    path.write_text(json.dumps(content))


def read_results(path: Path) -> None:
    """Read them, write them as a report, and save them again."""
    found = Results.load(path)
    to_markdown(report(found, baseline="one"))
    found.save(path.with_name("again.json"))


def reconstructions(path: Path) -> None:
    """Reconstructions of two features."""
    scores = [SfmScores("s", 3, 3, 100, 2.5, 0.5, 0.1, known_intrinsics=known) for known in (True, False)]
    SfmResults({"one": scores, "two": scores}, {"num_features": 10}, {"time": "now"}).save(path)


def read_reconstructions(path: Path) -> None:
    """Read them and write them as a report."""
    to_markdown(sfm_report(SfmResults.load(path)))


# --- weights -------------------------------------------------------------------------------------------------------


def weights(path: Path) -> None:
    """Weights of one network, with a checksum."""
    write_safetensors(path, {f"response.{k}": v for k, v in LIFTResponse(False).state_dict().items()}, {"a": "b"})


def weights_of_others(path: Path) -> None:
    """Weights without a checksum."""
    from safetensors.torch import save

    path.write_bytes(save({"a": torch.zeros(3, 4), "b": torch.ones(2, dtype=torch.float16)}, {"networks": "lift"}))


def load_response(path: Path) -> None:
    """Put weights into the network."""
    load_network(LIFTResponse(False), "response", path)


def converted(path: Path) -> None:
    """A published descriptor as this package writes it."""
    tensors = {f"descriptor.{k}": v for k, v in LIFTDescriptor(False).state_dict().items()}
    write_safetensors(path, tensors, {"kind": "deepdesc", "settings": "{}", "licence": "x"})


def tilde(path: Path) -> None:
    """Full filters of one channel, 3x3."""
    rng = np.random.default_rng(0)
    rows = ["1"]
    for _ in range(4):
        rows.append("2 1 3")
        for _ in range(2):
            rows += [" ".join(f"{v:.3f}" for v in rng.normal(size=3)) for _ in range(3)] + ["0.5"]
    path.write_text("\n".join(rows) + "\n")


def lift_h5(path: Path) -> None:
    """The layout of LIFT's published descriptor."""
    network = LIFTDescriptor(False)
    with h5py.File(path, "w") as file:
        file["layers"] = np.array([1, 5, 4, 7, 1, 5, 4, 7, 1, 5, 4])
        convolutions = [module for module in network.features if isinstance(module, torch.nn.Conv2d)]
        for k, layer in zip((1, 5, 9), convolutions, strict=True):
            file[f"l-{k}-weights"] = layer.weight.detach().numpy()
            file[f"l-{k}-bias"] = layer.bias.detach().numpy()
        file["patch-mean"], file["patch-std"] = np.float32(120), np.float32(60)


def learned_orientation(path: Path) -> None:
    """A folder of arrays."""
    rng = np.random.default_rng(0)
    for name, shape in _SHAPES.items():
        np.save(path.with_name(f"{name}.npy"), np.abs(rng.normal(size=shape)) + 0.1)


COLMAP_FILES = (*MODEL, *(name.replace(".txt", ".bin") for name in MODEL), "rigs.bin", "frames.bin")

READERS: dict[str, Reader] = {
    "png": Reader("a.png", picture(), read_image, mutators.flip),
    "png, 16 bits": Reader("a.png", picture("I;16"), read_image, mutators.flip),
    "jpeg": Reader("a.jpg", picture(quality=80), read_image, mutators.flip),
    "tiff": Reader("a.tif", picture(), read_image, mutators.flip),
    "webp": Reader("a.webp", picture(), read_image, mutators.flip),
    "pgm": Reader("a.pgm", picture("L"), read_image, mutators.words),
    "depth map": Reader("a.png", picture("I;16"), read_depth_png, mutators.flip),
    "training image": Reader("a.png", picture(), read_gray, mutators.flip),
    "homography": Reader("H_1_2", sequence, read_sequence, mutators.words),
    "camera": Reader("0.png.camera", lambda p: p.write_text(CAMERA_FILE), read_strecha, mutators.words),
    "posed scene": Reader("cameras.npz", cameras, read_posed, mutators.zipped),
    "pairs of a scene": Reader("pairs.txt", pairs_of_scene, read_posed, mutators.words),
    **{f"COLMAP {n}": Reader(n, model, read_model, mutators.words if n.endswith("txt") else mutators.flip)
       for n in COLMAP_FILES},
    "patch set": Reader("patches.npz", patch_file, PatchSet.from_npz, mutators.zipped),
    "PhotoTour points": Reader("info.txt", brown, lambda p: PatchSet.from_brown(p.parent), mutators.words),
    "PhotoTour pairs": Reader(
        "m50_100000_100000_0.txt", brown, lambda p: PatchSet.from_brown(p.parent), mutators.words
    ),
    "PhotoTour sheet": Reader("patches0000.bmp", brown, lambda p: PatchSet.from_brown(p.parent), mutators.flip),
    "store": Reader("a.npz", a_store, read_store, mutators.zipped),
    "record": Reader("a.json", record, read_record, mutators.json_values),
    "toml": Reader("c.toml", lambda p: p.write_text(recipe_path(Path("paper")).read_text()),
                   lambda p: read_run(read_mapping(p)), mutators.words),
    "json": Reader("c.json", lambda p: p.write_text('{"recipe": "paper", "data": ["x"], "stages": []}'),
                   lambda p: read_run(read_mapping(p)), mutators.json_values),
    "log": Reader("log.jsonl", a_log, read_a_log, mutators.json_lines),
    "checkpoint": Reader("c.pt", checkpoint, read_checkpoint, mutators.zipped),
    "matches": Reader("m.npz", part_of_matches, read_part_of_matches, mutators.zipped),
    "list of pairs": Reader("p.txt", lambda p: p.write_text("a b\n# c\na c\n"), lambda p: read_pairs(p, "abc"),
                            mutators.words),
    "results": Reader("r.json", results, read_results, mutators.json_values),
    "reconstructions": Reader("s.json", reconstructions, read_reconstructions, mutators.json_values),
    "weights": Reader("w.safetensors", weights, load_response, mutators.safetensors),
    "weights of others": Reader("w.safetensors", weights_of_others, read_safetensors, mutators.safetensors),
    "converted weights": Reader("w.safetensors", converted, load_converted, mutators.safetensors),
    "Torch7": Reader("w.t7", torch7, read_t7, mutators.flip),
    "TILDE": Reader("w.txt", tilde, load_tilde, mutators.words),
    "LIFT h5": Reader("w.h5", lift_h5, load_lift_descriptor, mutators.flip),
    "learned orientation": Reader("layer1_b.npy", learned_orientation,
                                  lambda p: load_learned_orientation(p.parent), mutators.array),
}  # fmt: skip
