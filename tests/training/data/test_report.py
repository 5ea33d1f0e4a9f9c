"""What `check-dataset` and `train` say of data that are too little."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kornia_lift.training.data.report import FEW_HELD_OUT, FEW_TRAINING, shortages
from kornia_lift.training.data.store import Observations, Store

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


def test_nothing_to_hold_out(tiny_store: Store) -> None:
    (line,) = shortages(tiny_store, dataclasses.replace(tiny_store, images=()))
    assert line.startswith("nothing can be held out")
