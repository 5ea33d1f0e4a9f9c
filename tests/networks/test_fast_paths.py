"""The inference paths give what the networks give: same weights, other order of operations."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTOrientation, LIFTResponse
from kornia_lift.networks._fast.blocks import filters_on_blocks, to_blocks
from kornia_lift.networks._fast.folded import Placement
from tests.helpers.pictures import texture


def patches(count: int) -> Tensor:
    """Patches of different contrast and brightness, some flat, one black."""
    generator = torch.Generator().manual_seed(count)
    contrast, shift = torch.rand(2, count, 1, 1, 1, generator=generator)
    noise = torch.rand(count, 1, 64, 64, generator=generator)
    smooth = texture(64, 64, batch=count)
    out = (0.7 * smooth + 0.3 * noise) * contrast + 0.3 * shift
    out[1::5] = shift[1::5]
    out[:1] = 0
    return out


def plain(network: nn.Module, x: Tensor) -> Tensor:
    """The network as it is defined: it records gradients."""
    with torch.enable_grad():
        return network(x).detach()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("statistics", [{}, {"mean": torch.rand(64, 64), "std": 0.2}], ids=["scalars", "images"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_descriptors_agree(normalize: bool, statistics: dict[str, Tensor | float], pretrained: bool) -> None:
    if pretrained and statistics:
        pytest.skip("shipped weights bring their own statistics")
    network = LIFTDescriptor(pretrained, normalize=normalize, **statistics).eval()
    x = patches(70)
    with torch.no_grad():
        found = network(x)
    expected = plain(network, x)
    assert torch.allclose(found, expected, atol=2e-5 if normalize else 1e-4)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 65, 129])
def test_descriptors_do_not_depend_on_the_number_of_patches(count: int) -> None:
    network = LIFTDescriptor(False).eval()
    x = patches(129)
    with torch.inference_mode():
        found = network(x[:count])
        assert found.shape == (count, 128)
        assert torch.allclose(found, network(x)[:count], atol=2e-6)


def test_filters_of_blocks_give_what_those_of_pixels_give() -> None:
    weight, pixels = torch.randn(7, 1, 5, 5), torch.rand(3, 1, 32, 32)
    found = filters_on_blocks(weight, Placement((2, 2), (2, 2)))
    assert found is not None
    filters, at = found
    assert filters.shape == (7, 4, 3, 3)
    expected = F.conv2d(pixels, weight, stride=2, padding=2)
    assert torch.allclose(F.conv2d(to_blocks(pixels), filters, None, at.stride, at.padding), expected, atol=1e-5)
    integers = (pixels * 255).to(torch.uint8)
    assert torch.equal(to_blocks(integers), F.pixel_unshuffle(integers, 2))
    assert filters_on_blocks(weight, Placement((1, 1), (2, 2))) is None
    assert filters_on_blocks(torch.randn(7, 2, 5, 5), Placement((2, 2), (2, 2))) is None


def test_a_broken_patch_harms_no_other() -> None:
    network = LIFTDescriptor(False).eval()
    x = patches(20)
    x[3] = float("nan")
    with torch.no_grad():
        found = network(x)
    good = torch.arange(20) != 3
    assert found[3].isnan().all()
    assert torch.allclose(found[good], plain(network, x[good]), atol=2e-6)


def change_in_place(weight: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(1.1)


def change_hidden(weight: Tensor) -> None:
    weight.data.mul_(1.1)  # counts no version


def change_storage(weight: Tensor) -> None:
    weight.data = weight.data * 1.1


@pytest.mark.parametrize("change", [change_in_place, change_hidden, change_storage])
def test_new_weights_are_seen(change: object) -> None:
    network, x = LIFTDescriptor(False).eval(), patches(10)
    with torch.no_grad():
        before = network(x)
    for parameter in network.parameters():
        change(parameter)  # type: ignore[operator]
    with torch.no_grad():
        after = network(x)
    assert (after - before).abs().max() > 1e-3
    assert torch.allclose(after, plain(network, x), atol=2e-6)


def test_weights_of_functional_call_are_used() -> None:
    network, other = LIFTDescriptor(False).eval(), LIFTDescriptor(False).eval()
    x = patches(10)
    with torch.no_grad():
        found = torch.func.functional_call(network, dict(other.named_parameters()), (x,))
        assert torch.allclose(found, other(x), atol=2e-6)


def test_copies_and_files_hold_weights_only() -> None:
    network, x = LIFTDescriptor(False).eval(), patches(10)
    size = len(saved(network))
    with torch.no_grad():
        expected = network(x)
        assert len(saved(network)) == size
        assert torch.equal(copy.deepcopy(network)(x), expected)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def saved(network: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(network, file)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_as_they_are_defined(dtype: torch.dtype) -> None:
    network = LIFTDescriptor(False).eval().to(dtype)
    x = patches(10).to(dtype)
    with torch.no_grad():
        assert torch.equal(network(x), plain(network, x))


@pytest.mark.parametrize("pretrained", [True, False])
def test_bfloat16_keeps_the_descriptors(pretrained: bool) -> None:
    exact, fast = LIFTDescriptor(pretrained).eval(), LIFTDescriptor(pretrained, precision="bfloat16").eval()
    fast.load_state_dict(exact.state_dict())
    x = patches(70)
    x = x[x.flatten(1).std(1) > 0.02]
    with torch.no_grad():
        expected, found = exact(x), fast(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert (found * expected).sum(1).min() > 0.999
    assert torch.equal(plain(fast, x), plain(exact, x))


def test_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, got 'float8'"):
        LIFTDescriptor(False, precision="float8")  # type: ignore[arg-type]


def test_autocast_is_obeyed() -> None:
    network, x = LIFTDescriptor(False, normalize=False).eval(), patches(10)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(x).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(56, 56), (64, 57), (40, 200), (155, 97), (300, 183)])
@pytest.mark.parametrize("batch", [1, 2])
def test_scores_agree(size: tuple[int, int], batch: int) -> None:
    network, x = LIFTResponse(False, mean=0.4, std=0.3).eval(), texture(*size, batch=batch)
    with torch.no_grad():
        nn.init.normal_(network.conv.bias)  # type: ignore[arg-type]
        found, direct = network.valid(x), network.valid(x, direct=True)
    assert found.shape == direct.shape
    assert not torch.equal(found, direct)  # it was another path
    assert torch.allclose(found, direct, atol=1e-5 * direct.abs().max().item())
    assert torch.allclose(found, plain(network.valid, x), atol=1e-5 * direct.abs().max().item())  # type: ignore[arg-type]


def test_scores_follow_new_filters() -> None:
    network, x = LIFTResponse(False).eval(), texture(90, 90)
    with torch.no_grad():
        network.valid(x)
        network.conv.weight.data.mul_(2)
        assert torch.allclose(network.valid(x), network.valid(x, direct=True), atol=1e-4)


def test_a_broken_pixel_harms_its_surroundings_only() -> None:
    network, x = LIFTResponse(False).eval(), texture(90, 90)
    x[0, 0, 10, 10] = float("nan")
    with torch.no_grad():
        broken = network.valid(x).isnan()[0, 0]
    assert broken[:11, :11].all()
    assert broken.sum() == 121


def test_keypoints_agree() -> None:
    detector, image = LIFTDetector(150, pretrained=True).eval(), texture(200, 240)
    with torch.no_grad():
        lafs, responses = detector(image)
    with torch.enable_grad():
        expected, scores = detector(image)
    assert torch.allclose(responses, scores, rtol=1e-4, atol=1e-4 * scores.abs().max().item())
    distance = torch.cdist(lafs[0, :, :, 2].double(), expected[0, :, :, 2].detach().double()).amin(1)
    assert (distance < 0.01).float().mean() > 0.98


@pytest.mark.parametrize("count", [0, 1, 8, 64, 67])
@pytest.mark.parametrize("variant", [{}, {"pool3": False}, {"output_order": "sc"}, {"mean": 0.4, "std": 0.2}])
def test_angles_agree(variant: dict, count: int) -> None:
    network, x = LIFTOrientation(False, **variant).eval(), patches(67)[:count]
    with torch.no_grad():
        for layer in (network.conv1, network.conv2, network.conv3, network.fc1, network.fc2):
            nn.init.normal_(layer.bias)  # type: ignore[arg-type]
        found = network.vector(x)
        assert network(x).shape == (count,)
    expected = plain(network.vector, x)  # type: ignore[arg-type]
    assert found.shape == (count, 2)
    assert torch.allclose(found, expected, atol=1e-4)


def test_dropout_is_obeyed() -> None:
    network, x = LIFTOrientation(False, dropout=0.5).train(), patches(10)
    with torch.no_grad():
        assert (network.vector(x) - network.vector(x)).abs().max() > 1e-2
