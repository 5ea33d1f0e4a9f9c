"""Damaged and hostile files end in a documented error, without a traceback, a hang or much memory.

One case of each kind; :mod:`tests.fuzz` has thousands.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_lift import load_image
from kornia_lift._io import DamagedFileError, check_regular, read_npz
from kornia_lift.convert.torch7 import read_t7
from kornia_lift.evaluation.report.results import Results
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.colmap import read_model_files
from kornia_lift.scenes.homographies import check_homography
from kornia_lift.scenes.images import image_file_size, read_depth_png
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.static import StaticSequence
from kornia_lift.training.config import ConfigError, read_mapping
from kornia_lift.training.curves import plot_runs
from kornia_lift.training.data.images import read_gray
from kornia_lift.training.data.store import Store, StoredImage, StoreError, load_store, save_store
from kornia_lift.training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kornia_lift.training.run import read_run
from kornia_lift.weights import WeightFileError, read_safetensors
from tests.fuzz.readers import READERS
from tests.fuzz.scene_files import MODEL, cameras, picture
from tests.fuzz.training_files import a_log, a_store, read_store, results
from tests.helpers.torch7 import torch7


def read_config(path: Path) -> None:
    read_run(read_mapping(path))


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
    for number, reader in enumerate(READERS.values()):
        path = tmp_path / str(number) / reader.name
        path.parent.mkdir(parents=True)
        reader.write(path)
        path.unlink()
        os.mkfifo(path)
        signal.alarm(300)  # a reader that waits would wait forever
        with suppress(ValueError, OSError):  # what can be made again is
            reader.read(path)
        signal.alarm(0)
    for read, name in ((load_image, "a.png"), (Results.load, "r.json"), (read_safetensors, "w.safetensors")):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="named pipe"):
            read(tmp_path / name)
    with pytest.raises(DamagedFileError, match="is a folder"):
        check_regular(tmp_path)
    with pytest.raises((ValueError, OSError), match="log"):
        plot_runs([tmp_path / "log_jsonl"], tmp_path / "a.svg")


def test_a_header_alone_takes_no_memory(tmp_path: Path) -> None:
    """Pillow loads the pixels of a PNG file to find its tags: a promised size is checked before."""
    path = gray_png(tmp_path / "a.png", 7, 5)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 2**20, 2**20)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)
    for read in (image_file_size, load_image, read_depth_png):
        with pytest.raises(ValueError, match="1048576 x 1048576 pixels"):
            read(path)


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


def gray_png(path: Path, width: int, height: int) -> Path:
    """A black image, compressed as far as it goes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )
    return path


