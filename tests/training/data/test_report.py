"""What `check-dataset` and `train` say of data that are too little."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kornia_lift.training.data.posed_pairs import PairConfig, count_pairs, posed_pairs
from kornia_lift.training.data.report import (
    FEW_HELD_OUT,
    FEW_TRAINING,
    can_train,
    describe_data,
    funnel_lines,
    shortages,
)
from kornia_lift.training.data.store import Observations, Store
from tests.helpers.plane_store import plane_in_two_views

PAPER = "all stages of the paper's recipe"
MODERN = "descriptor, orientation and refine of the modern and compact recipes"


def seen_twice(count: int, store: Store) -> Store:
    """The store with two views of each of ``count`` locations."""
    n = 2 * count
    point = np.arange(n) // 2
    tracks = Observations(np.arange(n) % 2, point, np.full((n, 2), 50.0), np.full(n, 2.0), np.zeros(n))
    return dataclasses.replace(store, tracks=tracks)


def test_enough_data_have_no_shortage(tiny_store: Store) -> None:
    assert shortages(seen_twice(FEW_TRAINING, tiny_store), seen_twice(FEW_HELD_OUT, tiny_store)) == []


@pytest.mark.parametrize(("count", "text"), [(0, "0 training locations"), (1, "1 training location, at least 2")])
def test_a_recipe_that_would_refuse_the_data_cannot_run(tiny_store: Store, count: int, text: str) -> None:
    lines = shortages(seen_twice(count, tiny_store), seen_twice(FEW_HELD_OUT, tiny_store))
    assert [line.partition(":")[0] for line in lines] == [f"{PAPER} cannot run", f"{MODERN} cannot run"]
    assert all(text in line and "add images" in line for line in lines)


@pytest.mark.parametrize("count", [2, FEW_TRAINING - 1])
def test_few_locations_are_too_little(tiny_store: Store, count: int) -> None:
    lines = shortages(seen_twice(count, tiny_store), seen_twice(FEW_HELD_OUT - 1, tiny_store))
    assert [line.partition(":")[0] for line in lines] == [f"too little for {s}" for s in (PAPER, MODERN)] * 2
    assert f"{count} training locations" in lines[0] and "over-fitting" in lines[0]
    assert f"{FEW_HELD_OUT - 1} held-out locations" in lines[2] and "mostly chance" in lines[2]


def test_the_paper_needs_regions_without_keypoints(tiny_store: Store) -> None:
    enough = seen_twice(FEW_TRAINING, tiny_store)
    (line,) = shortages(dataclasses.replace(enough, empty=Observations.none()), enough)
    assert line.startswith(f"{PAPER} cannot run: no training region without keypoints") and "smooth parts" in line


def test_counts_agree_with_their_nouns_and_places_with_the_kind(tiny_store: Store) -> None:
    one = dataclasses.replace(tiny_store, empty=tiny_store.empty.take(np.arange(1)))
    text = "\n".join(describe_data(one, one, one))
    assert "and 1 empty region for the paper's recipe" in text
    assert "0 pairs of images with cameras, and warped crops of the 3 images" in text
    assert [line.split() for line in funnel_lines({"images": 1, "found": 1})] == [["1", "image"], ["1", "location"]]
    assert [line.split() for line in funnel_lines({"images": 2, "found": 0})] == [["2", "images"], ["0", "locations"]]
    assert funnel_lines({"found": 9, "supported": 3})[-1].endswith("whole support (41 sigma) inside the image  (-6)")
    assert "inside two images" in funnel_lines({"found": 9, "tracked": 8, "supported": 3})[-1]


def test_pairs_for_the_detector_are_those_that_it_is_trained_on() -> None:
    pytest.importorskip("pycolmap")
    store, _ = plane_in_two_views()
    config = PairConfig(min_shared=5, max_overlap=1.0)
    count = len(posed_pairs(store, config)[1])
    assert count_pairs(store, config) == count == 1


@pytest.mark.parametrize(("train", "held_out", "possible"), [(2, 2, True), (1, 2, False), (2, 1, False), (0, 9, False)])
def test_without_a_pair_on_either_side_nothing_can_be_trained(
    tiny_store: Store, train: int, held_out: int, possible: bool
) -> None:
    assert can_train(seen_twice(train, tiny_store), seen_twice(held_out, tiny_store)) == possible


def test_nothing_to_hold_out(tiny_store: Store) -> None:
    (line,) = shortages(tiny_store, dataclasses.replace(tiny_store, images=()))
    assert line.startswith("nothing can be held out")
