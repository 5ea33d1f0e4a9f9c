"""CompactDescriptor: kornia's contract for patch descriptors, invariance to illumination, the folded path."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from kornia.feature import LAFDescriptor, scale_laf
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import avg_pool2d

from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_fast_integers, has_integers
from kornia_lift.networks.compact_descriptor import SMALL_CHANNELS, CompactDescriptor
from kornia_lift.weights import WeightFileError, write_safetensors
from tests.helpers.pictures import texture


def views(batch: int = 1, seed: int = 0) -> Tensor:
    """Patches of three regions."""
    return torch.cat([texture(32, 32, batch=batch, seed=seed + 100 * k) for k in range(3)], 1)


def trained(**options: object) -> CompactDescriptor:
    """Random weights whose batch statistics are those of textures, in eval mode."""
    torch.manual_seed(0)
    network = CompactDescriptor(False, **options)  # type: ignore[arg-type]
    network.load_state_dict(state_of_trained(options.get("channels")))  # type: ignore[arg-type]
    return network.eval()


@functools.cache
def state_of_trained(channels: tuple[int, ...] | None) -> dict[str, Tensor]:
    """Made once: 40 batches take seconds, and most tests want them."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = CompactDescriptor(False, channels=channels)
        for seed in range(40):
            network(views(32, seed))
    return network.state_dict()


@pytest.mark.parametrize(
    ("channels", "millions", "weights"), [(None, 34.0, 1_708_610), (SMALL_CHANNELS, 19.2, 1_598_018)]
)
def test_counts_its_products_and_parameters(channels: tuple[int, ...] | None, millions: float, weights: int) -> None:
    network = CompactDescriptor(False, channels=channels).eval()
    products = 0

    def count(layer: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        nonlocal products
        products += out.numel() * layer.weight[0].numel()  # type: ignore[operator, index]

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)  # type: ignore[arg-type]
    with fast_paths(False):
        network(views())
    assert products == pytest.approx(1e6 * millions, rel=0.01)
    assert sum(p.numel() for p in network.parameters()) == weights


def test_weights_say_how_wide_the_network_is(tmp_path: Path) -> None:
    narrow, path = trained(channels=(8, 16, 24, 16)), tmp_path / "narrow.safetensors"
    tensors = {f"descriptor.{name}": value for name, value in narrow.state_dict().items()}
    write_safetensors(path, tensors, {"networks": "compact"})
    loaded = CompactDescriptor(path)
    assert [len(layer.weight) for layer, _ in loaded.features.pairs()] == [8, 16, 24, 16, 128]
    with torch.no_grad():
        torch.testing.assert_close(loaded(views(3)), narrow(views(3)))
    with pytest.raises(WeightFileError, match="do not fit"):
        CompactDescriptor(path, channels=(8, 16, 24, 24))


def test_too_few_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"three or more layers, got \(8, 16\)"):
        CompactDescriptor(channels=(8, 16))


def test_describes_by_unit_vectors_as_kornia_expects() -> None:
    image = texture(80, 90, batch=2)
    lafs = lafs_from_lift(torch.rand(2, 7, 2) * 60 + 10, torch.full((2, 7), 2.0))
    found = LAFDescriptor(trained(), patch_size=128)(image, scale_laf(lafs, 4.0))
    assert found.shape == (2, 7, 128)
    assert torch.allclose(found.norm(dim=2), torch.ones(2, 7), atol=1e-5)


def test_contrast_and_brightness_do_not_matter() -> None:
    network, patch = trained(precision="float32"), views(9)
    with torch.no_grad():
        assert ((network(patch) * network(patch * 0.5 + 0.3)).sum(1) > 0.95).all()


def test_the_folded_path_gives_the_same() -> None:
    network, patches = trained(precision="float32"), views(21)
    with torch.no_grad():
        found = network(patches)
        with fast_paths(False):
            expected = network(patches)
    assert torch.allclose(found, expected, atol=1e-5)
    half = trained(precision="bfloat16")
    with torch.no_grad():
        assert ((half(patches) * expected).sum(1) > 0.999).all()
        # every weight that changes is seen
        half.features[0].weight.mul_(0.5)  # type: ignore[union-attr, operator]
        with fast_paths(False):
            expected = half(patches)
        assert ((half(patches) * expected).sum(1) > 0.999).all()


