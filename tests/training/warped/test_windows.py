"""The gradient through the strongest pixels is that of the whole maps, as far as they carry it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTResponse
from kornia_lift.networks.contrast import LocalContrast
from kornia_lift.training.warped.windows import loss_by_windows

SIDES = (40, 29)
TARGETS = [torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(side)) for side in SIDES]


def loss_of(scores: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
    loss = torch.stack([(score.tanh() * target).mean() for score, target in zip(scores, TARGETS, strict=True)]).sum()
    return loss, {"loss": loss.item()}


def gradients(response: LIFTResponse, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(response.parameters()))])


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 1, side, side, generator=generator) for side in SIDES]


@pytest.mark.parametrize("contrast", [None, LocalContrast(), LocalContrast("filter")])
def test_all_pixels_give_the_gradient_of_the_maps(contrast: LocalContrast | None) -> None:
    torch.manual_seed(0)
    response, levels = LIFTResponse(False, contrast=contrast), images()
    dense, figures = loss_of([response(level) for level in levels])
    by_windows, same = loss_by_windows(response, levels, loss_of, keep=10**9)
    torch.testing.assert_close(by_windows, dense)
    assert figures["loss"] == pytest.approx(same["loss"], rel=1e-4)
    torch.testing.assert_close(gradients(response, by_windows), gradients(response, dense), rtol=1e-3, atol=1e-5)


def test_few_pixels_give_most_of_a_gradient_that_few_carry() -> None:
    torch.manual_seed(0)
    response, levels = LIFTResponse(False), images()

    def sparse(scores: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        strong = scores[0][1, 0, 7, 30] * 5 - scores[1][0, 0, 20, 3] * 3
        return strong + 1e-4 * sum(score.sum() for score in scores), {}

    expected = gradients(response, sparse([response(level) for level in levels])[0])
    found = gradients(response, loss_by_windows(response, levels, sparse, keep=2)[0])
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99
    only_one = gradients(response, loss_by_windows(response, levels, sparse, keep=1)[0])
    alone = gradients(response, (response(levels[0])[1, 0, 7, 30] * 5))
    torch.testing.assert_close(only_one, alone * (5 + 1e-4) / 5, rtol=1e-3, atol=1e-5)


def test_without_gradient_the_figures_are_those_of_the_maps() -> None:
    response, levels = LIFTResponse(False), images()
    with torch.no_grad():
        loss, figures = loss_by_windows(response, levels, loss_of, keep=1)
        assert figures["loss"] == pytest.approx(loss_of([response(level) for level in levels])[0].item(), rel=1e-4)
    assert not loss.requires_grad
