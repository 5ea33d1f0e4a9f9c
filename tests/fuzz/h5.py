"""Damaged and malicious h5 feature files, by seeded mutators, and what every reader of them must do.

    python -m tests.fuzz.h5 FIRST_SEED COUNT

checks a range of seeds in one process, which ends at a crash, after 20 s of processor time (400 s of waiting) in one
case, or if a case takes over 1 GB.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kornia_lift.features import Features
from kornia_lift.files import (
    FeatureFile,
    FeatureFileError,
    FeatureReader,
    UnreadableImageError,
    merge_feature_files,
)

SECONDS = 20
MEMORY_KB = 2**20
OPTIONS = {"feature": "x", "num_features": 6}
IMAGES = ("a.png", "deep/b.png")
DATASETS = ("keypoints", "descriptors", "scores", "scales", "oris", "image_size")
Random = np.random.Generator


def features(count: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        rng.uniform(0, 60, (count, 2)),
        rng.normal(size=(count, 8)).astype(np.float32),
        rng.random(count),
        rng.uniform(1, 4, count),
        rng.uniform(-180, 180, count),
        (64, 48),
    )


def write_good(path: Path, images: tuple[str, ...] = IMAGES) -> None:
    with FeatureFile(path, OPTIONS) as file:
        for seed, name in enumerate(images):
            file.write(name, features(6, seed))
        file.finish()


# --- mutators of what h5py can express ---------------------------------------------------------------------------


def _values(rng: Random) -> Any:
    """Something that no dataset should hold."""
    return [
        np.float32(1.0),
        np.array([], np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.full((6, 2), np.nan),
        np.full((8, 6), np.inf),
        np.full(6, -1.0),
        np.zeros(7),
        np.zeros((6, 2), np.int8),
        np.zeros((6, 2), complex),
        np.zeros(6, [("x", np.float32), ("y", np.int64)]),
        np.array([b"text"] * 6),
        np.zeros(6, bool),
        np.zeros((6, 2), np.longdouble),
        np.array([2**62, 1]),
        h5py.Empty("f"),
    ][rng.integers(15)]


def replaced(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    file[name] = _values(rng)


def removed(file: h5py.File, rng: Random) -> None:
    del file[_location(rng)]


def group_for_dataset(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    file.create_group(name).create_group("inner")


def dataset_for_group(file: h5py.File, rng: Random) -> None:
    name = ("deep", "a.png", "deep/b.png")[rng.integers(3)]
    del file[name]
    file[name] = np.zeros(3)


def huge(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    shape, chunks, limit = [
        ((20_000, 20_000), (1000, 1000), None),
        ((10**9, 10**9), (10, 10), None),
        ((2**40,), (1000,), None),
        ((6, 2), (2**14, 2**14), (None, None)),
        ((3000, 3000), (100, 100), None),
    ][rng.integers(5)]
    file.create_dataset(name, shape, np.float32, chunks=chunks, maxshape=limit)


def huge_contiguous(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    space = h5py.h5s.create_simple((10**6, 10**5))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    parent, _, leaf = name.rpartition("/")
    h5py.h5d.create(file[parent].id, leaf.encode(), h5py.h5t.IEEE_F32LE, space, properties)


def compressed(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    file.create_dataset(name, data=np.zeros((5000, 2), np.float32), compression="gzip", chunks=(5000, 2))


def linked(file: h5py.File, rng: Random) -> None:
    name = (_location(rng), "deep", "a.png", "new", "deep/new")[rng.integers(5)]
    if name in file:
        del file[name]
    outside = str(Path(file.filename).parent / "outside.h5")
    file[name] = [
        h5py.SoftLink("/absent"),
        h5py.SoftLink("/"),
        h5py.SoftLink(f"/{name}"),
        h5py.SoftLink("/a.png"),
        h5py.ExternalLink(outside, "/"),
        h5py.ExternalLink(outside, "/a.png"),
        h5py.ExternalLink(file.filename, "/"),
        h5py.ExternalLink("absent.h5", "/x"),
    ][rng.integers(8)]


def circle(file: h5py.File, rng: Random) -> None:
    file[("new", "deep/new", "deep/b.png/new", "a.png/new")[rng.integers(4)]] = file[
        ("/", "deep", "a.png")[rng.integers(3)]
    ]


def stored_elsewhere(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    outside = Path(file.filename).parent / "outside.h5"
    if rng.integers(2):
        layout = h5py.VirtualLayout((6, 2), np.float32)
        layout[:] = h5py.VirtualSource(str(outside), "a.png/keypoints", (6, 2))
        file.create_virtual_dataset(name, layout)
    else:
        file.create_dataset(name, (6, 2), np.float32, external=[(str(outside), 0, 48)])


def odd_types(file: h5py.File, rng: Random) -> None:
    name = _location(rng)
    del file[name]
    kind = rng.integers(4)
    if kind == 0:
        file.create_dataset(name, 6, h5py.string_dtype())
    elif kind == 1:
        file.create_dataset(name, 6, h5py.vlen_dtype(np.float32))
    elif kind == 2:
        file.create_dataset(name, 6, h5py.ref_dtype)
    else:
        file[name] = np.dtype("f4")  # a named type


def attributes(file: h5py.File, rng: Random) -> None:
    name = ("options", "shard", "missing", "format", "name")[rng.integers(5)]
    value = [
        np.bytes_("{"),
        "[1, 2]",
        np.bytes_('{"a": ' * 3000),
        np.bytes_("[" * 50_000),
        np.bytes_('{"n": 1' + "0" * 9000 + "}"),
        np.bytes_(json.dumps({**OPTIONS, "feature": [None]})),
        b"\xff\xfe",
        np.array([0, 10**9]),
        np.array([5, 2]),
        np.array([-1, 2]),
        np.array([0.5, np.nan]),
        np.int64(-3),
        np.int64(99),
        np.float64(np.nan),
        h5py.Empty("f"),
        np.zeros(3000),
        "",
    ][rng.integers(17)]
    file.attrs[name] = value


def group_attributes(file: h5py.File, rng: Random) -> None:
    node = file[("a.png", "a.png/keypoints", "deep", "deep/b.png")[rng.integers(4)]]
    node.attrs[("error", "unreadable", "fingerprint", "uncertainty")[rng.integers(4)]] = [
        "why",
        True,
        np.nan,
        -1.0,
        np.zeros(4),
        h5py.Empty("f"),
        np.array([b"x"] * 3),
    ][rng.integers(7)]


def _location(rng: Random) -> str:
    return f"{IMAGES[rng.integers(2)]}/{DATASETS[rng.integers(len(DATASETS))]}"


STRUCTURED: tuple[Callable[[h5py.File, Random], None], ...] = (
    replaced,
    removed,
    group_for_dataset,
    dataset_for_group,
    huge,
    huge_contiguous,
    compressed,
    linked,
    circle,
    stored_elsewhere,
    odd_types,
    attributes,
    group_attributes,
)


# --- mutators of bytes -------------------------------------------------------------------------------------------


def damage(path: Path, rng: Random) -> str:
    data = bytearray(path.read_bytes())
    kind = ("cut", "flip", "fill", "insert", "copy")[rng.integers(5)]
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, 64))
    if kind == "cut":
        data = data[:start]
    elif kind == "flip":
        for k in rng.integers(0, len(data), length):
            data[k] ^= 1 << int(rng.integers(8))
    elif kind == "fill":
        data[start : start + length] = bytes([(0, 255, 127)[rng.integers(3)]]) * len(data[start : start + length])
    elif kind == "insert":
        data[start:start] = rng.bytes(length)
    else:
        other = int(rng.integers(len(data)))
        data[start : start + length] = data[other : other + length]
    path.write_bytes(data)
    return kind


def mutate(path: Path, seed: int) -> str:
    """Damage a file and say how."""
    rng = np.random.default_rng(seed)
    if rng.integers(3) == 0:
        return damage(path, rng)
    names = []
    with h5py.File(path, "a") as file:
        for _ in range(rng.integers(1, 3)):
            mutator = STRUCTURED[rng.integers(len(STRUCTURED))]
            names.append(mutator.__name__)
            try:
                mutator(file, rng)
            except (KeyError, ValueError, TypeError, OSError, RuntimeError):  # the second one meets what the first left
                names.append("impossible")
    return " ".join(names)


# --- what must hold ----------------------------------------------------------------------------------------------


def read_everything(path: Path) -> None:
    with FeatureReader(path) as file:
        for name in file.names():
            try:
                file.read(name)
            except FeatureFileError as error:
                _names_the_file(error, path)


def _names_the_file(error: FeatureFileError, path: Path) -> None:
    message = str(error)
    recorded = isinstance(error, UnreadableImageError) or message.startswith("extraction failed")
    if not recorded and not message.startswith("shard") and path.name not in message:
        raise AssertionError(f"an error without the name of the file: {message}")


def check(folder: Path, path: Path) -> None:
    """Read, merge and continue a file: only documented errors, nothing left behind, no other file touched."""
    outside = (folder / "outside.h5").read_bytes()
    for use in (read_everything, _merge, _continue):
        try:
            use(path)
        except FeatureFileError as error:
            _names_the_file(error, path)
    assert (folder / "outside.h5").read_bytes() == outside
    left = {p.name for p in folder.iterdir()} - {"bad.h5", "good.h5", "outside.h5", "merged.h5"}
    assert left <= {"bad.h5.parts"}, left


def _merge(path: Path) -> None:
    target = path.with_name("merged.h5")
    target.unlink(missing_ok=True)
    try:
        merge_feature_files([path.with_name("good.h5"), path], target)
    except FeatureFileError:
        assert not target.exists()
        raise
    for linked in _links(path):
        raise AssertionError(f"the link {linked} was followed")


def _continue(path: Path) -> None:
    with FeatureFile(path, OPTIONS) as file:
        file.write("c.png", features(6, 3))
        file.finish()


def _links(path: Path) -> list[str]:
    found: list[str] = []
    try:
        with h5py.File(path) as file:
            groups, seen = [file], set()  # `visititems_links` is of h5py from 3.12 on
            while groups:
                group = groups.pop()
                address = h5py.h5o.get_info(group.id).addr
                if address in seen:  # a circle of hard links
                    continue
                seen.add(address)
                for name in group:
                    if isinstance(group.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink):
                        found.append(f"{group.name}/{name}")
                    elif isinstance(inner := group[name], h5py.Group):
                        groups.append(inner)
    except (KeyError, OSError, RuntimeError, ValueError):  # of a damaged file; what was found before counts
        pass
    return found


def run(seeds: range) -> int:
    """Check seeds one by one; returns the number of files that could be read in spite of all."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_good(folder / "good.h5", ("other.png",))
        write_good(folder / "outside.h5")
        write_good(folder / "template.h5")
        template = (folder / "template.h5").read_bytes()
        (folder / "template.h5").unlink()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in seeds:
            path = folder / "bad.h5"
            path.write_bytes(template)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # processor time: machines are busy
            signal.alarm(20 * SECONDS)  # waiting
            how = mutate(path, seed)
            print(seed, how, flush=True)  # the last line of a process that dies names the case
            check(folder, path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            shutil.rmtree(folder / "bad.h5.parts", ignore_errors=True)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert memory < MEMORY_KB, f"{memory} kB"
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    sys.exit(run(range(first, first + count)))
