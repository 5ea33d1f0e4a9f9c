"""PolarOrientation: it rotates with the patch, whatever its weights; kornia's contract for angle detectors."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path

import pytest
import torch
from kornia.feature import LAFOrienter, get_laf_orientation
from torch import Tensor
from torch.autograd import gradcheck

from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_fast_integers, has_integers
from kornia_lift.networks.polar_orientation import PolarOrientation, peak_angle, peak_angles, polar_sampling
from kornia_lift.weights import WeightFileError, write_safetensors
from tests.helpers.pictures import texture


def trained(**options: object) -> PolarOrientation:
    """Random weights whose batch statistics are those of textures, in eval mode."""
    torch.manual_seed(0)
    network = PolarOrientation(False, **options)  # type: ignore[arg-type]
    network.load_state_dict(state_of_trained(bool(options.get("small"))))
    return network.eval()


@functools.cache
def state_of_trained(small: bool) -> dict[str, Tensor]:
    """Made once: 40 batches take a while, and most tests want them."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = PolarOrientation(False, small=small)
        for seed in range(40):
            network(texture(32, 32, batch=32, seed=seed))
    return network.state_dict()


def rotated(degrees: float, size: int = 32, batch: int = 12) -> Tensor:
    """Textures seen by frames that are rotated counter-clockwise on screen: their content rotates clockwise."""
    image = texture(100, 100, batch=batch)
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), math.sin(angle), 0.0], [-math.sin(angle), math.cos(angle), 0.0]]) * 0.4
    grid = torch.nn.functional.affine_grid(matrix.expand(batch, 2, 3), [batch, 1, size, size], align_corners=False)
    return torch.nn.functional.grid_sample(image, grid, align_corners=False)


def test_the_sampling_matrix_interpolates() -> None:
    matrix = polar_sampling(32, 16, 72)
    assert torch.allclose(matrix.sum(1), torch.ones(16 * 72))
    ramp = torch.arange(32.0).expand(32, 32)  # the column of every pixel
    found = (matrix @ ramp.flatten()).view(16, 72)
    angle = torch.arange(72) * (2 * math.pi / 72)
    assert torch.allclose(found[10], 15.5 + 10.5 * angle.cos(), atol=1e-4)
    rows = (matrix @ ramp.T.flatten()).view(16, 72)
    assert rows[10, 18] == pytest.approx(15.5 + 10.5)  # direction 90 degrees: down, clockwise on screen


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_rotated_patch_has_the_shifted_distribution(quarter: int, small: bool) -> None:
    network, patch = trained(precision="float32", small=small), texture(32, 32, batch=6)
    with torch.no_grad():
        upright = network.distribution(patch)
        after = network.distribution(patch.rot90(-quarter, (2, 3)))  # clockwise
    assert torch.allclose(after, upright.roll(18 * quarter, 1), atol=1e-5)