def test_statistics_are_part_of_the_state() -> None:
    network = trained(precision="float32")
    other = CompactDescriptor(False, precision="float32")
    other.load_state_dict(network.state_dict())
    patches = views(3)
    with torch.no_grad():
        assert torch.equal(other.eval()(patches), network(patches))


def test_train_mode_uses_the_batch_and_eval_mode_does_not() -> None:
    network, patches = trained(precision="float32"), views(8)
    with torch.no_grad():
        assert torch.allclose(network(patches)[:2], network(patches[:2]), atol=1e-5)
        network.train()
        assert not torch.allclose(network(patches)[:2], network(patches[:2]), atol=1e-3)


def test_chunks_and_an_empty_batch_do_not_change_the_result() -> None:
    whole, parts = trained(), trained(chunk_size=2)
    patches = views(5)
    with torch.no_grad():
        assert torch.allclose(whole(patches), parts(patches), atol=2e-3)
        assert whole(patches[:0]).shape == (0, 128)


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError),
        (torch.rand(1, 1, 64, 64), ValueError),
        (torch.rand(1, 1, 32, 32), ValueError),  # no surroundings
        (torch.rand(32, 32), ValueError),
    ],
)
def test_bad_input_is_refused(patch: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        CompactDescriptor(False)(patch)


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, float32, bfloat16, int8, got 'int4'"):
        CompactDescriptor(False, precision="int4")  # type: ignore[arg-type]


def test_integers_where_torch_has_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kornia_lift.networks._fast.quantized.has_integers", lambda: False)
    with pytest.raises(ValueError, match="precision 'int8' needs"):
        CompactDescriptor(False, precision="int8")


needs_integers = pytest.mark.skipif(not has_integers(), reason="this torch has no convolutions of 8-bit integers")


@needs_integers
def test_integers_give_nearly_the_same_and_do_not_depend_on_the_batch() -> None:
    network, patches = trained(precision="int8"), views(70)
    with torch.no_grad():
        found = network(patches)
        with fast_paths(False):
            expected = network(patches)
        similar = (found * expected).sum(1)
        # without fast instructions sums of two products may saturate
        assert similar.min() > (0.99 if has_fast_integers() else 0.95)
        assert similar.mean() < 1 - 1e-6, "integers were not used"
        assert torch.equal(torch.cat([network(part) for part in patches.split(7)]), found)
        network.surroundings[1][0].weight.mul_(-1)  # type: ignore[index, operator, union-attr]
        with fast_paths(False):
            changed = network(patches)
        assert ((network(patches) * changed).sum(1) > 0.95).all()
        assert ((changed * expected).sum(1) < 0.99).any()


def test_one_patch_of_the_largest_region_holds_all() -> None:
    network, large = trained(precision="float32"), texture(128, 128, batch=3)
    three = torch.cat([large[..., 48:80, 48:80], avg_pool2d(large[..., 32:96, 32:96], 2), avg_pool2d(large, 4)], 1)
    with torch.no_grad():
        assert torch.allclose(network(large), network(three), atol=1e-5)


def test_every_region_matters() -> None:
    network, patches = trained(precision="float32"), views(5)
    with torch.no_grad():
        before = network(patches)
        for k in range(3):
            other = patches.clone()
            other[:, k] = views(5, seed=7)[:, k]
            assert ((network(other) * before).sum(1) < 0.999).all()


def test_constant_patch_has_finite_output_and_gradient() -> None:
    network = trained()
    out = network(torch.full((1, 3, 32, 32), 0.45))
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_gradient_with_respect_to_the_patch_is_exact() -> None:
    network = trained().double()
    patch = views().double().requires_grad_()
    assert gradcheck(network, (patch,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(dtype: torch.dtype) -> None:
    out = trained().to(dtype)(views(2).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_compiled_and_copied_it_is_the_same() -> None:
    network, patches = trained(), views(4)
    with torch.no_grad(), fast_paths(False):
        expected = network(patches)
        assert torch.allclose(torch.compile(network, backend="eager", fullgraph=True)(patches), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(patches), network(patches))
