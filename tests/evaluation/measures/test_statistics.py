"""Bootstrap intervals and the comparison of two features."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.evaluation.measures.statistics import bootstrap_mean, compare


def test_interval_agrees_with_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    found = bootstrap_mean({"a": values})
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.001)


def test_scenes_weigh_the_same() -> None:
    found = bootstrap_mean({"large": np.ones(100), "small": np.zeros(2)})
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_comparison_is_paired() -> None:
    generator = np.random.default_rng(1)
    difficulty = generator.uniform(0, 1, 40)
    a, b = difficulty + 0.02 + generator.normal(0, 0.005, 40), difficulty
    found = compare({"s": a}, {"s": b})
    assert found.verdict == "better"  # far below the spread between pairs, yet certain pair by pair
    assert found.p_value < 0.01
    assert found.ratio == pytest.approx(a.mean() / b.mean())
    assert compare({"s": b}, {"s": a}).verdict == "worse"
    same = compare({"s": b}, {"s": b})
    assert (same.verdict, same.wins, same.p_value) == ("undecided", 0.5, 1.0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same pairs"):
        compare({"s": np.ones(3)}, {"s": np.ones(4)})
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean({})
