"""Feature files that are damaged, hostile or cannot be written: each is refused with its reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from kornia_lift.features import Features
from kornia_lift.files import (
    FeatureFile,
    FeatureFileError,
    FeatureReader,
    merge_feature_files,
)
from tests.helpers.feature_files import random_features, replace, writing


@pytest.fixture
def good(tmp_path: Path) -> Path:
    with writing(tmp_path / "f.h5", {"feature": "x"}) as file:
        file.write("a.png", random_features(6))
        file.write("deep/b.png", random_features(6, seed=1))
    return tmp_path / "f.h5"


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
        ("options", np.bytes_("{"), "attribute 'options': not JSON"),
        ("options", np.bytes_("[1]"), "attribute 'options': expected a JSON object"),
        ("options", np.bytes_("[" * 50_000), "attribute 'options': not JSON"),
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
