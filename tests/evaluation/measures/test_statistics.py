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
    with pytest.raises(ValueError, match="not finite have no mean"):
        compare({"s": np.array([1.0, np.nan])}, {"s": np.ones(2)})
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean({})


def test_interval_holds_what_it_says() -> None:
    """Of 400 even values the interval of the mean is that of the normal distribution, on both sides."""
    values = np.linspace(-1, 1, 400)
    spread = values.std() / np.sqrt(len(values))
    for confidence, width in ((0.95, 1.960), (0.8, 1.282)):
        found = bootstrap_mean({"s": values}, confidence=confidence)
        assert found.low == pytest.approx(-width * spread, rel=0.05)
        assert found.high == pytest.approx(width * spread, rel=0.05)
    assert bootstrap_mean({"s": values}) == bootstrap_mean({"s": values})  # the seed decides
    assert bootstrap_mean({"s": values}, seed=5) != bootstrap_mean({"s": values})


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_wins_and_p_value_by_hand(lower_is_better: bool) -> None:
    """Three of four pairs are larger by 2, one is equal: the mean difference is positive in nearly every draw."""
    first, second = {"s": np.array([3.0, 3.0, 3.0, 1.0])}, {"s": np.array([1.0, 1.0, 1.0, 1.0])}
    found = compare(first, second, samples=999, lower_is_better=lower_is_better)
    assert (found.pairs, found.lower_is_better) == (4, lower_is_better)
    assert found.wins == (0.125 if lower_is_better else 0.875)
    assert found.ratio == 2.5
    certain = compare({"s": np.full(4, 3.0)}, second, samples=999, lower_is_better=lower_is_better)
    assert certain.p_value == pytest.approx(1 / 8)  # no draw lies on the other side, but four coins fall so
    assert certain.wins == (0 if lower_is_better else 1)
    reverse = compare(second, {"s": np.full(4, 3.0)}, samples=999, lower_is_better=lower_is_better)
    assert reverse.p_value == pytest.approx(1 / 8)
    many, none = {"s": np.full(12, 3.0)}, {"s": np.ones(12)}
    assert compare(many, none, samples=999).p_value == pytest.approx(2 / 1000)
    assert compare(second, second, samples=99).p_value == 1
    assert compare(first, {"s": np.zeros(4)}, samples=99).ratio == float("inf")
    uneven, none = {"s": np.random.default_rng(0).normal(size=11)}, {"s": np.zeros(11)}
    assert compare(uneven, none, samples=999, seed=1) != compare(uneven, none, samples=999)


def test_options_reach_the_interval_of_the_comparison() -> None:
    first, second = {"s": np.linspace(0, 1, 30)}, {"s": np.zeros(30)}
    found = compare(first, second, samples=500, seed=3, confidence=0.8)
    assert found == compare(first, second, samples=500, seed=3, confidence=0.8)
    assert found.difference == bootstrap_mean(first, samples=500, seed=3, confidence=0.8)
    wide = compare(first, second, samples=500, seed=3).difference
    assert wide.high - wide.low > found.difference.high - found.difference.low


def test_every_draw_is_filled() -> None:
    """Also the first one, and those behind the last whole block of draws."""
    found = bootstrap_mean({"s": np.full(3, 7.0)}, samples=2003, confidence=1.0)
    assert (found.low, found.high) == (7.0, 7.0)


def test_small_differences_are_wins() -> None:
    assert compare({"s": np.full(4, 1.2)}, {"s": np.ones(4)}, samples=99).wins == 1


@pytest.mark.parametrize(("pairs", "verdict"), [(1, "undecided"), (2, "undecided"), (5, "undecided"), (6, "better")])
def test_few_pairs_decide_nothing(pairs: int, verdict: str) -> None:
    """The bootstrap interval of one pair is a point, and that of a few too narrow."""
    found = compare({"s": np.full(pairs, 3.0)}, {"s": np.linspace(1, 2, pairs)}, samples=999)
    assert found.difference.low > 0
    assert found.verdict == verdict
    assert found.p_value >= 2.0 ** (1 - pairs)
