"""The number format of the products: one option for all networks of a feature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_lift import LIFTDetector, LIFTFeature, LIFTResponse
from kornia_lift.networks import CompactDescriptor, PolarOrientation
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_integers
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.weights import save_model
from tests.helpers.pictures import texture


def test_a_precision_holds_for_all_default_networks(tmp_path: Path) -> None:
    """Half-precision products in a feature that is asked for float32 would give other keypoints than its graph has."""
    torch.manual_seed(0)
    networks = {
        "response": LIFTResponse(False),
        "localization": KeypointLocalization(),
        "orientation": PolarOrientation(),
        "descriptor": CompactDescriptor(),
    }
    save_model(tmp_path / "compact.safetensors", networks, {"networks": "compact"})
    feature = LIFTFeature(30, pretrained=tmp_path / "compact.safetensors", precision="float32")
    asked = [module.precision for module in feature.modules() if hasattr(module, "precision")]
    assert len(asked) >= len(networks) - 1  # the response always computes in float32
    assert set(asked) == {"float32"}
    image = texture(90, 110)
    with torch.inference_mode():
        lafs, responses, _ = feature(image)
        with fast_paths(False):
            expected = feature(image)
    assert torch.allclose(responses, expected[1], atol=1e-4 * float(responses.abs().max()))
    assert torch.cdist(lafs[0].flatten(1), expected[0][0].flatten(1)).amin(1).max() < 0.1


@pytest.mark.parametrize("model", [False, True, "lift", "lift-plus"])
def test_an_unknown_precision_is_refused_where_no_network_uses_it(model: bool | str) -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, int8, got 'float8'"):
        LIFTDetector(10, pretrained=model, precision="float8")  # type: ignore[arg-type]


@pytest.mark.skipif(not has_integers(), reason="this torch has no convolutions of 8-bit integers")
def test_integers_are_for_the_compact_networks() -> None:
    feature = LIFTFeature(30, pretrained="lift-plus", precision="int8")
    asked = [module.precision for module in feature.modules() if hasattr(module, "precision")]
    assert len(asked) == 3 and set(asked) == {"int8"}  # localization, orientation, descriptor
    with torch.inference_mode():
        assert feature(texture(90, 110))[2].isfinite().all()
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, got 'int8'"):
        LIFTFeature(30, precision="int8")
