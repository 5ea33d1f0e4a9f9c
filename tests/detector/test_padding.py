"""Black padding: found around rotated, bent and padded images, and not where black is part of the picture."""

from __future__ import annotations

import math

import pytest
import torch
from kornia.feature import get_laf_center
from torch import Tensor

from kornia_lift import LIFTDetector, ScaleSpaceConfig
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.padding import find_padding, sees_padding, shrink_padding
from kornia_lift.evaluation.warps import ImageWarp
from tests.helpers.pictures import blob_response, texture


def bright_texture(height: int, width: int, seed: int = 0) -> Tensor:
    return 0.1 + 0.9 * texture(height, width, seed=seed)


def detector(count: int = 200, **options: bool) -> LIFTDetector:
    return LIFTDetector(count, ScaleSpaceConfig(enlarge_to=0, **options), resp_module=blob_response()).eval()


@pytest.mark.parametrize("shape", [(160, 240), (240, 160), (120, 270)])
@pytest.mark.parametrize("angle", [5.0, 15.0, 45.0, 80.0])
def test_everything_around_a_rotated_image_is_padding(shape: tuple[int, int], angle: float) -> None:
    warp = ImageWarp(angle_deg=angle)
    rotated, content = warp(bright_texture(*shape)), warp(torch.ones(1, 1, *shape))
    padding = find_padding(rotated)
    assert padding is not None
    assert padding[0][content[0, 0] == 0].all()
    # pixels that the rotated image covers by less than a twentieth can go either way
    assert not padding[0][content[0, 0] > 0.05].any()


@pytest.mark.parametrize("angle", [15.0, 45.0])
def test_a_rotated_image_keeps_its_keypoints(angle: float) -> None:
    """The filter is isotropic, so what it finds in the rotated image is what it finds in the upright one."""
    bright, warp = bright_texture(300, 400), ImageWarp(angle_deg=angle)
    matrix = torch.from_numpy(warp.matrix((400, 300))).float()
    with torch.no_grad():
        upright, rotated = (get_laf_center(detector()(image)[0])[0] for image in (bright, warp(bright)))
        careless = get_laf_center(detector(skip_padding=False)(warp(bright))[0])[0]
    moved = upright @ matrix[:2, :2].mT + matrix[:2, 2]
    repeated = (torch.cdist(rotated, moved).amin(1) < 2).float().mean()
    assert repeated > 0.8
    assert (torch.cdist(careless, moved).amin(1) < 2).float().mean() < repeated - 0.05


def test_nothing_is_found_where_the_filter_sees_padding() -> None:
    rotated = ImageWarp(angle_deg=30.0)(bright_texture(240, 320))
    with torch.no_grad():
        lafs, _ = detector()(rotated)
        careless, _ = detector(skip_padding=False)(rotated)
    padding = find_padding(rotated)
    assert padding is not None
    near = sees_padding(padding, 12)[0]

    def count(lafs: Tensor) -> int:
        x, y = get_laf_center(lafs)[laf_is_filled(lafs)].round().long().unbind(1)
        return int(near[y, x].sum())

    assert laf_is_filled(lafs).sum() > 50
    assert count(lafs) == 0
    assert count(careless) > 20


def test_images_padded_to_one_size_keep_their_keypoints() -> None:
    bright = bright_texture(200, 260)
    padded = torch.nn.functional.pad(bright, (0, 60, 0, 40))
    with torch.no_grad():
        alone, together = (get_laf_center(detector()(image)[0])[0] for image in (bright, padded))
    assert (torch.cdist(together, alone).amin(1) < 1).float().mean() > 0.85


def test_only_the_padded_image_of_a_batch_loses_anything() -> None:
    image = bright_texture(200, 200, seed=1)
    rotated = ImageWarp(angle_deg=45.0)(bright_texture(141, 141))[..., :200, :200]
    padding = find_padding(torch.cat([image, rotated, torch.zeros_like(image)]))
    assert padding is not None
    assert padding.flatten(1).any(1).tolist() == [False, True, False]
    with torch.no_grad():
        batch = detector()(torch.cat([image, rotated]))[0]
        # the same keypoints in the same order; the scale may differ in its last digit
        torch.testing.assert_close(batch[:1], detector()(image)[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(batch[1:], detector()(rotated)[0], atol=1e-4, rtol=0)


def test_edges_that_a_rectified_lens_bends_inwards_are_padding() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 200), torch.linspace(-1, 1, 300), indexing="ij")
    inside = (x.abs() < 0.9 + 0.03 * y**2) & (y.abs() < 0.9 + 0.03 * x**2)
    padding = find_padding(bright_texture(200, 300) * inside)
    assert padding is not None
    assert torch.equal(padding[0], ~inside)


def test_a_night_sky_belongs_to_the_image() -> None:
    bright = bright_texture(200, 300)
    column = torch.arange(300)
    skyline = 60 + 40 * torch.sign(torch.sin(column / 300 * 6 * math.pi))
    night = bright * (torch.arange(200)[:, None] > skyline)
    assert (night[0, 0] == 0).float().mean() > 0.2
    assert find_padding(night) is None


def test_a_shape_on_a_black_ground_is_the_image() -> None:
    image = torch.zeros(1, 1, 160, 160)
    image[..., 40:120, 40:120] = 1.0
    assert find_padding(image) is None
    assert find_padding(torch.zeros(1, 1, 64, 64)) is None
    assert find_padding(torch.zeros(0, 1, 64, 64)) is None


def test_dark_pixels_and_images_without_black_are_no_padding() -> None:
    bright = bright_texture(120, 160)
    assert find_padding(bright) is None
    dark = bright.clone()
    dark[..., 50:70, 60:90] = 0  # a black shape that does not reach the border
    assert find_padding(dark) is None
    dark[..., torch.rand(120, 160, generator=torch.Generator().manual_seed(0)) < 0.2] = 0
    assert find_padding(dark) is None


@pytest.mark.parametrize("angle", [0.2, 0.5, 1.0, 30.0])
def test_reading_the_border_first_changes_nothing(angle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole image is searched only where the black runs from its border could be padding."""
    bright = bright_texture(200, 300)
    few = bright.clone()
    few[..., 0, 40:50] = few[..., -3:, 250:] = 0
    band = bright.clone()
    band[..., :2] = 0  # 2/3 of a percent
    broad = bright.clone()
    broad[..., 196:, :] = 0
    images = [ImageWarp(angle_deg=angle)(bright), few, band, broad, torch.zeros_like(bright)]

    def found() -> list[Tensor]:
        each = [(find_padding(image), image) for image in images]
        return [torch.zeros_like(image[0], dtype=torch.bool) if p is None else p for p, image in each]

    after_the_border = found()
    assert [bool(padding.any()) for padding in after_the_border[1:]] == [False, False, True, False]
    monkeypatch.setattr("kornia_lift.detector.padding._reaches_inside", lambda content: True)
    assert all(torch.equal(a, b) for a, b in zip(after_the_border, found(), strict=True))


def test_the_release_knows_no_padding() -> None:
    assert not ScaleSpaceConfig.lift().skip_padding


def test_a_margin_is_counted_in_pixels_of_the_level() -> None:
    padding = torch.zeros(1, 80, 120, dtype=torch.bool)
    padding[:, :, :20] = True
    level = sees_padding(shrink_padding(padding, (40, 60)), 3)
    assert level[0].all(0).tolist() == [column < 10 + 3 for column in range(60)]
