"""Poor crops: as many as asked for, darker, softer and compressed, and the others as they were."""

from __future__ import annotations

import pytest
import torch

from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.degraded import DegradedCrops, with_degraded
from kornia_lift.training.warped.homographies import CropConfig
from tests.helpers.pictures import texture
from tests.helpers.training import picture

STILL = Photometric(gain=1, gamma=1, offset=0, noise=0, blur=0, shadow=0, jpeg=0)


def test_a_share_is_exchanged_and_the_rest_stays() -> None:
    crops = texture(32, 32).expand(400, 1, 32, 32)
    degraded = DegradedCrops(share=0.3, photometric=STILL, dark=1.0, darkest=0.2, brightest=0.5)
    found = with_degraded(crops, crops, degraded, torch.Generator().manual_seed(0))
    same = (found == crops).flatten(1).all(1)
    assert 0.24 < 1 - same.float().mean() < 0.36
    left = found[~same].mean((1, 2, 3)) / crops[0].mean()
    assert 0.19 < left.min() < 0.26 and 0.44 < left.max() < 0.51
    levels = found[~same] * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


@pytest.mark.parametrize("change", [{"blur": 4.0}, {"jpeg": 1.0, "jpeg_quality": 3}])
def test_what_is_not_dark_is_blurred_or_compressed(change: dict[str, float]) -> None:
    if "jpeg" in change:
        pytest.importorskip("cv2")
    still = {"gain": 1, "gamma": 1, "offset": 0, "noise": 0, "blur": 0, "shadow": 0, "jpeg": 0}
    crops = texture(32, 32).expand(20, 1, 32, 32)
    degraded = DegradedCrops(share=1.0, photometric=Photometric(**(still | change)), dark=0.0)  # type: ignore[arg-type]
    found = with_degraded(crops, crops, degraded, torch.Generator().manual_seed(0))
    assert torch.allclose(found.mean((1, 2, 3)), crops.mean((1, 2, 3)), atol=0.02)
    assert (found - crops).abs().mean() > 0.01


def test_nothing_changes_where_nothing_is_degraded() -> None:
    image = torch.from_numpy(picture(0, 200))
    config = CropConfig(size=64, per_image=2)
    plain, none, some = (
        WarpedCrops([[image]], config, STILL, degraded=degraded).draw(torch.Generator().manual_seed(1), 2)
        for degraded in (None, DegradedCrops(share=0.0), DegradedCrops(share=1.0))
    )
    assert torch.equal(plain["first"], none["first"])
    assert not torch.allclose(plain["first"], some["first"], atol=0.01)


def test_shares_and_factors_are_checked() -> None:
    with pytest.raises(ValueError, match="share"):
        DegradedCrops(share=1.5)
    with pytest.raises(ValueError, match="brightest"):
        DegradedCrops(darkest=0.5, brightest=0.4)
