"""What is stored is what is read; a damaged file is named and never half read."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.training.data.packing import pack_stores, store_bytes
from kornia_lift.training.data.store import (
    Camera,
    Observations,
    Store,
    StoreError,
    join_stores,
    load_store,
    save_store,
)


def same(a: Observations, b: Observations) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Observations))


def test_round_trip(tiny_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_store(path, tiny_store)
    read = load_store(path)
    assert read.counts == tiny_store.counts
    assert read.images == tiny_store.images
    assert same(read.tracks, tiny_store.tracks)
    assert same(read.empty, tiny_store.empty)
    assert [tuple(read.decode(i).shape) for i in range(3)] == [(120, 160), (100, 90), (80, 80)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.999])
def test_a_truncated_file_is_named(tiny_store: Store, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.npz"
    save_store(path, tiny_store)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(StoreError, match=r"cut\.npz is damaged .* truncated or damaged: copy it again, or delete "):
        load_store(path)


@pytest.mark.parametrize("part", ["jpeg", "tracks_xy", "empty_sigma"])
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
    with pytest.raises(StoreError, match="version 7, this package reads version 2; delete "):
        load_store(tmp_path / "old.npz")


def test_what_has_to_be_built_again_is_named_with_its_record(tmp_path: Path) -> None:
    path, record = tmp_path / "old.npz", tmp_path / "old.json"
    np.savez(path, version=7)
    with pytest.raises(StoreError, match=rf"delete {path}, and build it again by `kornia-lift build-dataset`"):
        load_store(path)
    record.touch()
    with pytest.raises(StoreError, match=rf"delete {path} and {record}, and build it again"):
        load_store(path)


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


def test_views_outside_the_images_are_refused(tiny_store: Store, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        tiny_store, tracks=dataclasses.replace(tiny_store.tracks, image=np.array([0, 1, 0, 9]))
    )
    save_store(tmp_path / "a.npz", broken)
    with pytest.raises(StoreError, match="views in images that it does not hold"):
        load_store(tmp_path / "a.npz")


def test_a_failed_write_leaves_the_old_file(tiny_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_store(path, tiny_store)
    before = path.read_bytes()
    broken = dataclasses.replace(tiny_store.images[0], kind="film")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in tuple"):
        save_store(path, dataclasses.replace(tiny_store, images=(broken,)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_joined_stores_keep_images_and_points_apart(tiny_store: Store) -> None:
    other = tuple(dataclasses.replace(image, name=f"other/{image.name}") for image in tiny_store.images)
    both = join_stores([tiny_store, dataclasses.replace(tiny_store, images=other)])
    assert len(both.names) == 6
    with pytest.raises(ValueError, match="are called 'a/1'; rename a folder"):
        join_stores([tiny_store, tiny_store])
    assert both.tracks.image.tolist() == [0, 1, 0, 2, 3, 4, 3, 5]
    assert both.tracks.point.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert both.empty.image.tolist() == [2, 5]
    assert both.empty.point.tolist() == [-1, -1]


def test_the_repeated_name_is_said_however_many_images_there_are(tiny_store: Store) -> None:
    image = tiny_store.images[0]
    many = [dataclasses.replace(image, name=f"many/{n}") for n in range(10_000)]
    store = Store((*many, image, image), Observations.none(), Observations.none())
    with pytest.raises(ValueError, match=f"two images of the training data are called {image.name!r}"):
        join_stores([store])


def test_packs_keep_the_limit_and_everything(tiny_store: Store, tmp_path: Path) -> None:
    size = store_bytes(tiny_store)
    save_store(tmp_path / "one.npz", tiny_store)
    assert 0.3 * size < (tmp_path / "one.npz").stat().st_size <= size
    packs = pack_stores([tiny_store] * 5, 2 * size)
    assert [len(p) for p in packs] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"the store of 'a/1' has .* the limit is 10"):
        pack_stores([tiny_store], 10)


def test_cameras_survive_the_file(tiny_store: Store, tmp_path: Path) -> None:
    camera = Camera("SIMPLE_RADIAL", (500.0, 80.0, 60.0, 0.1), (160, 120), np.eye(3), np.array([1.0, 2, 3]))
    images = (dataclasses.replace(tiny_store.images[0], camera=camera), *tiny_store.images[1:])
    save_store(tmp_path / "a.npz", dataclasses.replace(tiny_store, images=images))
    read = load_store(tmp_path / "a.npz")
    found = read.images[0].camera
    assert found is not None and read.images[1].camera is None
    assert (found.model, found.params, found.size) == (camera.model, camera.params, camera.size)
    np.testing.assert_array_equal(found.translation, camera.translation)
