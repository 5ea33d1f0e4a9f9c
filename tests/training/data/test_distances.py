"""Distances between many points."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kornia_lift.training.data import distances
from kornia_lift.training.data.distances import nearest_square


def test_known_distances() -> None:
    others = np.array([[0.0, 0.0], [10.0, 0.0]])
    np.testing.assert_array_equal(nearest_square(np.array([[3.0, 4.0], [8.0, 1.0]]), others), [25.0, 5.0])
    assert nearest_square(others, np.zeros((0, 2))).tolist() == [np.inf, np.inf]
    assert nearest_square(np.zeros((0, 2)), others).shape == (0,)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = np.random.default_rng(0).random((2, 50, 2))
    whole = nearest_square(points, others)
    np.testing.assert_allclose(whole, ((points[:, None] - others) ** 2).sum(-1).min(1), rtol=1e-12)
    monkeypatch.setattr(distances, "COMPARED_AT_ONCE", 170)
    np.testing.assert_array_equal(nearest_square(points, others), whole)


def test_memory_is_bounded() -> None:
    points = np.random.default_rng(0).random((20_000, 2))
    tracemalloc.start()
    try:
        nearest_square(points, points[:10_000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * 2**20
