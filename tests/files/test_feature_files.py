"""The one reader and the one writer of feature files: layout, conventions, what is refused, what a crash leaves."""

from __future__ import annotations

import errno
import json
import math
import os
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
from tests.helpers.feature_files import random_features, writing
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


@pytest.fixture
def good(tmp_path: Path) -> Path:
    with writing(tmp_path / "f.h5", {"feature": "x"}) as file:
        file.write("a.png", random_features(6))
        file.write("deep/b.png", random_features(6, seed=1))
    return tmp_path / "f.h5"


def replace(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a.png/keypoints", np.zeros((6, 3), np.float32), r"a\.png/keypoints: shape \(6, 3\), expected \(N, 2\)"),
        ("a.png/keypoints", np.float32(1), r"a\.png/keypoints: shape \(\), expected 2 dimensions"),
        ("a.png/keypoints", np.full((6, 2), np.nan), r"a\.png: 6 of 6 keypoints are not finite"),
        ("a.png/descriptors", np.zeros((128, 5), np.float32), r"a\.png/descriptors: shape .* N = 6 keypoints"),
        ("a.png/descriptors", np.zeros((128, 6), np.int32), r"a\.png/descriptors: values of type int32"),
        ("a.png/descriptors", np.array([b"x"]), r"a\.png/descriptors: values of type \|S1"),
        ("a.png/scores", np.zeros((6, 6)), r"a\.png/scores: shape \(6, 6\), expected \(6,\)"),
        ("a.png/oris", np.full(6, np.inf), r"a\.png/oris: 6 values are not finite"),
        ("a.png/scales", np.zeros(6), r"a\.png/scales: expected sigmas above 0"),
        ("a.png/image_size", np.array([0, 5]), r"a\.png/image_size: expected width and height"),
        ("a.png/scales", h5py.SoftLink("/deep/b.png/scales"), r"a\.png/scales: a link to /deep/b\.png/scales"),
        ("a.png/scales", h5py.ExternalLink("g.h5", "/x"), r"a\.png/scales: a link to g\.h5:/x; links are not followed"),
        ("a.png/keypoints", np.dtype("f4"), r"a\.png/keypoints: neither a group nor a dataset"),
    ],
)
def test_bad_datasets_are_named(good: Path, name: str, value: object, message: str) -> None:
    replace(good, name, value)
    with FeatureReader(good) as file, pytest.raises(FeatureFileError, match=rf"f\.h5: {message}"):
        file.read("a.png")
    with pytest.raises(FeatureFileError, match=message.replace("expected 2 dimensions", "")):
        merge_feature_files([good], good.with_name("m.h5"))
    assert sorted(p.name for p in good.parent.iterdir()) == ["f.h5"]


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((20_000, 20_000), (1000, 1000), "declares 1600000000 bytes, expected at most"),
        ((10**9, 10**9), (10, 10), "declares 4000000000000000000 bytes"),
        ((5000, 5000), (100, 100), r"declares the shape \(5000, 5000\), but the file holds no data for it"),
    ],
)
def test_arrays_that_are_only_declared_take_no_memory(
    good: Path, shape: tuple[int, int], chunks: tuple[int, int], message: str
) -> None:
    with h5py.File(good, "a") as file:
        del file["a.png/descriptors"]
        file.create_dataset("a.png/descriptors", shape, np.float32, chunks=chunks)
    with FeatureReader(good) as file, pytest.raises(FeatureFileError, match=rf"a\.png/descriptors: {message}"):
        file.read("a.png")


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_data_in_another_file_are_refused(good: Path, kind: str) -> None:
    other = good.with_name("other.h5")
    shutil.copy(good, other)
    with h5py.File(good, "a") as file:
        del file["a.png/keypoints"]
        if kind == "external":
            file.create_dataset("a.png/keypoints", (6, 2), np.float32, external=[(str(other), 0, 48)])
        else:
            layout = h5py.VirtualLayout((6, 2), np.float32)
            layout[:] = h5py.VirtualSource(str(other), "a.png/keypoints", (6, 2))
            file.create_virtual_dataset("a.png/keypoints", layout)
    with FeatureReader(good) as file, pytest.raises(FeatureFileError, match="its data lie in another file"):
        file.read("a.png")


