"""What is stored is what is read; a damaged file is named and never half read."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.training.data.store import (
    Places,
    Store,
    StoreError,
    encode_jpeg,
    join_stores,
    load_store,
    pack_stores,
    save_store,
    split_store,
    store_bytes,
)


def same(a: Places, b: Places) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Places))


def test_round_trip(tiny_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_store(path, tiny_store)
    read = load_store(path)
    assert read.names == tiny_store.names
    assert read.jpeg == tiny_store.jpeg
    assert same(read.places, tiny_store.places)
    assert same(read.empty, tiny_store.empty)
    assert [tuple(read.decode(i).shape) for i in range(3)] == [(120, 160), (100, 90), (80, 80)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.999])
def test_a_truncated_file_is_named(tiny_store: Store, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.npz"
    save_store(path, tiny_store)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(StoreError, match=r"cut\.npz .* is cut off, damaged or no training store"):
        load_store(path)


@pytest.mark.parametrize("part", ["jpeg", "places_xy", "empty_sigma"])
def test_a_flipped_bit_is_found(tiny_store: Store, tmp_path: Path, part: str) -> None:
    path = tmp_path / "flipped.npz"
    save_store(path, tiny_store)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo(f"{part}.npy")
    raw[info.header_offset + 30 + len(info.filename) + info.compress_size - 1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match=r"flipped\.npz"):
        load_store(path)


def test_another_version_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", version=np.array(7))
    with pytest.raises(StoreError, match="version 7, this package reads version 1; build it again"):
        load_store(tmp_path / "old.npz")


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(StoreError, match=r"other\.npz"):
        load_store(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="build-dataset"):
        load_store(tmp_path / "none.npz")


def test_pickled_objects_are_not_executed(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", version=np.array({"a": 1}, dtype=object))
    with pytest.raises(StoreError, match=r"evil\.npz"):
        load_store(tmp_path / "evil.npz")


def test_places_outside_the_photographs_are_refused(tiny_store: Store, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        tiny_store, places=dataclasses.replace(tiny_store.places, image=np.array([0, 1, 0, 9]))
    )
    save_store(tmp_path / "a.npz", broken)
    with pytest.raises(StoreError, match="places in photographs that it does not hold"):
        load_store(tmp_path / "a.npz")


def test_a_failed_write_leaves_the_old_file(tiny_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_store(path, tiny_store)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="one name per photograph"):
        save_store(path, dataclasses.replace(tiny_store, names=("a",)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_joined_stores_keep_photographs_and_points_apart(tiny_store: Store) -> None:
    both = join_stores([tiny_store, tiny_store])
    assert len(both.names) == 6
    assert both.places.image.tolist() == [0, 1, 0, 2, 3, 4, 3, 5]
    assert both.places.point.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert both.empty.image.tolist() == [2, 5]
    assert both.empty.point.tolist() == [-1, -1]


def test_packs_keep_the_limit_and_everything(tiny_store: Store, tmp_path: Path) -> None:
    size = store_bytes(tiny_store)
    save_store(tmp_path / "one.npz", tiny_store)
    assert 0.3 * size < (tmp_path / "one.npz").stat().st_size <= size
    packs = pack_stores([tiny_store] * 5, 2 * size)
    assert [len(p) for p in packs] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"the store of 'a/1' has .* the limit is 10"):
        pack_stores([tiny_store], 10)


def test_nothing_crosses_a_split() -> None:
    rng = np.random.default_rng(0)
    photographs, points = 12, 60
    image = np.concatenate([rng.permutation(photographs)[:7] for _ in range(points)])
    point = np.repeat(np.arange(points), 7)
    # the position tells photograph and point, wherever a row ends up
    places = Places(image, point, np.stack([image, point], 1), np.full(len(image), 2.0), np.zeros(len(image)))
    empty = Places(np.arange(photographs), np.full(photographs, -1), np.zeros((photographs, 2)),
                   np.ones(photographs), np.zeros(photographs))  # fmt: skip
    jpeg = encode_jpeg(np.zeros((8, 8), np.uint8))
    store = Store(tuple(f"s/{i}" for i in range(photographs)), (jpeg,) * photographs, places, empty)
    train, held = split_store(store, 0.4, seed=1)
    assert not set(train.names) & set(held.names)
    assert set(train.names) | set(held.names) == set(store.names)
    assert not set(train.places.point) & set(held.places.point)
    for part in (train, held):
        assert np.bincount(part.places.point)[np.unique(part.places.point)].min() >= 2
        for row in range(len(part.places)):
            assert part.names[part.places.image[row]] == f"s/{int(part.places.xy[row, 0])}"
            assert part.places.point[row] == part.places.xy[row, 1]
        assert len(part.empty) == len(part.names)


def test_a_split_without_pairs_says_so(tiny_store: Store) -> None:
    places = tiny_store.places.take(tiny_store.places.point == 0)
    with pytest.raises(ValueError, match="give a validation store of its own"):
        split_store(dataclasses.replace(tiny_store, places=places), 0.2)
