"""Which corrected keypoints count: inside of the image and of the mask; how they are cut in parts."""

from __future__ import annotations

import math

import pytest
import torch
from kornia.feature import get_laf_center, get_laf_scale
from torch import Tensor, nn

from kornia_lift.detector import localizer as module
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.localizer import LAFLocalizer, localized, spare_slots
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks.localization import KeypointLocalization
from tests.helpers.pictures import texture

HEIGHT, WIDTH = 40, 60


class Same(nn.Module):
    """A localizer that corrects nothing."""

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        return laf


def keypoints(*positions: tuple[float, float], batch: int = 1) -> Tensor:
    xy = torch.tensor([positions] * batch, dtype=torch.float32)
    return lafs_from_lift(xy, torch.full(xy.shape[:2], 2.0))


def kept(lafs: Tensor, mask: Tensor | None = None) -> list[bool]:
    image = torch.zeros(len(lafs), 1, HEIGHT, WIDTH)
    found = localized(Same(), image, torch.arange(float(lafs[..., 0, 0].numel())).view(len(lafs), -1), lafs, mask)
    assert found.image.tolist() == [b for b in range(len(lafs)) for _ in range(lafs.shape[1])]
    assert found.value.tolist() == list(range(len(found.value)))
    assert torch.allclose(found.frames[:, :2], get_laf_center(lafs).flatten(0, 1))
    assert torch.allclose(found.frames[:, 2], torch.tensor(2.0))
    return found.keep.tolist()


def test_keypoints_beyond_the_outer_pixels_do_not_count() -> None:
    right, bottom = WIDTH - 1, HEIGHT - 1
    assert kept(keypoints((0, 0), (right, bottom), (0, bottom), (right, 0), (0.5, 0.5))) == [True] * 5
    outside = [(-0.1, 9), (9, -0.1), (right + 0.1, 9), (9, bottom + 0.1), (right + 1.5, 9), (9, bottom + 1.5)]
    assert kept(keypoints(*outside, (9, 9))) == [False] * 6 + [True]


def test_empty_slots_do_not_count() -> None:
    lafs = keypoints((9, 9), (20, 9))
    lafs[0, 1] = 0
    image = torch.zeros(1, 1, HEIGHT, WIDTH)
    assert localized(Same(), image, torch.ones(1, 2), lafs, None).keep.tolist() == [True, False]


def test_the_mask_is_read_at_the_nearest_pixel() -> None:
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[0, 0, 0, 0] = mask[0, 0, -1, -1] = mask[0, 0, 12, 30] = 1
    inside = [(0, 0), (0.4, 0.4), (WIDTH - 1, HEIGHT - 1), (30.4, 11.6)]
    outside = [(1, 0), (0, 0.6), (WIDTH - 2, HEIGHT - 1), (WIDTH - 1, HEIGHT - 2), (30.6, 12), (12, 30)]
    assert kept(keypoints(*inside, *outside), mask) == [True] * 4 + [False] * 6
    assert kept(keypoints((-0.3, 0), (WIDTH - 0.7, HEIGHT - 1)), mask) == [False, False]
    assert kept(keypoints((WIDTH + 9, 9), (9, HEIGHT + 9), (-9, 9)), mask) == [False] * 3  # read without an error


def test_one_mask_is_for_all_images_or_each_has_its_own() -> None:
    lafs = keypoints((9, 9), (40, 9), batch=2)
    left = torch.zeros(1, 1, HEIGHT, WIDTH)
    left[..., :20] = 1
    assert kept(lafs, left) == [True, False, True, False]
    assert kept(lafs, torch.cat([left, 1 - left])) == [True, False, False, True]


@pytest.mark.parametrize(("count", "spare"), [(100, 115), (1, 2), (1000, 1150)])
def test_some_more_keypoints_are_localized_than_there_are_slots(count: int, spare: int) -> None:
    assert spare_slots(count) == spare


class Mean(nn.Module):
    """Says of every patch how bright it is: a correction that belongs to its keypoint."""

    patch_size = 8

    def forward(self, patch: Tensor) -> Tensor:
        mean = patch.mean((1, 2, 3))
        return torch.stack([mean, 2 * mean, mean - 0.5, 0 * mean], 1)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_every_keypoint_gets_its_own_correction(chunk: int, gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of any size, with and without gradient, the same: brighter to the right, and in the second image."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "GRADIENT_CHUNK", chunk)
    ramp = (torch.arange(200.0) / 400).expand(2, 1, 200, 200).clone()
    ramp[1] += 0.25
    positions = [(60.0 + 10 * n, 90.0 + n) for n in range(7)]
    lafs = keypoints(*positions, batch=2)
    with torch.set_grad_enabled(gradient):
        corrected = LAFLocalizer(Mean())(lafs, ramp.requires_grad_(gradient)).detach()  # type: ignore[arg-type]
    bright = torch.tensor([[x / 400 + add for x, _ in positions] for add in (0.0, 0.25)])
    scale = get_laf_scale(lafs)[..., 0, 0]
    moved = get_laf_center(corrected) - get_laf_center(lafs)
    assert torch.allclose(moved[..., 0], bright * scale, atol=0.02 * float(scale.max()))
    assert torch.allclose(moved[..., 1], 2 * bright * scale, atol=0.04 * float(scale.max()))
    assert torch.allclose(get_laf_scale(corrected)[..., 0, 0], scale * (bright - 0.5).exp(), rtol=0.02)
    assert math.isfinite(float(corrected.sum()))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.uint16])
@pytest.mark.parametrize("value", [1, -1])
def test_masks_of_integers_keep_what_is_not_zero(dtype: torch.dtype, value: int) -> None:
    mask = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.int64)
    mask[..., :20] = value
    assert kept(keypoints((9, 9), (40, 9)), mask.to(dtype)) == [True, False]


class Counting(nn.Module):
    """A localizer that corrects nothing, and counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[int] = []

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        self.slots.append(laf.shape[1])
        return laf


@pytest.mark.parametrize("batch", [1, 2])
def test_empty_slots_are_not_localized(batch: int) -> None:
    image = torch.zeros(batch, 1, 90, 90)
    image[-1:] = texture(90, 90)  # of two images one has no keypoint
    counting = Counting()
    detector = LIFTDetector(5000, localizer=counting)
    lafs, responses = detector(image)
    assert lafs.shape == (batch, 5000, 2, 3)
    found = int((responses != 0).sum())
    assert 0 < found <= counting.slots[0] < 2 * found
    detector(torch.zeros(1, 1, 90, 90))
    assert counting.slots[1] == 1


def test_a_second_pass_corrects_the_corrected_frames() -> None:
    network = KeypointLocalization("lift-plus", precision="float32").eval()
    image, lafs = texture(HEIGHT, WIDTH), torch.cat([keypoints((15, 14), (31, 22)), torch.zeros(1, 1, 2, 3)], 1)
    once, twice = LAFLocalizer(network), LAFLocalizer(network, passes=2)
    with torch.inference_mode():
        first, moved = once(lafs, image), twice(lafs, image)
        assert torch.equal(moved, once(first, image)) and not torch.equal(moved, first)
    assert moved[0, 2].eq(0).all()  # an empty slot


def test_fewer_than_one_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="passes of at least 1, got 0"):
        LAFLocalizer(KeypointLocalization(False), passes=0)
