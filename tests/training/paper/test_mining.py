"""Hard mining keeps what has the largest loss, by the paper's schedule."""

from __future__ import annotations

import pytest
import torch

from kornia_lift.training.paper.mining import doubling_ratio, hardest, mine


@pytest.mark.parametrize(
    ("step", "ratio"), [(0, 1), (4999, 1), (5000, 2), (9999, 2), (10_000, 4), (15_000, 8), (10**9, 8)]
)
def test_the_ratio_doubles_every_5000_batches_up_to_8(step: int, ratio: int) -> None:
    assert doubling_ratio(step) == ratio


def test_another_cap_is_reached_exactly() -> None:
    assert [doubling_ratio(s, every=1, cap=5) for s in range(5)] == [1, 2, 4, 5, 5]


def test_hardest_takes_the_largest_and_no_more_than_there_are() -> None:
    losses = torch.tensor([0.1, 5.0, 3.0, 4.0])
    assert set(hardest(losses, 2).tolist()) == {1, 3}
    assert set(hardest(losses, 9).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_mine_keeps_the_rows_of_all_tensors_together(chunk: int) -> None:
    value = torch.tensor([1.0, 9.0, 2.0, 8.0, 3.0])
    batch = {"value": value, "index": torch.arange(5)}
    kept = mine(batch, lambda part: part["value"], 2, chunk)
    assert sorted(zip(kept["index"].tolist(), kept["value"].tolist(), strict=True)) == [(1, 9.0), (3, 8.0)]


def test_mining_records_no_gradient() -> None:
    weight = torch.ones((), requires_grad=True)
    kept = mine({"x": torch.randn(8)}, lambda part: part["x"] * weight, 4, 8)
    assert not kept["x"].requires_grad
