"""Damaged and hostile files end in a documented error, without a traceback, a hang or much memory.

The mutations are seeded. ``KORNIA_LIFT_FUZZ_CASES`` sets how many there are per reader; the default is a short run.
"""

from __future__ import annotations

import json
import os
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kornia_lift._io import DamagedFileError, check_regular, read_npz
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.colmap import read_model_files
from kornia_lift.scenes.patch_sets import PatchSet
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.config import ConfigError, read_mapping
from kornia_lift.training.curves import plot_runs
from kornia_lift.training.data.store import (
    Camera,
    Observations,
    Store,
    StoredImage,
    StoreError,
    encode_jpeg,
    load_store,
    save_store,
)
from kornia_lift.training.loop.log import read_log
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import read_run

CASES = int(os.environ.get("KORNIA_LIFT_FUZZ_CASES", "60"))


def a_store(path: Path) -> None:
    image = encode_jpeg(np.full((40, 50), 90, np.uint8))
    camera = Camera("PINHOLE", (50.0, 50.0, 25.0, 20.0), (50, 40), np.eye(3), np.zeros(3))
    images = tuple(StoredImage(f"s/{i}", "s", "sfm", image, camera) for i in range(2))
    table = Observations(np.array([0, 1]), np.zeros(2), np.full((2, 2), 20.0), np.ones(2), np.zeros(2))
    save_store(path, Store(images, table, Observations.none(), {"s": {"found": 1}}))


def cameras(path: Path, **changes: Any) -> Path:
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


CAMERA_FILE = "50 0 25\n0 50 20\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n50 40\n"
CONFIG = recipe_path(Path("paper")).read_text()
LOG = "".join(
    json.dumps({"step": s, "kind": kind, "loss": 0.5, "error": 0.2}) + "\n"
    for s in range(4)
    for kind in ("train", "validation")
)


def read_store(path: Path) -> None:
    store = load_store(path)
    for image in store.images:
        image.decode()


def read_config(path: Path) -> None:
    read_run(read_mapping(path))


def draw_log(path: Path) -> None:
    read_log(path)


def read_strecha(path: Path) -> None:
    scene = CalibratedScene.from_strecha(path.parent)
    assert np.isfinite(scene.intrinsics).all()


def read_posed(path: Path) -> None:
    scene = PosedScene.load(path.parent)
    assert np.isfinite(scene.rotations).all() and 0 < scene.size[0] < 2**20


def patch_file(path: Path) -> None:
    np.savez_compressed(path, patches=np.zeros((3, 8, 8), np.uint8), point_ids=np.arange(3))


READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "store": ("a.npz", a_store, read_store),
    "posed scene": ("cameras.npz", cameras, read_posed),
    "patch set": ("patches.npz", patch_file, PatchSet.from_npz),
    "camera": ("0.png.camera", lambda p: p.write_text(CAMERA_FILE), read_strecha),
    "toml": ("config.toml", lambda p: p.write_text(CONFIG), read_config),
    "json": ("config.json", lambda p: p.write_text('{"recipe": "paper", "data": ["x"], "stages": []}'), read_config),
    "log": ("log.jsonl", lambda p: p.write_text(LOG), draw_log),
}


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or insert bytes, or replace a number or word of a text."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        where, kind = int(rng.integers(0, len(data) + 1)), int(rng.integers(0, 6))
        if kind == 0 and data:
            data[min(where, len(data) - 1)] = int(rng.integers(0, 256))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            del data[where : where + int(rng.integers(1, 40))]
        elif kind == 3:
            data[where:where] = rng.integers(0, 256, int(rng.integers(1, 20)), dtype=np.uint8).tobytes()
        elif kind == 4:
            data[where:where] = bytes(data[: int(rng.integers(0, 60))])
        else:
            words = (b"-1", b"nan", b"1e999", b"9" * 400, b"[", b"{", b'"', b"null", b"\0", b"true", b"[" * 3000)
            data[where : where + int(rng.integers(0, 6))] = words[int(rng.integers(0, len(words)))]
    return bytes(data)


