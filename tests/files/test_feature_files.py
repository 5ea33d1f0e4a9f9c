"""The one reader and the one writer of feature files: layout, conventions, what is refused, what a crash leaves."""

from __future__ import annotations

import errno
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from kornia_lift.features import Features
from kornia_lift.files import (
    FeatureFile,
    FeatureFileError,
    FeatureReader,
    UnreadableImageError,
    merge_feature_files,
)
from kornia_lift.files.hloc import FORMAT, opposite
from tests.helpers.feature_files import random_features, replace, writing
from tests.helpers.repository import ROOT


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    given = random_features(20)
    bits = Features(np.ones((3, 2)), np.arange(96, dtype=np.uint8).reshape(3, 32))
    empty = random_features(0)
    with writing(tmp_path / "f.h5", {"feature": "x"}) as file:
        file.write("folder/a.png", given, fingerprint="abc")
        file.write("bits", bits)
        file.write("empty", empty)
    with FeatureReader(tmp_path / "f.h5") as file:
        assert sorted(file.names()) == ["bits", "empty", "folder/a.png"]
        assert file.options == {"feature": "x"}
        found, packed, nothing = (file.read(name) for name in ("folder/a.png", "bits", "empty"))
    for name in ("keypoints", "descriptors", "scores", "scales", "angles"):
        np.testing.assert_allclose(getattr(found, name), getattr(given, name), rtol=1e-5, atol=1e-4)
    assert (found.image_size, found.uncertainty) == (given.image_size, given.uncertainty)
    assert packed.is_binary and packed.scores is None and packed.image_size is None
    np.testing.assert_array_equal(packed.descriptors, bits.descriptors)
    assert nothing.descriptors.shape == (0, 128)


def test_layout_is_that_of_hloc(tmp_path: Path) -> None:
    features = random_features(7)
    with writing(tmp_path / "f.h5") as file:
        file.write("a.png", features)
    with h5py.File(tmp_path / "f.h5") as file:
        group = file["a.png"]
        assert group["keypoints"].shape == (7, 2)
        assert group["keypoints"].attrs["uncertainty"] == 2.0
        assert group["descriptors"].shape == (128, 7)
        np.testing.assert_allclose(group["oris"][()] % 360, -features.angles % 360, atol=1e-3)  # clockwise
        assert file.attrs["format"] == FORMAT


@pytest.mark.parametrize(("given", "expected"), [(0, 0), (30, -30), (-180, -180), (180, -180), (179, -179), (270, 90)])
def test_opposite_sense(given: float, expected: float) -> None:
    assert opposite(np.array([float(given)]))[0] == expected


def test_files_of_the_first_format_are_refused_with_advice(tmp_path: Path) -> None:
    with writing(tmp_path / "f.h5", {"feature": "kornia_lift"}) as file:
        file.write("a.png", random_features(3))
    with h5py.File(tmp_path / "f.h5", "a") as file:
        del file.attrs["format"]
    advice = r"f\.h5 was written before November 2026, when angles \(oris\) ran counter-clockwise: .*extract"
    with pytest.raises(FeatureFileError, match=advice):
        FeatureReader(tmp_path / "f.h5")
    with pytest.raises(FeatureFileError, match=advice):
        FeatureFile(tmp_path / "f.h5", {"feature": "kornia_lift"})
    with FeatureFile(tmp_path / "f.h5", {"feature": "kornia_lift"}, anew=True) as file:
        assert file.would_lose(["a.png", "b.png"]) == ["a.png"]


def test_newer_format_is_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "f.h5") as file:
        file.write("a.png", random_features(3))
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file.attrs["format"] = FORMAT + 1
    with pytest.raises(FeatureFileError, match="update kornia_lift"):
        FeatureReader(tmp_path / "f.h5")


def test_file_of_hloc_is_read(tmp_path: Path) -> None:
    """No attributes, half precision, oris clockwise."""
    with h5py.File(tmp_path / "h.h5", "w") as file:
        group = file.create_group("db/1.jpg")
        group["keypoints"] = np.ones((5, 2), np.float16)
        group["descriptors"] = np.ones((64, 5), np.float16)
        group["oris"] = np.full(5, 90.0, np.float32)
        group["scales"] = np.full((5, 1), 2.0)
        group["image_size"] = np.array([120, 90])
    with FeatureReader(tmp_path / "h.h5") as file:
        assert list(file.names()) == ["db/1.jpg"]
        found = file.read("db/1.jpg")
    assert found.descriptors.shape == (5, 64)
    assert found.angles is not None and found.angles.tolist() == [-90.0] * 5
    assert found.scales is not None and found.scales.tolist() == [2.0] * 5
    assert (found.image_size, found.uncertainty) == ((120, 90), 1.0)


def test_recorded_errors(tmp_path: Path) -> None:
    with writing(tmp_path / "f.h5") as file:
        file.write_error("a.png", "ValueError: no")
        file.write_error("b.png", "b.png is cut off", unreadable=True)
    with FeatureReader(tmp_path / "f.h5") as file:
        assert sorted(file.names()) == ["a.png", "b.png"]
        with pytest.raises(FeatureFileError, match=r"extraction failed on a\.png: ValueError: no"):
            file.read("a.png")
        with pytest.raises(UnreadableImageError, match=r"^b\.png is cut off$"):
            file.read("b.png")


def test_reasons_need_not_be_unicode(tmp_path: Path) -> None:
    """The path of an image may hold bytes that are not UTF-8, which Python keeps as lone surrogates."""
    with writing(tmp_path / "f.h5") as file:
        file.write_error("a.png", "cannot read \udcff/a.png", unreadable=True)
    with FeatureReader(tmp_path / "f.h5") as file, pytest.raises(UnreadableImageError, match=r"\\udcff/a\.png"):
        file.read("a.png")


