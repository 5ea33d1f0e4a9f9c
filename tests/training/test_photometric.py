"""Shadows, blur and JPEG: what they do to a patch, how often, and from which generator."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_lift.training.data.photometric import (
    UNCHANGED,
    Photometric,
    apply_photometric,
    augment,
    cast_shadows,
    compress,
    draw_photometric,
    draw_qualities,
    draw_shadows,
)
from kornia_lift.training.data.store import Store
from kornia_lift.training.paper.quadruplets import QuadrupletSampler, SyntheticView
from tests.helpers.training import as_single, picture

OFF = SyntheticView(
    gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0, stretch=1.0, zoom=1.0, rotation=0.0
)


def source(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(count: int = 6) -> Tensor:
    photo = torch.from_numpy(picture(3)).float() / 255
    return torch.stack([photo[None, 8 * i : 8 * i + 64, 40:104] for i in range(count)])


def test_a_shadow_darkens_one_side_of_its_edge() -> None:
    white = torch.ones(3, 1, 64, 64)
    shadows = torch.tensor([[0.0, 0.0, 0.5], [math.pi / 2, 0.5, 0.4], [1.0, 0.0, 0.0]])
    right, below, none = cast_shadows(white, shadows)[:, 0]
    torch.testing.assert_close(right[:, :28], torch.ones(64, 28), atol=0.05, rtol=0)
    torch.testing.assert_close(right[:, 36:], torch.full((64, 28), 0.5), atol=0.05, rtol=0)
    assert right[:, 31:33].mean().item() == pytest.approx(0.75, abs=1e-3)
    assert below[40].min() > 0.95 and below[56].max() < 0.65
    assert torch.equal(none, white[0, 0])


def test_the_shares_are_those_asked_for_and_none_draws_nothing() -> None:
    shadows, qualities = draw_shadows(source(), 4000, 0.3, 0.5), draw_qualities(source(), 4000, 0.2, 40)
    assert (shadows[:, 2] > 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert 0.14 < shadows[shadows[:, 2] > 0, 2].min() and shadows[:, 2].max() <= 0.5
    assert (qualities > 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert qualities[qualities > 0].min() == 40 and qualities.max() == 90
    generator = source()
    assert not draw_shadows(generator, 5, 0.0, 0.5).any() and not draw_qualities(generator, 5, 0.0, 40).any()
    assert torch.equal(generator.get_state(), source().get_state())


def test_compression_is_that_of_a_file() -> None:
    cv2 = pytest.importorskip("cv2")
    sharp = patches(3)
    rough, fine, same = compress(sharp, torch.tensor([10.0, 90.0, 0.0]))[:, 0]
    file = cv2.imencode(".jpg", (sharp[0, 0] * 255).round().byte().numpy(), [cv2.IMWRITE_JPEG_QUALITY, 10])[1]
    np.testing.assert_array_equal((rough * 255).round().byte().numpy(), cv2.imdecode(file, cv2.IMREAD_GRAYSCALE))
    assert (rough - sharp[0, 0]).abs().mean() > 3 * (fine - sharp[1, 0]).abs().mean() > 0
    assert torch.equal(same, sharp[2, 0])


def test_a_row_that_changes_nothing_changes_nothing_and_a_row_does_what_it_says() -> None:
    plain = patches(2)
    still = torch.tensor([UNCHANGED, UNCHANGED])
    torch.testing.assert_close(apply_photometric(plain, still, source()), plain, atol=1e-5, rtol=0)
    rows = still.clone()
    rows[0, 0], rows[0, 2] = 0.5, 0.1  # contrast, brightness
    changed = apply_photometric(plain, rows, source())
    mean = plain[0].mean()
    torch.testing.assert_close(changed[0], (plain[0] - mean) * 0.5 + mean + 0.1, atol=1e-4, rtol=0)
    torch.testing.assert_close(changed[1], plain[1], atol=1e-5, rtol=0)
    rows = still.clone()
    rows[1, 4] = 1.0
    blurred = apply_photometric(plain, rows, source())
    assert blurred[1].diff(dim=1).abs().mean() < 0.99 * plain[1].diff(dim=1).abs().mean()


def test_draws_stay_inside_their_limits() -> None:
    rows = draw_photometric(source(), 3000, Photometric(gain=2.0, gamma=1.5, offset=0.1, noise=0.05, blur=0.8))
    gain, gamma, offset, noise, blur = rows[:, :5].T
    for value, limit in ((gain, 2.0), (gamma, 1.5)):
        assert 1 / limit <= value.min() < 1.1 / limit and 0.95 * limit < value.max() <= limit
    assert -0.1 <= offset.min() < -0.09 and 0.09 < offset.max() <= 0.1
    assert noise.min() >= 0 and 0.045 < noise.max() <= 0.05
    assert (blur == 0).float().mean().item() == pytest.approx(0.5, abs=0.05) and blur.max() <= 0.8


def test_half_of_all_light_can_be_lost_in_a_shadow() -> None:
    still = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)
    dark = dataclasses.replace(still, shadow=1.0, shadow_depth=0.9)
    white = torch.full((40, 1, 64, 64), 0.8)
    spread = (augment(white, dark, source()).amax((2, 3)) - augment(white, dark, source()).amin((2, 3)))[:, 0]
    assert augment(white, still, source()).std(dim=(2, 3)).max() < 1e-5
    assert (spread > 0.1).all()


def views(store: Store, **changes: float) -> tuple[QuadrupletSampler, Tensor, Tensor]:
    """A sampler whose second views differ by ``changes`` alone, and first and second patches of 40 locations."""
    sampler = QuadrupletSampler(as_single(store), synthetic=dataclasses.replace(OFF, **changes))
    generator = source()
    first, second = sampler.descriptor_patches(sampler.draw(generator, 40), (0, 1), generator).unbind(1)
    return sampler, first, second


def test_second_views_of_single_images_are_shaded_blurred_and_compressed(tiny_store: Store) -> None:
    _, first, second = views(tiny_store)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    _, first, second = views(tiny_store, shadow=1.0)
    share = second / first.clamp(min=0.05)
    assert (share.flatten(1).amax(1) > 0.93).all() and (share.flatten(1).amin(1) < 0.87).all()
    _, first, second = views(tiny_store, blur=3.0)
    loss = 1 - second.diff(dim=2).abs().mean((1, 2)) / first.diff(dim=2).abs().mean((1, 2))
    assert 0.3 < (loss > 1e-4).float().mean() < 0.7  # half of them stay sharp
    assert loss.max() > 0.1 and loss.min() > -1e-3
    _, first, second = views(tiny_store, jpeg=1.0)
    error = (second - first).abs().mean((1, 2))
    assert (error > 1e-4).all() and error.max() < 0.05
    assert torch.equal(second, views(tiny_store, jpeg=1.0)[2])


def test_detector_and_descriptor_see_one_shadow_and_one_blur(tiny_store: Store) -> None:
    sampler, *_ = views(tiny_store, shadow=1.0, blur=6.0)
    generator = source()
    drawn = sampler.draw(generator, 40)
    none = torch.zeros(40, 1), torch.zeros(40, 1, 2)
    small = sampler.moved_patches(drawn, (1,), *none, generator, 48)
    big = sampler.moved_patches(drawn, (1,), *none, generator)
    resized = F.interpolate(big, 48, mode="bilinear", antialias=True, align_corners=False)
    assert (resized - small).abs().mean() < 0.006


def test_real_second_views_are_left_as_they_are(sampler: QuadrupletSampler) -> None:
    photometric = sampler.draw(source(), 40).photometric
    assert torch.equal(photometric, torch.tensor(UNCHANGED).expand(40, 4, 9))