@pytest.mark.parametrize("degrees", [-140, -35, 5, 45])
def test_the_logits_rotate_with_the_patch(degrees: int) -> None:
    network = trained(precision="float32")
    with torch.no_grad():
        # a frame rotated counter-clockwise sees its content rotated clockwise
        upright, after = network.logits(rotated(0)), network.logits(rotated(degrees))
    expected = upright.roll(degrees // 5, 1)
    left = (after - expected).square().mean() / expected.var(1).mean()
    assert left < 0.1  # what the interpolation changes; 2 for unrelated ones
    assert (after - upright).square().mean() > 2 * (after - expected).square().mean()


def test_peak_between_bins() -> None:
    p = torch.full((1, 72), 1e-9)
    p[0, 71], p[0, 0] = 0.5, 0.499
    assert peak_angle(p).rad2deg().item() == pytest.approx(-2.5, abs=0.02)
    assert peak_angle(p, torch.tensor([0])).rad2deg().item() == pytest.approx(-2.5, abs=0.02)


def test_is_an_angle_detector_for_kornia() -> None:
    image = texture(120, 130)
    lafs = lafs_from_lift(torch.rand(1, 9, 2) * 60 + 30, torch.full((1, 9), 2.0))
    network = trained()
    with torch.no_grad():
        upright = LAFOrienter(32, angle_detector=network)(lafs, image)
        again = LAFOrienter(32, angle_detector=network)(upright, image)
    assert again.shape == lafs.shape
    assert not torch.allclose(get_laf_orientation(upright), get_laf_orientation(lafs))


def test_contrast_and_brightness_do_not_matter() -> None:
    network, patch = trained(precision="float32"), texture(32, 32, batch=9)
    with torch.no_grad():
        change = network.logits(patch) - network.logits(patch * 0.5 + 0.3)
        assert change.square().mean() < 0.1 * network.logits(patch).var(1).mean()


def test_weights_say_which_form_the_network_has(tmp_path: Path) -> None:
    for small, count in ((False, 30_697), (True, 28_393)):
        network, path = trained(small=small, precision="float32"), tmp_path / f"{small}.safetensors"
        assert sum(p.numel() for p in network.parameters()) == count
        tensors = {f"orientation.{name}": value for name, value in network.state_dict().items()}
        write_safetensors(path, tensors, {"networks": "compact"})
        loaded, patch = PolarOrientation(path, precision="float32"), texture(32, 32, batch=3)
        assert loaded.small == small and not loaded.training
        with torch.no_grad():
            torch.testing.assert_close(loaded(patch), network(patch))
        with pytest.raises(WeightFileError, match="do not fit"):
            PolarOrientation(path, small=not small)


def both_paths(network: PolarOrientation, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the inference path, and of the network as it is defined."""
    with torch.no_grad():
        found = network.logits(patches)
        with fast_paths(False):
            return found, network.logits(patches)


@pytest.mark.parametrize("small", [False, True])
def test_the_folded_path_gives_the_same(small: bool) -> None:
    patches = texture(32, 32, batch=21)
    found, expected = both_paths(trained(precision="float32", small=small), patches)
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))
    half = trained(precision="bfloat16", small=small)
    with torch.no_grad():
        assert (half.logits(patches) - expected).abs().max() < 0.05 * expected.abs().max()


needs_integers = pytest.mark.skipif(not has_integers(), reason="this torch has no convolutions of 8-bit integers")


@needs_integers
@pytest.mark.parametrize("small", [False, True])
def test_integers_give_nearly_the_same_for_any_batch(small: bool) -> None:
    network, patches = trained(precision="int8", small=small), texture(32, 32, batch=21)
    found, expected = both_paths(network, patches)
    with torch.no_grad():
        parts = torch.cat([network.logits(part) for part in patches.split(5)])
    # the logits of random weights vary little; without fast instructions sums of two products may saturate
    limit = (0.2 if has_fast_integers() else 0.6) * float(expected.std())
    assert 1e-4 < float((found - expected).square().mean().sqrt()) < limit
    # the sampling matrix rounds in float32: a few values fall on the other side of a step
    assert float((found - parts).abs().mean()) < 0.02 * float(expected.std())


@needs_integers
def test_integers_rotate_with_the_patch() -> None:
    """A shift along the circles is a shift of integers: the estimate has no preferred direction."""
    network, patch = trained(precision="int8"), texture(32, 32, batch=6)
    with torch.no_grad():
        upright = network.logits(patch)
        after = network.logits(patch.rot90(-1, (2, 3)))
    assert (after - upright.roll(18, 1)).abs().mean() < 0.02 * upright.std()


@needs_integers
def test_integers_of_shipped_weights_give_the_angles_of_float32() -> None:
    patches = rotated(0, batch=64)
    exact, rounded = (PolarOrientation("lift-plus", precision=p) for p in ("float32", "int8"))
    with torch.no_grad():
        off = (exact(patches) - rounded(patches) + math.pi) % (2 * math.pi) - math.pi
    assert (off.abs() < math.radians(5)).float().mean() > (0.9 if has_fast_integers() else 0.5)
    assert off.abs().median() < math.radians(1)


def test_chunks_and_an_empty_batch_do_not_change_the_result() -> None:
    whole, parts = trained(precision="float32"), trained(precision="float32", chunk_size=2)
    patches = texture(32, 32, batch=5)
    with torch.no_grad():
        assert torch.allclose(whole(patches), parts(patches), atol=1e-4)
        assert whole(patches[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("patch", "error"),
    [(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), TypeError), (torch.rand(1, 1, 64, 64), ValueError)],
)
def test_bad_input_is_refused(patch: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        PolarOrientation(False)(patch)


def test_constant_patch_has_finite_output_and_gradient() -> None:
    network = trained()
    out = network(torch.full((1, 1, 32, 32), 0.45))
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_gradient_with_respect_to_the_patch_is_exact() -> None:
    network = trained().double()
    patch = texture(32, 32).double().requires_grad_()
    assert gradcheck(network, (patch,), fast_mode=True)
    assert gradcheck(network.logits, (patch,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(dtype: torch.dtype) -> None:
    out = trained().to(dtype)(texture(32, 32, batch=2).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_compiled_and_copied_it_is_the_same() -> None:
    network, patches = trained(), texture(32, 32, batch=4)
    with torch.no_grad(), fast_paths(False):
        expected = network(patches)
        assert torch.allclose(torch.compile(network, backend="eager", fullgraph=True)(patches), expected, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(patches), network(patches))


def test_peaks_are_apart_and_weighted_by_the_root_of_their_probability() -> None:
    def shares(*probabilities: float) -> object:
        roots = [math.sqrt(p) for p in probabilities]
        return pytest.approx([root / sum(roots) for root in roots])

    p = torch.zeros(3, 72)
    p[0, [10, 11, 12]], p[0, 15], p[0, [40, 41, 42]] = (
        torch.tensor([0.1, 0.3, 0.1]),
        0.2,
        torch.tensor([0.05, 0.2, 0.05]),
    )
    p[1, 71] = 1.0
    p[2, 0], p[2, 36], p[2, 18] = 0.9, 0.08, 0.02
    angles, weights = peak_angles(p, 3)
    # bin 15 belongs to the peak at 11: it is nearer than 7 bins
    assert angles[0, :2].rad2deg().tolist() == pytest.approx([55.0, -155.0], abs=1e-3)
    assert weights[0].tolist() == shares(0.5, 0.3, 0.0)
    assert angles[1, 0].rad2deg().item() == pytest.approx(-5.0, abs=1e-3) and weights[1].tolist() == [1, 0, 0]
    assert weights[2].tolist() == shares(0.9, 0.08, 0.0)  # the third is below a twentieth of the first
    assert peak_angles(p, 3, least=0.1)[1][2].tolist() == [1, 0, 0]
    assert torch.equal(angles[:, 0], peak_angle(p))


def test_weights_of_missing_peaks_have_a_finite_gradient() -> None:
    p = torch.zeros(1, 72).index_fill(1, torch.tensor([20]), 1.0).requires_grad_()
    _, weights = peak_angles(p, 3)
    weights[0, 0].backward()
    assert p.grad is not None and p.grad.isfinite().all()