@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_are_read_or_refused(reader: str, tmp_path: Path) -> None:
    name, write, read = READERS[reader]
    path = tmp_path / name
    write(path)
    read(path)  # whole, it is readable
    raw, rng = path.read_bytes(), np.random.default_rng(sum(map(ord, reader)))
    refused = 0
    for _ in range(CASES):
        path.write_bytes(mutate(raw, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy on what a header says
                read(path)
        except (ValueError, OSError):
            refused += 1
    assert refused > CASES // 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"R": np.full((2, 3, 3), np.nan)}, "R is not finite"),
        ({"R": np.ones((2, 3, 3))}, "is not a rotation"),
        ({"K": np.zeros((2, 3, 3))}, "is not a camera matrix"),
        ({"K": np.eye(3)}, "expected 3 dimensions"),
        ({"width": np.array(np.inf)}, "width must be one positive number"),
        ({"height": np.array([3, 4])}, "height must be one positive number"),
        ({"depth_scale": np.array(-1.0)}, "depth_scale must be one positive number"),
        ({"names": np.array(["../../a", "b"])}, "outside the scene's images"),
        ({"names": np.array(["/etc/a", "b"])}, "outside the scene's images"),
        ({"names": np.array([1.0, 2.0])}, "'names' has the dtype"),
        ({"t": None}, "lacks the array 't'"),
    ],
)
def test_cameras_that_make_no_sense_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = cameras(tmp_path / "cameras.npz", **changes)
    with pytest.raises(ValueError, match=message):
        PosedScene.load(path.parent)


def test_a_zip_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("patches.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (600, 1024, 1024)}
        )
        for _ in range(600):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="its arrays take .* at most"):
            read_npz(path, {"patches": ("u", 3)})
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_header_that_promises_more_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with pytest.raises(DamagedFileError, match="does not fit"):
        read_npz(path, {"a": ("f", 2)})


def test_an_encrypted_member_and_a_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3))
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError, match="encrypted"):
        read_npz(path, {"a": ("f", 1)})
    np.savez(path, a=np.array({"x": 1}, dtype=object))
    with pytest.raises(DamagedFileError, match="dtype object"):
        read_npz(path, {"a": ("f", 0)})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_named_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name, _, read in READERS.values():
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        os.mkfifo(folder / name)
        with pytest.raises((ValueError, OSError), match="named pipe"):
            read(folder / name)
    with pytest.raises(DamagedFileError, match="is a folder"):
        check_regular(tmp_path)
    with pytest.raises((ValueError, OSError), match="log"):
        plot_runs([tmp_path / "log_jsonl"], tmp_path / "a.svg")


@pytest.mark.parametrize(
    "text", ['{"recipe": ["paper"]}', "[" * 100_000, '{"a": ' * 50_000, '{"x": ' + "9" * 5000 + "}"]
)
def test_configs_that_break_parsers_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_config(path)


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:\\x.jpg"])
def test_colmap_image_names_stay_inside_the_scene(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 50 40 50 50 25 20\n")
    (tmp_path / "points3D.txt").write_text("")
    for image, refused in (("a.jpg", False), (name, True)):
        (tmp_path / "images.txt").write_text(f"1 1 0 0 0 0 0 0 1 {image}\n\n")
        if not refused:
            read_model_files(tmp_path)
            continue
        with pytest.raises(ValueError, match="outside the scene's images"):
            read_model_files(tmp_path)


def test_a_store_whose_image_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    a_store(path)
    store = load_store(path)
    broken = StoredImage("s/0", "s", "sfm", b"no image")
    save_store(path, Store((broken, store.images[1]), store.tracks, store.empty, {}))
    with pytest.raises(StoreError, match="the image 's/0' of the store cannot be decoded"):
        read_store(path)