def test_an_image_takes_memory_by_the_size_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gray_png(tmp_path / "a.png", 1000, 600)
    assert load_image(path).shape == (1, 1, 600, 1000)
    monkeypatch.setattr("kornia_lift._io.stored.FREE_VALUES", 10_000)
    for read in (load_image, read_gray):
        with pytest.raises(ValueError, match=r"1000 x 600 pixels in \d+ bytes: reduce it"):
            read(path)
    picture()(path)
    assert load_image(path).shape == (1, 3, 24, 31)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cameras.txt", "50 50 25 20", "-50 50 25 20", "camera 1 is impossible"),
        ("cameras.txt", "50 50 25 20", "0 50 25 20", "camera 1 is impossible"),
        ("cameras.txt", "50 50 25 20", "nan 50 25 20", "damaged or incomplete"),
        ("cameras.txt", "50 50 25 20", "50 50 inf 20", "damaged or incomplete"),
        ("cameras.txt", "PINHOLE 50 40", "PINHOLE 99999999999 40", "camera 1 is impossible"),
        ("cameras.txt", "PINHOLE 50 40", "PINHOLE 50 0", "camera 1 is impossible"),
        ("images.txt", "1 1 0 0 0 0 0 0 1", "1 nan 0 0 0 0 0 0 1", "damaged or incomplete"),
        ("images.txt", "1 1 0 0 0 0 0 0 1", "1 1 0 0 0 inf 0 0 1", "damaged or incomplete"),
    ],
)
def test_impossible_cameras_of_colmap_are_named(file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    for name, text in MODEL.items():
        (tmp_path / name).write_text(text)
    assert np.isfinite(CalibratedScene.from_colmap(tmp_path, tmp_path).intrinsics).all()
    (tmp_path / file).write_text(MODEL[file].replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_model_files(tmp_path)


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_poses_in_binary_models_are_finite(kind: str, tmp_path: Path) -> None:
    import pycolmap

    for name, text in MODEL.items():
        (tmp_path / name).write_text(text)
    model = pycolmap.Reconstruction(str(tmp_path))
    rig = pycolmap.Rig(rig_id=9)  # of two sensors, one of them with a pose: longer records than a single camera's
    rig.add_ref_sensor(model.cameras[1].sensor_id)
    rig.add_sensor(model.cameras[2].sensor_id, pycolmap.Rigid3d())
    model.add_rig(rig)
    for name in MODEL:
        (tmp_path / name).unlink()
    model.write_binary(str(tmp_path))
    assert len(read_model_files(tmp_path).rigs) == 3
    frames = bytearray((tmp_path / "frames.bin").read_bytes())
    frames[8 + 8 + 32 : 8 + 8 + 40] = struct.pack("<d", float(kind))  # x of the first translation
    (tmp_path / "frames.bin").write_bytes(frames)
    with pytest.raises(ValueError, match="damaged or incomplete"):
        read_model_files(tmp_path)


@pytest.mark.parametrize("name", ["rigs.bin", "frames.bin", "cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("count", [3, 2**31, 2**64 - 1])
def test_counts_that_a_binary_model_does_not_hold(name: str, count: int, tmp_path: Path) -> None:
    READERS["COLMAP cameras.bin"].write(tmp_path / "cameras.bin")
    path = tmp_path / name
    path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        read_model_files(tmp_path)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 3)),
        np.full((3, 3), 1e300),
        np.diag([1e200, 1e200, 1.0]),
        np.diag([1e160, 1e160, 1e-3]),
        np.diag([1e-320, 1.0, 1.0]),
        np.array([[1e155, -1e155, 0], [1e155, 1e155, 0], [0, 0, 1e145]]),
        np.ones((3, 3)),
    ],
)
def test_homographies_beyond_all_numbers_are_degenerate(matrix: np.ndarray) -> None:
    assert "degenerate" in str(check_homography(matrix, (100, 80)))


def test_two_images_of_a_static_camera_have_two_names(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture("L")(tmp_path / name)
    assert StaticSequence.load(tmp_path).names == ("a", "b")
    picture("L")(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="two images called 'a'"):
        StaticSequence.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scene": [1]},
        {"second": None},
        {"status": "good"},
        {"reason": {}},
        {"values": {"m": 10**400}},
        {"values": {"m": "0.5"}},
        {"values": {"m": float("nan")}},
        {"values": [0.5]},
        {"angle_deg": "x"},
        {"angle_deg": True},
    ],
)
def test_a_pair_of_a_result_file_is_checked(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results(path)
    Results.load(path)
    content = json.loads(path.read_text())
    content["features"][0]["pairs"]["posed"][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"results\.json is"):
        Results.load(path)


def test_a_checkpoint_is_checked_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"stage": "s", "config": {}, "x": torch.arange(500)})
    raw = bytearray(path.read_bytes())
    at = raw.index(torch.arange(500).numpy().tobytes()) + 40
    raw[at] ^= 4  # torch itself would read the wrong number
    path.write_bytes(raw)
    assert torch.load(path, weights_only=True)["x"].tolist() != list(range(500))
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(path)
    raw[at] ^= 4
    path.write_bytes(raw)
    assert load_checkpoint(path)["x"].tolist() == list(range(500))
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(tmp_path / "bomb.pt")


def test_a_tensor_is_not_larger_than_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.t7"
    torch7(path)
    raw = path.read_bytes()
    old = struct.pack("<5q", 2, 2, 2, 1, 1)
    assert old in raw
    path.write_bytes(raw.replace(old, struct.pack("<5q", 20_000, 20_000, 0, 0, 1)))
    with pytest.raises(WeightFileError, match="outside its 4 values"):
        read_t7(path)


@pytest.mark.parametrize("name", ["a$b^$", "$x", "x|y", "[a](b)", "_under"])
def test_names_of_runs_and_stages_are_no_markup(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for run in (name, "other$^$"):
        stage = tmp_path / run / name
        stage.mkdir(parents=True)
        a_log(stage / "log.jsonl")
    plot_runs([tmp_path / name, tmp_path / "other$^$"], tmp_path / "a.svg")
