"""Means over pairs and scenes with bootstrap intervals, and whether one feature beats another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kornia_lift.scenes.scene import FloatArray

_CHUNK = 2000
#: With fewer pairs not even winning all of them is significant: 6 wins of 6 have a two-sided p of 1 / 32.
FEWEST_PAIRS = 6


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: mean over the pairs of a scene, then over scenes.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of A with B on the same pairs.

    Attributes:
        difference: mean of A minus mean of B, with its interval.
        ratio: mean of A over mean of B; infinity if B's is 0.
        wins: share of pairs where A is better, ties counted half.
        p_value: two-sided bootstrap probability of a difference this far from zero; at least the probability of
            winning all pairs by chance.
        pairs: number of pairs both were measured on.
        lower_is_better: whether the smaller value is the better one, as for errors.
    """

    difference: Estimate
    ratio: float
    wins: float
    p_value: float
    pairs: int
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``: whether the interval of the difference leaves out zero.

        Always undecided for fewer than :data:`FEWEST_PAIRS`, whose interval is too narrow: that of one pair is a point.
        """
        if self.pairs < FEWEST_PAIRS or self.difference.low <= 0 <= self.difference.high:
            return "undecided"
        return "better" if (self.difference.low > 0) != self.lower_is_better else "worse"


def bootstrap_mean(
    values: dict[str, FloatArray], *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean over scenes of the mean over pairs, with a percentile bootstrap interval (Efron, 1979).

    Pairs are drawn with replacement within each scene, so every scene keeps its weight. Pairs of a scene share
    images and are not independent: the interval covers the choice of pairs, not of other scenes.

    Args:
        values: for each scene the values of its pairs, shape (n,).
        confidence: of the interval, 0 to 1.
        samples: bootstrap samples.
        seed: of the draws.

    Raises:
        ValueError: if there is no value.
    """
    drawn = _bootstrap(values, samples, seed)
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    mean = float(np.mean([np.mean(v) for v in values.values() if len(v)]))
    return Estimate(mean, float(low), float(high))


def compare(
    first: dict[str, FloatArray],
    second: dict[str, FloatArray],
    *,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
    lower_is_better: bool = False,
) -> Comparison:
    """Whether A beats B, by paired bootstrap over the same pairs.

    Args:
        first: values of A by scene, shape (n,) each.
        second: values of B by scene for the same pairs in the same order.
        confidence: of the interval, 0 to 1.
        samples: bootstrap samples.
        seed: of the draws.
        lower_is_better: for errors.

    Raises:
        ValueError: if scenes or numbers of pairs differ, or a value is not finite.
    """
    if first.keys() != second.keys() or any(len(first[k]) != len(second[k]) for k in first):
        raise ValueError("A and B must be measured on the same pairs")
    if not all(np.isfinite(values).all() for table in (first, second) for values in table.values()):
        raise ValueError("values that are not finite have no mean")
    differences = {k: first[k] - second[k] for k in first}
    estimate = bootstrap_mean(differences, confidence=confidence, samples=samples, seed=seed)
    drawn = _bootstrap(differences, samples, seed)
    # One is added to both counts so that the probability is never exactly 0 (Davison and Hinkley, 1997, 4.2).
    below, above = (np.sum(drawn <= 0) + 1) / (samples + 1), (np.sum(drawn >= 0) + 1) / (samples + 1)
    mean_second = float(np.mean([np.mean(v) for v in second.values() if len(v)]))
    mean_first = mean_second + estimate.value
    every = np.concatenate(list(differences.values())) * (-1 if lower_is_better else 1)
    return Comparison(
        estimate,
        mean_first / mean_second if mean_second else float("inf"),
        float(np.mean((every > 0) + 0.5 * (every == 0))),
        float(min(1.0, max(2 * min(below, above), 2.0 ** (1 - len(every))))),
        len(every),
        lower_is_better,
    )


def _bootstrap(values: dict[str, FloatArray], samples: int, seed: int) -> FloatArray:
    """Bootstrap samples of the mean over scenes, shape (samples,)."""
    scenes = [np.asarray(v, dtype=np.float64) for v in values.values() if len(v)]
    if not scenes:
        raise ValueError("there is no value to average")
    generator = np.random.default_rng(seed)
    total = np.zeros(samples)
    for scene in scenes:
        for start in range(0, samples, _CHUNK):
            rows = slice(start, min(start + _CHUNK, samples))
            draw = generator.integers(len(scene), size=(rows.stop - rows.start, len(scene)))
            total[rows] += scene[draw].mean(axis=1)
    return total / len(scenes)
