"""Pairs of warped crops show the same location where their maps say, and keep to their options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.crops import WarpedCrops, crop_bank, sample_crops
from kornia_lift.training.warped.homographies import CropConfig, sample_pixels, warp_grid
from tests.helpers.pictures import texture

STILL = Photometric(gain=1.0, offset=0.0, gamma=1.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)


def image(height: int = 160, width: int = 180, seed: int = 0) -> Tensor:
    return (texture(height, width, seed=seed)[0, 0] * 255).to(torch.uint8)


@pytest.mark.parametrize(
    "config",
    [
        CropConfig(size=72, per_image=2, min_step=1.0, max_step=1.5, shift=3.0),
        CropConfig(size=64, per_image=2, min_step=0.6, max_step=2.0, scale=2.0, stretch=1.6, perspective=0.2),
    ],
    ids=["one level", "ratios of scale up to 2"],
)
def test_crops_show_the_same_location_where_their_maps_say(config: CropConfig) -> None:
    drawn = WarpedCrops([[image()]], config, STILL).draw(torch.Generator().manual_seed(3), 3)
    moved = warp_grid(drawn["to_second"], config.size)
    back = sample_pixels(drawn["second"], moved)
    seen = (sample_pixels(drawn["inside_second"], moved) > 0.999) & (drawn["inside_first"] > 0)
    for n in range(len(moved)):
        one, other = drawn["first"][n][seen[n]], back[n][seen[n]]
        assert len(one) > 500
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.95, n
    assert torch.allclose(drawn["to_first"] @ drawn["to_second"], torch.eye(3).expand(6, 3, 3), atol=1e-3)


@pytest.mark.parametrize("side", [200, 201, 203, 207])
def test_coarser_levels_lie_where_the_image_lies(side: int) -> None:
    """Sides that cannot be halved shift nothing: gray values are columns and rows."""
    ramp = torch.arange(side, dtype=torch.uint8)
    for across in (True, False):
        bank = crop_bank([(ramp if across else ramp[:, None]).expand(side, side).contiguous()])
        for step in (1.0, 2.0, 4.0):
            to_image = torch.tensor([[[step, 0.0, 3 * step], [0.0, step, 3 * step], [0.0, 0.0, 1.0]]])
            size = int((side - 6 * step) / step)
            crop, inside = sample_crops(bank, torch.tensor([0]), to_image, size)
            expected = step * (torch.arange(size) + 3)
            assert inside.all()
            # two roundings to 8 bits; levels that begin at the first pixel but end elsewhere are off by 1 to 3
            assert ((crop[0, 0] if across else crop[0, 0].T) * 255 - expected).abs().max() < 0.76


def test_crops_of_an_image_follow_each_other_and_differ() -> None:
    dark, bright = torch.full((90, 90), 10, dtype=torch.uint8), torch.full((90, 90), 240, dtype=torch.uint8)
    config = CropConfig(size=48, per_image=3, max_step=1.5)
    drawn = WarpedCrops([[dark], [bright]], config, STILL).draw(torch.Generator().manual_seed(0), 6)
    means = drawn["first"].mean((1, 2, 3)).view(6, 3) * 255
    assert torch.equal(means.round(), means[:, :1].round().expand(6, 3))
    assert {round(float(mean)) for mean in means[:, 0]} == {10, 240}
    assert len(drawn["to_first"].flatten(1).unique(dim=0)) == 18


def test_both_crops_come_from_one_scene_and_any_of_its_exposures() -> None:
    scenes = [[torch.full((90, 90), value, dtype=torch.uint8) for value in pair] for pair in ((10, 40), (200, 240))]
    config = CropConfig(size=48, per_image=1, max_step=1.5)
    drawn = WarpedCrops(scenes, config, STILL).draw(torch.Generator().manual_seed(0), 40)
    pairs = {tuple(round(float(drawn[name][n].mean() * 255)) for name in ("first", "second")) for n in range(40)}
    assert pairs == {(a, b) for scene in ((10, 40), (200, 240)) for a in scene for b in scene}


def test_images_smaller_than_a_crop_are_centred() -> None:
    config = CropConfig(size=100, per_image=1, min_step=2.0, max_step=2.0, full_circle=0.0, shift=0.0)
    drawn = WarpedCrops([[image(60, 80)]], config, STILL).draw(torch.Generator().manual_seed(0), 3)
    rows, columns = (drawn["inside_first"].sum(dim).gt(0).float() for dim in (3, 2))
    for seen in (rows, columns):
        at = torch.arange(100.0)
        middle = (seen[:, 0] * at).sum(1) / seen[:, 0].sum(1)
        assert (middle - 49.5).abs().max() < 1.5


def test_a_share_of_the_second_crops_has_a_black_corner() -> None:
    picture = image(200, 200)

    def draw(share: float) -> dict[str, Tensor]:
        config = CropConfig(size=64, per_image=4, max_step=1.2, black_corner=share)
        return WarpedCrops([[picture]], config).draw(torch.Generator().manual_seed(4), 5)

    without, half, always = draw(0.0), draw(0.5), draw(1.0)
    assert torch.equal(without["first"], always["first"])
    cut = (without["inside_second"] > 0) & (always["inside_second"] == 0)
    assert (always["second"][cut] == 0).all()
    kept = always["inside_second"] > 0
    assert torch.equal(always["second"][kept], without["second"][kept])
    touched = [
        (batch["inside_second"] != without["inside_second"]).flatten(1).any(1).float().mean()
        for batch in (half, always)
    ]
    assert 0.2 < touched[0] < 0.8
    assert touched[1] > 0.8
    assert cut.flatten(1).float().mean(1).max() < 0.51
