"""LF-Net's detector with a localizer, which corrects position and scale of its keypoints."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale
from torch import Tensor, nn

from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.networks.localization import KeypointLocalization
from tests.helpers.pictures import texture


class Moves(nn.Module):
    """Moves all keypoints by the same shift and rescales them."""

    def __init__(self, shift: tuple[float, float] = (1.5, -0.5), factor: float = 1.2) -> None:
        super().__init__()
        self.shift, self.factor = nn.Parameter(torch.tensor(shift)), factor

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        return torch.cat([laf[..., :2] * self.factor, laf[..., 2:] + self.shift.to(laf)[:, None]], -1)


def detector(count: int, localizer: nn.Module | None = None) -> LFNetDetector:
    return LFNetDetector(count, True, upright=True, localizer=localizer).eval()


@torch.no_grad()
def test_keypoints_lie_where_the_localizer_moves_them() -> None:
    image = torch.cat([texture(120, 150, seed=1), texture(120, 150, seed=2)])
    lafs, responses = detector(60)(image)
    moved, same = detector(60, Moves())(image)
    for number in range(2):
        # the localizer gets more keypoints than there are slots; with equal moves the best ones are the same
        here, there = get_laf_center(lafs)[number], get_laf_center(moved)[number]
        distance = torch.cdist(here + torch.tensor([1.5, -0.5]), there)
        found = distance.amin(0) < 1e-3
        assert found.float().mean() > 0.8  # the larger frames suppress a few more
        partner = distance.argmin(0)[found]
        assert torch.allclose(responses[number, partner], same[number, found], atol=1e-6)
        scale = get_laf_scale(moved)[number, found] / get_laf_scale(lafs)[number, partner]
        assert (scale - 1.2).abs().max() < 1e-3
    assert (same[:, :-1] >= same[:, 1:]).all()
    assert get_laf_orientation(moved)[laf_is_filled(moved)].abs().max() < 1e-4


@torch.no_grad()
def test_half_as_many_again_are_localized_and_ranked_by_score_over_expected_error() -> None:
    class DoubtsTheStrongest(LAFLocalizer):
        def with_spread(self, laf: Tensor, img: Tensor) -> tuple[Tensor, Tensor]:
            return laf, torch.where(torch.arange(laf.shape[1]) < 20, 100.0, 0.5).expand(laf.shape[:2])

    image = texture(150, 200, seed=3)
    lafs, responses = detector(60)(image)
    assert laf_is_filled(lafs).all()
    chosen, ranked = detector(40, DoubtsTheStrongest(KeypointLocalization(False)))(image)
    assert torch.allclose(ranked, responses[:, 20:] / 0.5)
    assert torch.allclose(chosen, lafs[:, 20:], atol=1e-4)


@torch.no_grad()
def test_keypoints_that_coincide_afterwards_are_one() -> None:
    class Gathers(nn.Module):
        def forward(self, laf: Tensor, img: Tensor) -> Tensor:
            return torch.cat([laf[..., :2], torch.full_like(laf[..., 2:], 50.0)], -1)

    lafs, responses = detector(40, Gathers())(texture(120, 150))
    assert laf_is_filled(lafs).sum() == 1 and (responses > 0).sum() == 1
    assert torch.allclose(get_laf_center(lafs)[0, 0], torch.tensor([50.0, 50.0]))


@torch.no_grad()
def test_keypoints_moved_out_of_the_image_or_the_mask_are_none() -> None:
    image = texture(120, 150)
    lafs, responses = detector(40, Moves((1000.0, 0.0)))(image)
    assert not lafs.any() and not responses.any()
    mask = torch.zeros(1, 1, 120, 150)
    mask[..., :75] = 1
    kept = get_laf_center(detector(40, Moves())(image, mask)[0])[0]
    assert 0 < kept[:, 0].max() < 75.5


def test_gradients_reach_the_localizer() -> None:
    made = detector(20, Moves())
    get_laf_center(made(texture(100, 120))[0]).sum().backward()
    assert made.localizer.shift.grad is not None and made.localizer.shift.grad.abs().min() > 0  # type: ignore[union-attr]


def test_a_localizer_needs_upright_keypoints() -> None:
    with pytest.raises(ValueError, match="upright=True"):
        LFNetDetector(20, localizer=Moves())


@pytest.mark.parametrize("shape", [(0, 1, 60, 60), (1, 1, 30, 60), (2, 1, 60, 60)])
@torch.no_grad()
def test_images_without_keypoints_have_empty_slots(shape: tuple[int, ...]) -> None:
    lafs, responses = detector(7, Moves())(torch.full(shape, 0.5))
    assert lafs.shape == (shape[0], 7, 2, 3) and responses.shape == (shape[0], 7)
    assert not lafs.any() and not responses.any()
