"""What is held out of the training, on data that declare a split and on anyone's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kornia_lift.training.data.split import SplitConfig, check_apart, describe_sides, split_store
from kornia_lift.training.data.store import Kind, Observations, Store, StoredImage


def make(*units: str, images: int = 2) -> Store:
    """A store of scenes (``a``), exposures (``illumination/a``) and single images (``photos/a``), never decoded."""
    stored: list[StoredImage] = []
    rows: list[tuple[int, int]] = []
    for point, unit in enumerate(units):
        kind: Kind = "single" if unit.startswith("photos") else "exposures" if unit.startswith("ill") else "sfm"
        for number in range(1 if kind == "single" else images):
            name = unit if kind == "single" else f"{unit}/{number}"
            rows.append((len(stored), point))
            stored.append(StoredImage(name, unit, kind, name.encode()))
    image, point_of = np.array(rows).T
    n = len(rows)
    tracks = Observations(image, point_of, np.zeros((n, 2)), np.full(n, 2.0), np.zeros(n))
    return Store(tuple(stored), tracks, Observations.none())


def names(store: Store, config: SplitConfig | None = None) -> tuple[list[str], list[str]]:
    return describe_sides(*split_store(store, config))


def test_of_undeclared_data_a_share_of_each_class_is_held_out() -> None:
    photos = [f"photos/{i}.jpg" for i in range(10)]
    units = ["sfm/church", "sfm/market", *photos, "illumination/room"]
    train, held_out = names(make(*units))
    assert sorted(train + held_out) == sorted(units)
    assert [sum(n.startswith(kind) for n in held_out) for kind in ("sfm", "photos", "illumination")] == [1, 2, 0]
    assert names(make(*units)) == (train, held_out)
    others = {tuple(names(make(*units), SplitConfig(seed=s))[1]) for s in range(5)}
    assert len(others) > 1
    assert len(names(make(*units), SplitConfig(share=0.5))[1]) == 6
    assert names(make(*units), SplitConfig(share=0.0))[1] == []


def test_declared_names_win_class_by_class() -> None:
    photos = [f"photos/{i}.jpg" for i in range(5)]
    for root in ("sfm/", ""):  # read from a data set, or built one by one
        store = make(f"{root}reichstag", f"{root}a", f"{root}b", *photos)
        _, held_out = names(store)
        assert [n for n in held_out if not n.startswith("photos")] == [f"{root}reichstag"]
        assert sum(n.startswith("photos") for n in held_out) == 1
    store = make("sfm/reichstag", "sfm/a", "sfm/b", *photos)
    own = SplitConfig(held_out=("sfm/[ab]", "photos/3.jpg"))
    assert names(store, own)[1] == ["photos/3.jpg", "sfm/a", "sfm/b"]
    with pytest.raises(ValueError, match="held_out names 'sfm/c', which is not in the data"):
        names(store, SplitConfig(held_out=("sfm/c",)))
    with pytest.raises(ValueError, match="share must be below 1, got 1"):
        SplitConfig(share=1.0)


def with_bytes(store: Store, copies: dict[str, str]) -> Store:
    """The store with the bytes of some images, by name, replaced by those of others."""
    of = {image.name: image.jpeg for image in store.images}
    images = tuple(dataclasses.replace(i, jpeg=of[copies.get(i.name, i.name)]) for i in store.images)
    return dataclasses.replace(store, images=images)


def test_copies_of_an_image_stay_on_one_side() -> None:
    store = make(*(f"photos/{i}.jpg" for i in range(12)), "sfm/a", "sfm/b")
    copies = {f"photos/{i}.jpg": f"photos/{i + 1}.jpg" for i in range(0, 12, 2)}
    store = with_bytes(store, {**copies, "photos/5.jpg": "sfm/a/1", "photos/4.jpg": "sfm/a/1"})
    for seed in range(20):
        _, held_out = names(store, SplitConfig(seed=seed, share=0.4))
        assert 0 < len(held_out) <= 7
        for i in range(0, 12, 2):
            assert (f"photos/{i}.jpg" in held_out) == (f"photos/{i + 1}.jpg" in held_out)
        assert ("photos/4.jpg" in held_out) == ("sfm/a" in held_out)


def crossing_scene() -> Store:
    """Twelve images of one scene and 60 locations, each in seven of them; the position says image and location."""
    rng = np.random.default_rng(0)
    images, points = 12, 60
    image = np.concatenate([rng.permutation(images)[:7] for _ in range(points)])
    point = np.repeat(np.arange(points), 7)
    n = len(image)
    tracks = Observations(image, point, np.stack([image, point], 1), np.full(n, 2.0), np.zeros(n))
    empty = Observations(
        np.arange(images), np.full(images, -1), np.zeros((images, 2)), np.ones(images), np.zeros(images)
    )
    return Store(tuple(StoredImage(f"s/{i}", "s", "sfm", bytes([i])) for i in range(images)), tracks, empty)


def test_a_scene_alone_is_divided_by_images_and_locations() -> None:
    store = crossing_scene()
    train, held = split_store(store, SplitConfig(share=0.4, seed=1))
    assert not set(train.names) & set(held.names)
    assert set(train.names) | set(held.names) == set(store.names)
    assert not set(train.tracks.point) & set(held.tracks.point)
    for part in (train, held):
        assert np.bincount(part.tracks.point)[np.unique(part.tracks.point)].min() >= 2
        for row in range(len(part.tracks)):
            assert part.names[part.tracks.image[row]] == f"s/{int(part.tracks.xy[row, 0])}"
            assert part.tracks.point[row] == part.tracks.xy[row, 1]
        assert len(part.empty) == len(part.names)
    sides = describe_sides(train, held)
    assert sorted(sides[0] + sides[1]) == sorted(store.names)
    assert not len(split_store(store, SplitConfig(share=0.0))[1].images)
    assert not len(split_store(make("church", images=3))[1].tracks)


def test_a_scene_beside_something_else_to_hold_out_stays_whole() -> None:
    assert names(make("church", "photos/a.jpg", "photos/b.jpg"))[0][0] == "church"


def test_a_sift_frame_that_loses_its_partner_is_no_pair() -> None:
    store = crossing_scene()
    sigma = store.tracks.sigma.copy()
    sigma[(store.tracks.image > 3)] = 0
    train, _ = split_store(dataclasses.replace(store, tracks=dataclasses.replace(store.tracks, sigma=sigma)))
    with_sift = train.tracks.point[train.tracks.sigma > 0]
    assert len(with_sift) and (np.bincount(with_sift)[np.unique(with_sift)] >= 2).all()
    assert len(train.tracks) > len(with_sift)


def test_validation_data_must_not_be_training_data() -> None:
    one, other = make("a", "b"), with_bytes(make("c", "d"), {})
    check_apart(one, other)
    copy = dataclasses.replace(other.images[0], jpeg=one.images[1].jpeg)
    with pytest.raises(ValueError, match=r"1 of 4 images .* c/0 \(in the training data as a/1\)"):
        check_apart(one, dataclasses.replace(other, images=(copy, *other.images[1:])))