def test_circles_end(good: Path) -> None:
    with h5py.File(good, "a") as file:
        file["deep/again"] = file["/"]
    with (
        FeatureReader(good) as file,
        pytest.raises(FeatureFileError, match=r"deep/again: a second name of another group"),
    ):
        list(file.names())


@pytest.mark.parametrize("action", ["extract", "merge"])
def test_nothing_is_written_through_a_link(good: Path, action: str) -> None:
    other = good.with_name("other.h5")
    shutil.copy(good, other)
    before = other.read_bytes()
    replace(good, "sub", h5py.ExternalLink("other.h5", "/"))

    def use() -> None:
        if action == "merge":
            merge_feature_files([good], good.with_name("m.h5"))
        with writing(good, {"feature": "x"}) as file:
            file.write("sub/c.png", random_features(2))

    with pytest.raises(FeatureFileError, match=r"f\.h5: sub: a link to other\.h5:/"):
        use()
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("options", "{}", "attribute 'options'.*: a value of variable length"),
        ("options", np.bytes_("{"), "attribute 'options': no JSON"),
        ("options", np.bytes_("[1]"), "attribute 'options': expected a JSON object"),
        ("options", np.bytes_("[" * 50_000), "attribute 'options': no JSON"),
        ("options", 3, "attribute 'options': expected a JSON object"),
        ("shard", [0, 10**9], "attribute 'shard': expected .index, count. with at most 1000000"),
        ("options", np.bytes_(b"\xff{}"), "attribute 'options'.*: damaged"),
        ("shard", [0.5, 2], "attribute 'shard'"),
        ("shard", 1, "attribute 'shard'"),
        ("missing", -1, "attribute 'missing': expected a count"),
    ],
)
def test_bad_attributes_are_named(good: Path, name: str, value: object, message: str) -> None:
    with h5py.File(good, "a") as file:
        file.attrs[name] = value
    with pytest.raises(FeatureFileError, match=rf"f\.h5: {message}"):
        merge_feature_files([good], good.with_name("m.h5"))


def test_missing_shards_are_listed_briefly(good: Path) -> None:
    with h5py.File(good, "a") as file:
        file.attrs["shard"] = [0, 900_000]
    with pytest.raises(FeatureFileError, match=r"^shard 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. of 900000 is missing$"):
        merge_feature_files([good], good.with_name("m.h5"))


def test_an_image_named_as_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    for name, image in (("f", "x"), ("g", "x/keypoints")):
        with writing(tmp_path / f"{name}.h5") as file:
            file.write(image, random_features(2))
    with pytest.raises(FeatureFileError, match=r"the image 'x' of .*f\.h5 has the name of a folder of 'x/keypoints'"):
        merge_feature_files([tmp_path / "f.h5", tmp_path / "g.h5"], tmp_path / "m.h5")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "text.h5").write_text("no")
    for name, message in (("pipe.h5", "is a pipe"), (".", "is a folder"), ("text.h5", "cannot open")):
        with pytest.raises(FeatureFileError, match=message):
            FeatureReader(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        FeatureReader(tmp_path / "absent.h5")


def test_features_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    bad = Features(np.zeros((2, 2)), np.full((2, 8), np.nan, np.float32))
    with FeatureFile(tmp_path / "f.h5", {}) as file, pytest.raises(FeatureFileError, match="2 of 2 descriptors"):
        file.write("a.png", bad)


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/./b", "a\0b"])
def test_names_that_h5_does_not_take(tmp_path: Path, name: str) -> None:
    with FeatureFile(tmp_path / "f.h5", {}) as file, pytest.raises(FeatureFileError, match="cannot be the name"):
        file.write(name, random_features(1))


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
from tests.helpers.feature_files import random_features

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
