"""COLMAP prints nothing of its own, its errors become ours, and files that it wrote in part are noticed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kornia_lift.features import Features
from kornia_lift.files import colmap
from kornia_lift.files.colmap import map_database, verify, write_database
from kornia_lift.files.colmap_calls import ColmapError, quiet_colmap, unread_formats

pycolmap = pytest.importorskip("pycolmap")

_RAW = re.compile(r"^[IWEF]\d{8} ", re.MULTILINE)  # how a line of glog begins


def described(size: tuple[int, int] = (64, 48)) -> Features:
    return Features(np.zeros((2, 2)), np.zeros((2, 8), np.float32), image_size=size)


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def no_overlap(folder: Path) -> None:
    for name in "ab":
        picture(folder / f"{name}.png")
    write_database(folder / "x.db", {"a.png": described(), "b.png": described()}, {}, images=folder)
    assert verify(folder / "x.db", threads=1) == 0
    assert map_database(folder / "x.db", folder / "models", threads=1) is None


def unknown_format(folder: Path) -> None:
    (folder / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"COLMAP cannot read 1 image \(a.png\) of .*: convert to JPEG or PNG"):
        write_database(folder / "x.db", {"a.png": described()}, {}, images=folder)


def no_database(folder: Path) -> None:
    (folder / "x.db").write_text("no database" * 200)
    with pytest.raises(ColmapError, match=r"COLMAP failed on .*x.db: "):
        verify(folder / "x.db", threads=1)


def absent(folder: Path) -> None:
    for call in (verify, lambda path: map_database(path, folder / "models")):
        with pytest.raises(FileNotFoundError, match="there is no such database; write_database makes one"):
            call(folder / "x.db")
    for images in (folder, folder / "absent"):
        with pytest.raises(FileNotFoundError, match=r"lacks 1 image \(a.png\) that the features are of"):
            write_database(folder / "x.db", {"a.png": described()}, {}, images=images)


@pytest.mark.parametrize("fails", [no_overlap, unknown_format, no_database, absent])
def test_no_raw_line_is_printed(
    fails: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = pycolmap.logging.minloglevel
    fails(tmp_path)
    assert pycolmap.logging.minloglevel == before
    printed = capfd.readouterr()
    assert not _RAW.search(printed.out + printed.err)


def test_what_a_user_logs_is_his_own(capfd: pytest.CaptureFixture[str]) -> None:
    pycolmap.logging.error("mine")
    assert _RAW.search(capfd.readouterr().err)


@pytest.mark.parametrize("mode", ["SINGLE", "PER_FOLDER"])
def test_one_camera_for_images_of_two_sizes_is_refused(tmp_path: Path, mode: str) -> None:
    sizes = {"a/0.png": (64, 48), "a/1.png": (80, 48)}
    for name, size in sizes.items():
        picture(tmp_path / name, size)
    features = {name: described(size) for name, size in sizes.items()}
    with pytest.raises(ValueError, match=rf"{mode}: .* a/0.png has 64x48 and a/1.png 80x48; use AUTO or PER_IMAGE"):
        write_database(tmp_path / "x.db", features, {}, images=tmp_path, camera_mode=mode)
    write_database(tmp_path / "x.db", features, {}, images=tmp_path, camera_mode="PER_IMAGE")


def test_folders_may_have_a_camera_each(tmp_path: Path) -> None:
    sizes = {"a/0.png": (64, 48), "b/0.png": (80, 48)}
    for name, size in sizes.items():
        picture(tmp_path / name, size)
    features = {name: described(size) for name, size in sizes.items()}
    write_database(tmp_path / "x.db", features, {}, images=tmp_path, camera_mode="PER_FOLDER")
    with pycolmap.Database.open(tmp_path / "x.db") as database:
        assert database.num_cameras() == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("[database_sqlite.cc:1350] SQLite error: database or disk is full", "cannot write x.db: No space left"),
        ("[database_sqlite.cc:1350] SQLite error: disk I/O error", "COLMAP failed on x.db: SQLite error: disk I/O"),
        ("No registered database factory succeeded.", "x.db: it is no database, or cannot be read or written"),
    ],
)
def test_errors_of_colmap_are_ours(said: str, message: str) -> None:
    with pytest.raises(ColmapError, match=message), quiet_colmap(pycolmap, "x.db"):
        raise RuntimeError(said)


def test_a_database_that_cannot_be_opened_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ColmapError, match="No space left"), quiet_colmap(pycolmap, "x.db"):
        raise RuntimeError("No registered database factory succeeded.")


def test_formats_that_colmap_does_not_read(tmp_path: Path) -> None:
    """A broken file tells nothing about its format."""
    (tmp_path / "0.bmp").write_text("no image")
    good = [picture(tmp_path / name) for name in ("a.png", "b.jpg", "c.bmp")]
    assert unread_formats(pycolmap, [tmp_path / "0.bmp", *good]) == []

    class Deaf:
        class Bitmap:
            @staticmethod
            def read(path: Path, _: bool) -> Any:
                return None if path.suffix == ".bmp" else path

    assert unread_formats(Deaf, [tmp_path / "0.bmp", *good]) == [tmp_path / "c.bmp"]


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"])
@pytest.mark.parametrize("left", [0.0, 0.9])
def test_a_model_that_the_disk_had_no_room_for_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, left: float
) -> None:
    """pycolmap reports success."""
    models = tmp_path / "models"
    (models / "0").mkdir(parents=True)
    (models / "0" / "cameras.bin").write_bytes(b"the old one")
    database = tmp_path / "x.db"
    pycolmap.Database.open(database).close()

    def mapped(_: Path, __: Path, out: Path, ___: Any) -> dict[int, Any]:
        model = _small_model()
        (out / "0").mkdir()
        model.write(out / "0")
        written = (out / "0" / name).read_bytes()
        (out / "0" / name).write_bytes(written[: int(left * len(written))])
        return {0: model}

    monkeypatch.setattr(pycolmap, "incremental_mapping", mapped)
    with pytest.raises(OSError, match=rf"cannot write the model .*models.0: No space left on device \({name} "):
        map_database(database, models)
    assert [path.read_bytes() for path in models.rglob("*.bin")] == [b"the old one"]
    monkeypatch.setattr(colmap, "check_written", lambda *_: None)
    map_database(database, models)
    assert len(list(models.rglob("*.bin"))) == 5


def _small_model() -> Any:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 2, 2, 20
    return pycolmap.synthesize_dataset(options)