def test_parts_removed_during_the_run_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureFile(path, {}) as file:
        file.write("a.png", random_features(2))
    with FeatureFile(path, {}) as file:
        assert "a.png" in file  # of the run before
        file.write("b.png", random_features(2))
        shutil.rmtree(file.parts)
        file.write("c.png", random_features(2))
        with pytest.raises(FeatureFileError, match=r"2 finished images were removed from .*f\.h5\.parts"):
            file.finish()
    with writing(path) as file:
        assert [name in file for name in ("a.png", "b.png", "c.png")] == [False, False, True]
        file.write("a.png", random_features(2))
        file.write("b.png", random_features(2))
    with FeatureReader(path) as file:
        assert sorted(file.names()) == ["a.png", "b.png", "c.png"]


def test_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with writing(path) as file:
        file.write("a.png", random_features(2), fingerprint="1")
        file.write("b.png", random_features(2))
        assert (file.fingerprint("a.png"), file.fingerprint("b.png"), file.fingerprint("c.png")) == ("1", None, None)
    replace(path, "b.png/keypoints", 3)
    with writing(path) as file:
        assert (file.fingerprint("a.png"), file.fingerprint("b.png")) == ("1", None)
        file.write("a.png", random_features(5), fingerprint="2")
        assert file.fingerprint("a.png") == "2"
        file.write("b.png", random_features(3))
    with FeatureReader(path) as file:
        assert [len(file.read(name)) for name in ("a.png", "b.png")] == [5, 3]


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    real = h5py.File

    def file_without_locks(*args: object, locking: bool | None = None, **kwargs: object) -> object:
        if locking is not False and kwargs.get("driver") != "core":
            raise OSError(errno.EOPNOTSUPP, "unable to lock file")
        return real(*args, locking=locking, **kwargs)

    monkeypatch.setattr("kornia_lift.files.lock._lock", no_locks)
    monkeypatch.setattr(h5py, "File", file_without_locks)
    with writing(tmp_path / "f.h5") as file:
        file.write("a.png", random_features(3))
    merge_feature_files([tmp_path / "f.h5"], tmp_path / "m.h5")
    with FeatureReader(tmp_path / "m.h5") as file:
        assert len(file.read("a.png")) == 3


def test_killed_merge_leaves_nothing_after_the_next(tmp_path: Path) -> None:
    with writing(tmp_path / "f.h5") as file:
        file.write("a.png", random_features(3))
    program = (
        "import os, sys; from pathlib import Path; import kornia_lift.files.merge as m\n"
        "m.copy_image = lambda *args: os.kill(os.getpid(), 9)\n"
        "m.merge_feature_files([Path(sys.argv[1])], Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "f.h5", tmp_path / "m.h5"], capture_output=True, check=False
    )
    assert done.returncode == -9
    assert not (tmp_path / "m.h5").exists()
    merge_feature_files([tmp_path / "f.h5"], tmp_path / "m.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "m.h5"]


# --- a full disk -------------------------------------------------------------------------------------------------

_FULL = """
import json, sys
from pathlib import Path
from kornia_lift.files import FeatureFile, merge_feature_files
from tests.helpers.feature_files import random_features, replace

folder, room, action = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
said = ""
try:
    if action == "merge":
        merge_feature_files([folder / "big.h5"], room / "f.h5")
    elif action == "pack":
        with FeatureFile(room / "f.h5", {}) as file:
            for number in range(5):  # 5 images of 137 kB fit, their packed copy does not
                file.write(f"{number}.png", random_features(250, number))
            file.finish()
    else:
        with FeatureFile(room / "f.h5", {}) as file:
            for number in range(100):
                file.write(f"{number}.png", random_features(250, number))
except OSError as error:
    said = str(error)
parts = room / "f.h5.parts"
print(json.dumps([said, sorted(p.suffix for p in parts.iterdir()) if parts.is_dir() else []]))
"""


@pytest.fixture
def full(tmp_path: Path) -> list[str]:
    """Words that run a command with a file system of one megabyte mounted at tmp_path/room."""
    room = tmp_path / "room"
    room.mkdir()
    mount = f'mount -t tmpfs -o size=1m none "{room}" && "$@"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    try:
        possible = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("a small file system cannot be mounted here")
    return words


@pytest.mark.parametrize("action", ["write", "pack", "merge"])
def test_full_disk_is_one_sentence(tmp_path: Path, full: list[str], action: str) -> None:
    if action == "merge":
        with writing(tmp_path / "big.h5") as file:
            for number in range(10):
                file.write(f"{number}.png", random_features(250, number))
    words = [*full, sys.executable, "-c", _FULL, str(tmp_path), str(tmp_path / "room"), action]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, left = json.loads(done.stdout)
    assert said.startswith(f"cannot write {tmp_path / 'room' / 'f.h5'}: No space left on device")
    if action == "merge":
        assert left == []
    else:
        assert "the images that are done wait in" in said
        assert len(left) >= 5
        assert set(left) == {".h5"}


def test_uncertainty_is_pixels_of_the_original_per_pixel_of_the_copy() -> None:
    import torch
    from kornia.feature import SIFTFeature

    from kornia_lift.matching import extract_features, shrink

    image = torch.rand(1, 1, 120, 240)
    assert extract_features(SIFTFeature(5), image).uncertainty == 1
    reduced = extract_features(SIFTFeature(5), shrink(image, 80), (240, 120))
    assert math.isclose(reduced.uncertainty, 3.0)
