"""The losses against the paper's equations, worked by hand, and against independent numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.training.paper import losses


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_descriptor_loss_is_the_distance_of_positives_and_a_hinge_at_4_for_negatives() -> None:
    a = torch.zeros(4, 2, dtype=torch.float64)
    b = torch.tensor([[3.0, 4.0], [0.6, 0.8], [3.0, 4.0], [0.6, 0.8]], dtype=torch.float64)
    loss = losses.descriptor_loss(a, b, torch.tensor([True, True, False, False]))
    torch.testing.assert_close(loss, torch.tensor([5.0, 1.0, 0.0, 3.0], dtype=torch.float64))


def test_equal_descriptors_have_a_finite_gradient() -> None:
    a = torch.ones(2, 8, requires_grad=True)
    losses.descriptor_loss(a, a.detach().clone(), torch.tensor([True, False])).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_a_broadcast_of_descriptors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(B, D\)"):
        losses.orientation_loss(torch.zeros(3, 8), torch.zeros(1, 8))


def test_orientation_and_pair_loss_are_distances() -> None:
    a, b = torch.zeros(1, 2), torch.tensor([[6.0, 8.0]])
    assert losses.orientation_loss(a, b).item() == pytest.approx(10)
    assert losses.pair_loss(a, b).item() == pytest.approx(10)


def test_classification_loss_weighs_the_negative_like_the_three_positives() -> None:
    # all right; all undecided; one positive at -1: (1/6)*2^2; the negative at 0.5: (3/6)*1.5^2
    scores = torch.tensor([[1.0, 2, 1, -1], [0, 0, 0, 0], [-1, 1, 1, -1], [1, 1, 1, 0.5]])
    expected = torch.tensor([0.0, 1.0, 4 / 6, 0.5 * 2.25])
    torch.testing.assert_close(losses.classification_loss(scores), expected)


def test_overlap_loss_by_hand() -> None:
    here = torch.zeros(3, 2, dtype=torch.float64)
    # equal; half a side apart: I = 1/2, U = 3/2; twice the side apart in x: no intersection, gap 1
    there = torch.tensor([[0.0, 0.0], [0.5, 0.0], [2.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.0, 1 - 1 / 3, 1 + 1 / math.sqrt(2)], dtype=torch.float64)
    torch.testing.assert_close(losses.overlap_loss(here, there), expected)


def test_overlap_loss_matches_the_oracle(shared: Path) -> None:
    with np.load(shared / "oracles" / "overlap_loss.npz", allow_pickle=False) as file:
        table, half_size = torch.from_numpy(file["rows"]), float(file["r_base"])
    p1, g1, p2, g2 = (table[:, i : i + 2] for i in (0, 3, 6, 9))
    loss = losses.overlap_loss(p1 - g1, p2 - g2, half_size)
    torch.testing.assert_close(loss, table[:, 12], atol=1e-6, rtol=0)


def test_overlap_loss_pulls_distant_proposals_together() -> None:
    offset = torch.tensor([[3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    losses.overlap_loss(offset, torch.zeros(1, 2, dtype=torch.float64)).sum().backward()
    assert offset.grad is not None
    assert (offset.grad > 0).all()


def test_detector_loss_is_gamma_times_class_plus_pair() -> None:
    scores, pair = torch.zeros(2, 4), torch.tensor([3.0, 5.0])
    torch.testing.assert_close(losses.detector_loss(scores, pair, 0.5), torch.tensor([3.5, 5.5]))


@pytest.mark.parametrize("name", ["descriptor", "classification", "overlap"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    positive = torch.tensor([True, False, True, False])
    functions = {
        "descriptor": (lambda a, b: losses.descriptor_loss(a, b, positive), (draw(4, 5), draw(4, 5))),
        "classification": (losses.classification_loss, (draw(4, 4),)),
        "overlap": (losses.overlap_loss, (draw(4, 2), draw(4, 2))),
    }
    function, inputs = functions[name]
    assert torch.autograd.gradcheck(function, inputs)


def test_distance_is_that_of_the_difference() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 3.0]]), torch.tensor([[4.0, 6.0], [3.0, 3.0]])
    torch.testing.assert_close(losses.euclidean_distance(a, b), torch.tensor([5.0, 1e-6]))


@pytest.mark.parametrize("half", [0.5, 1.0, 2.0])
def test_overlap_of_squares_of_any_size(half: float) -> None:
    """Shifted by half a side along x: intersection 1/2, union 3/2 of the square."""
    zero = torch.zeros(1, 2)
    loss = losses.overlap_loss(zero, torch.tensor([[half, 0.0]]), half)
    assert float(loss) == pytest.approx(1 - 1 / 3)
    apart = losses.overlap_loss(zero, torch.tensor([[3 * half, 0.0]]), half)  # gap of one half side, union of 8 half^2
    assert float(apart) == pytest.approx(1 + 1 / math.sqrt(8), rel=1e-6)


def test_gamma_weighs_the_classification() -> None:
    scores, pair = torch.tensor([[0.5, 0, 0, 0], [0, 0, 0, 0.5]]), torch.tensor([0.5, 0.25])
    once = losses.classification_loss(scores)
    torch.testing.assert_close(losses.detector_loss(scores, pair, 0.125), 0.125 * once + pair)
    assert (once > 0).all() and (once != 1).all()


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 4, 1)])
def test_scores_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="P1..P4") as raised:
        losses.classification_loss(torch.zeros(shape))
    assert str(raised.value).endswith(f"got {shape}")


@pytest.mark.parametrize(("first", "second"), [((2, 2), (3, 2)), ((2, 3), (2, 3))])
def test_offsets_of_another_shape_are_named(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two offsets") as raised:
        losses.overlap_loss(torch.zeros(first), torch.zeros(second))
    assert f"got {first} and {second}" in str(raised.value)
