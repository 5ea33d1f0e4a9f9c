"""Images on the device that trains: the same samples as those cut one by one."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import laf_from_center_scale_ori

from kornia_lift.geometry.pyramid import halve
from kornia_lift.training.compact.byte_patches import BankPatches, BytePatches, patches_from
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import compress, compress_on_device

pytest.importorskip("cv2")


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 1, h, w, generator=generator) for h, w in ((20, 30), (35, 16), (64, 64))]
    return [
        (torch.nn.functional.interpolate(c, scale_factor=8, mode="bicubic")[0, 0].clamp(0, 1) * 255).to(torch.uint8)
        for c in coarse
    ]


def test_patches_of_a_bank_are_those_cut_by_opencv() -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = images()
    image = torch.randint(3, (150,), generator=generator)
    size = torch.tensor([[p.shape[1], p.shape[0]] for p in pictures])[image]
    xy = torch.rand(150, 2, generator=generator) * size  # some regions reach beyond the image
    scale = torch.exp(torch.rand(150, generator=generator) * 3 + 1.5)
    angle = torch.rand(1, 150, 1, generator=generator) * 360
    lafs = laf_from_center_scale_ori(xy[None], scale[None, :, None, None], angle)[0]
    one, other = (cutter.cut(image, lafs, 32) for cutter in (BytePatches(pictures), BankPatches(pictures, "cpu")))
    assert other.shape == (150, 1, 32, 32)
    assert (one - other).abs().max() < 2.5 / 255  # two roundings to 8 bits, and OpenCV's weights have 5
    assert (one - other).abs().mean() < 0.4 / 255


def test_what_cuts_fastest_depends_on_the_device() -> None:
    assert isinstance(patches_from(images(), "cpu"), BytePatches)


def test_pixels_come_back_and_the_border_is_replicated() -> None:
    pictures = images()
    bank = ImageBank(pictures, "cpu", halve)
    at = torch.tensor([[[3.0, 5.0], [-7.0, 5.0], [10_000.0, 10_000.0]]])
    for n, picture in enumerate(pictures):
        found = bank.sample(torch.tensor([n]), at, torch.tensor([0]))[0] * 255
        wanted = torch.stack([picture[5, 3], picture[5, 0], picture[-1, -1]]).float()
        assert torch.allclose(found, wanted, atol=1e-3)
    assert bank.sizes(torch.arange(3)).tolist() == [list(p.shape) for p in pictures]


def test_levels_end_where_an_image_is_small() -> None:
    bank = ImageBank(images(), "cpu", halve)
    middle = torch.tensor([[[60.0, 70.0]]])
    deepest = bank.sample(torch.tensor([1]), middle, torch.tensor([2]))
    assert torch.equal(bank.sample(torch.tensor([1]), middle, torch.tensor([9])), deepest)


def test_images_of_a_pixel_or_two_are_sampled() -> None:
    pictures = [
        torch.tensor(rows, dtype=torch.uint8) for rows in ([[7]], [[10, 20, 30]], [[10], [20]], [[0, 40], [80, 120]])
    ]
    bank = ImageBank(pictures, "cpu", halve)
    at = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [1.0, 1.0], [1.25, 0.0], [9.0, -9.0], [-9.0, 9.0]])
    found = bank.sample(torch.arange(4), at.expand(4, -1, -1), torch.zeros(4, dtype=torch.long)) * 255
    wanted = [
        [7, 7, 7, 7, 7, 7, 7],
        [10, 15, 10, 20, 22.5, 30, 10],
        [10, 10, 15, 20, 10, 10, 20],
        [0, 20, 40, 120, 40, 40, 80],
    ]
    assert torch.allclose(found, torch.tensor(wanted), atol=1e-3)


def test_the_last_pixel_of_the_last_level_is_the_end() -> None:
    pictures = images()
    bank = ImageBank(pictures, "cpu", halve)
    corner = torch.tensor([[[10_000.0, 10_000.0]]] * len(pictures))
    deepest = torch.full((len(pictures),), 9)
    found = bank.sample(torch.arange(len(pictures)), corner, deepest)[:, 0] * 255
    for picture, value in zip(pictures, found, strict=True):
        level = picture[None, None].float()
        while min(level.shape[-2:]) >= 64:
            level = halve(level)
        assert abs(float(value) - float(level[0, 0, -1, -1])) <= 0.5 + 1e-3


def test_images_are_halved_down_to_32_pixels() -> None:
    picture = torch.randint(0, 255, (64, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    small = torch.randint(0, 255, (63, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    bank = ImageBank([picture, small], "cpu", halve)
    at = torch.tensor([[[20.0, 21.0]]] * 2)
    fine, coarse = (bank.sample(torch.arange(2), at, torch.tensor([n, n])) for n in (0, 1))
    assert (fine != coarse)[:, 0].tolist() == [True, False]


def test_a_bank_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        ImageBank([], "cpu", halve)


def test_kornia_compresses_about_as_opencv_does() -> None:
    picture = images()[2].float()[None, None] / 255
    patches = picture.unfold(2, 64, 64).unfold(3, 64, 64).reshape(-1, 1, 64, 64)
    qualities = torch.tensor([0.0, 30.0, 50.0, 80.0]).repeat(len(patches) // 4)
    chosen = torch.nonzero(qualities)[:, 0]
    one, other = compress(patches, qualities), compress_on_device(patches, qualities, chosen)
    assert torch.equal(other[0], patches[0])  # not compressed
    changed = (one - patches)[chosen].abs().mean()
    assert (one - other).abs().mean() < 0.5 * changed
    assert (other - patches)[chosen].abs().mean() == pytest.approx(float(changed), rel=0.3)
