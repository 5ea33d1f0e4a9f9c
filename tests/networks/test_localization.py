"""The network that corrects keypoints, and frames corrected by it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from kornia.feature import get_laf_center, get_laf_scale
from torch import Tensor, nn

from kornia_lift import LIFTDetector
from kornia_lift._kornia import ShapeError, laf_is_filled
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_fast_integers, has_integers
from kornia_lift.networks.localization import KeypointLocalization, soft_argmax_around_centre
from kornia_lift.weights import WeightFileError, write_safetensors
from tests.helpers.networks import Constant
from tests.helpers.pictures import texture


def trained(seed: int = 0, blocks: bool = False) -> KeypointLocalization:
    """A network that corrects something: random heads and batch statistics."""
    torch.manual_seed(seed)
    network = KeypointLocalization(False, blocks=blocks, precision="float32")
    nn.init.normal_(network.heat.weight, std=0.3)
    nn.init.normal_(network.head.weight, std=0.4)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(32, 1, 32, 32))
    return network.eval()


def test_without_training_nothing_is_corrected() -> None:
    found = KeypointLocalization(False).eval()(torch.rand(5, 1, 32, 32))
    assert found.shape == (5, 4)
    torch.testing.assert_close(found[:, :3], torch.zeros(5, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 3].exp(), torch.full((5,), 0.13))


def test_the_position_is_where_the_heat_is_weighed_by_how_near_it_is() -> None:
    heat = torch.zeros(3, 16, 16)
    heat[0, 5, 11] = 1e3
    heat[1, 7, 8] = heat[1, 7, 15] = 50.0  # as hot, but one of them lies at the border
    found = soft_argmax_around_centre(heat.flatten(1))
    expected = torch.tensor([[23 / 16 - 1, 11 / 16 - 1], [17 / 16 - 1, 15 / 16 - 1], [0.0, 0.0]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("blocks", "weights", "products"), [(False, 23_970, 4_202_496), (True, 19_866, 2_654_208)])
def test_counts_its_weights_and_products(blocks: bool, weights: int, products: int) -> None:
    network = KeypointLocalization(False, blocks=blocks).eval()
    counted = 0

    def count(layer: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        nonlocal counted
        counted += out.numel() * layer.weight[0].numel()  # type: ignore[operator, index]

    for layer in [*network.features, *network.summary]:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)  # type: ignore[arg-type]
    with fast_paths(False):
        network(torch.rand(1, 1, 32, 32))
    assert counted == products
    assert sum(p.numel() for p in network.parameters()) == weights


def test_weights_say_whether_blocks_are_seen(tmp_path: Path) -> None:
    for blocks in (False, True):
        network, path = trained(blocks=blocks), tmp_path / f"{blocks}.safetensors"
        tensors = {f"localization.{name}": value for name, value in network.state_dict().items()}
        write_safetensors(path, tensors, {"networks": "compact"})
        loaded = KeypointLocalization(path, precision="float32")
        assert loaded.blocks == blocks and not loaded.training
        patch = torch.rand(3, 1, 32, 32)
        torch.testing.assert_close(loaded(patch), network(patch))
        with pytest.raises(WeightFileError, match="do not fit"):
            KeypointLocalization(path, blocks=not blocks)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_the_inference_path_is_the_plain_one(precision: str, limit: float, blocks: bool) -> None:
    network = trained(blocks=blocks)
    other = KeypointLocalization(False, blocks=blocks, precision=precision).eval()  # type: ignore[arg-type]
    other.load_state_dict(network.state_dict())
    patch = torch.rand(20, 1, 32, 32)
    with torch.no_grad():
        with fast_paths(False):
            expected = network(patch)
        found = other(patch)
    assert (found - expected).abs().max() < limit


needs_integers = pytest.mark.skipif(not has_integers(), reason="this torch has no convolutions of 8-bit integers")


@needs_integers
def test_integers_correct_as_float32_does_for_any_batch() -> None:
    # without fast instructions sums of two products may saturate
    limit = 1 if has_fast_integers() else 5
    patches = texture(40, 40, batch=21)[..., 4:36, 4:36]
    exact, rounded = (KeypointLocalization("lift-plus", precision=p) for p in ("float32", "int8"))
    with torch.no_grad():
        expected, found = exact(patches), rounded(patches)
        parts = torch.cat([rounded(part) for part in patches.split(5)])
    off = found - expected
    assert 1e-5 < off[:, :2].abs().mean() < limit * 0.003 < limit * 0.1 * expected[:, :2].abs().mean()
    assert off[:, 2].abs().mean() < limit * 0.01
    assert torch.allclose(found, parts, atol=1e-5)


@needs_integers
@pytest.mark.parametrize("blocks", [False, True])
def test_integers_follow_both_forms(blocks: bool) -> None:
    network = trained(blocks=blocks)
    other = KeypointLocalization(False, blocks=blocks, precision="int8").eval()
    other.load_state_dict(network.state_dict())
    patches = texture(32, 32, batch=40)
    with torch.no_grad():
        expected, found = network(patches), other(patches)
    for a, b in zip(expected[:, :3].unbind(1), found[:, :3].unbind(1), strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > (0.98 if has_fast_integers() else 0.8)


@pytest.mark.parametrize("blocks", [False, True])
def test_gradcheck(blocks: bool) -> None:
    network = trained(blocks=blocks).double()
    patch = torch.rand(2, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (patch,), fast_mode=True)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        KeypointLocalization(False)(torch.rand(1, 1, 64, 64))


def test_frames_move_and_grow_in_their_own_coordinates() -> None:
    lafs = lafs_from_lift(torch.tensor([[[40.0, 50.0]]]), torch.tensor([[2.0]]), torch.tensor([[math.pi / 2]]))
    scale = get_laf_scale(lafs).item()
    corrected = LAFLocalizer(Constant(0.5, 0.0, math.log(1.2), 0.0))(lafs, torch.rand(1, 1, 90, 90))  # type: ignore[arg-type]
    # rotated clockwise by 90 degrees, the x axis of the frame points down
    torch.testing.assert_close(get_laf_center(corrected)[0, 0], torch.tensor([40.0, 50.0 + 0.5 * scale]))
    assert get_laf_scale(corrected).item() == pytest.approx(1.2 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_empty_slots_stay_empty_in_any_dtype(dtype: torch.dtype) -> None:
    lafs = lafs_from_lift(torch.tensor([[[40.0, 50.0], [20.0, 30.0]]]), torch.tensor([[2.0, 3.0]]))
    lafs[0, 1] = 0
    corrected = LAFLocalizer(trained().to(dtype))(lafs, torch.rand(1, 1, 90, 90).to(dtype))
    assert corrected.dtype == lafs.dtype
    assert laf_is_filled(corrected).tolist() == [[True, False]]
    assert (corrected[0, 1] == 0).all()


def test_cutting_at_once_or_by_kornia_is_the_same() -> None:
    image, localizer = texture(120, 140), LAFLocalizer(trained())
    lafs, _ = LIFTDetector(50, pretrained=False).eval()(image)
    with torch.no_grad():
        fast = localizer(lafs, image)
    torch.testing.assert_close(localizer(lafs, image).detach(), fast, atol=2e-3, rtol=1e-3)


def test_keypoints_that_turn_out_to_be_the_same_are_suppressed() -> None:
    class Attract(nn.Module):
        """Pulls everything to multiples of 24 pixels."""

        def forward(self, laf: Tensor, img: Tensor) -> Tensor:
            centre = (laf[..., 2:] / 24).round() * 24
            return torch.where(laf_is_filled(laf)[..., None, None], torch.cat([laf[..., :2], centre], -1), laf)

    image = texture(160, 200)
    config = ScaleSpaceConfig(suppression_pixels=8.0)
    with torch.no_grad():
        lafs, responses = LIFTDetector(60, config, localizer=Attract(), pretrained=False).eval()(image)
    xy = get_laf_center(lafs)[0, laf_is_filled(lafs)[0]]
    assert 5 < len(xy) <= 60
    torch.testing.assert_close(xy, (xy / 24).round() * 24)
    assert (torch.pdist(xy) > 8).all()
    assert (xy >= 0).all() and (xy <= torch.tensor([199.0, 159.0])).all()
    assert (responses[0].diff() <= 0)[: len(xy) - 1].all()


def test_keypoints_are_not_moved_into_masked_regions() -> None:
    image, mask = texture(120, 160), torch.ones(1, 1, 120, 160)
    mask[..., 80:] = 0
    shift = LAFLocalizer(Constant(0.6, 0.0, 0.0, 0.0))  # type: ignore[arg-type]
    with torch.no_grad():
        lafs, _ = LIFTDetector(200, localizer=shift, pretrained=False).eval()(image, mask)
        free, _ = LIFTDetector(200, localizer=shift, pretrained=False).eval()(image)
    x = lafs[0, laf_is_filled(lafs)[0], 0, 2]
    assert len(x) > 5 and x.max() < 80
    assert free[0, laf_is_filled(free)[0], 0, 2].max() > 80
