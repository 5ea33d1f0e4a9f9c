"""CorrespondenceNet and the weighted eight-point algorithm: oracles, gradients, sets, padding, degenerate input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.geometry.epipolar import cross_product_matrix
from torch import Tensor, nn
from torch.autograd import gradcheck

from kornia_lift._kornia import ShapeError
from kornia_lift.geometry.epipolar import (
    assumed_intrinsics,
    epipolar_rows,
    normalise_matches,
    weighted_eight_point,
)
from kornia_lift.networks.correspondence import CorrespondenceBlock, CorrespondenceNet, context_normalise

NAN = float("nan")


def read(shared: Path, name: str) -> dict[str, Tensor]:
    with np.load(shared / "oracles" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def fill_conv(layer: nn.Conv1d, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight[..., None])
    assert layer.bias is not None
    layer.bias.copy_(bias)


@torch.no_grad()
def fill_block(block: CorrespondenceBlock, oracle: dict[str, Tensor], prefix: str = "") -> None:
    for n, (conv, norm) in enumerate(((block.conv1, block.norm1), (block.conv2, block.norm2)), 1):
        fill_conv(conv, oracle[f"{prefix}w{n}"], oracle[f"{prefix}b{n}"])
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(oracle[f"{prefix}bn{n}"][0])
        norm.running_var.copy_(oracle[f"{prefix}bn{n}"][1])


def same_up_to_sign(a: Tensor, b: Tensor, tolerance: float) -> None:
    a = a.flatten(-2) if a.shape[-1] == 3 else a
    assert torch.minimum((a - b).abs().amax(-1), (a + b).abs().amax(-1)).max() < tolerance


def scene(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Exact matches (1, N, 4) of points in space, and their essential matrix (1, 3, 3) of unit norm."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, 3, generator=generator, dtype=torch.float64) * 4 - 2 + torch.tensor([0.0, 0.0, 6.0])
    angle = torch.tensor(0.2, dtype=torch.float64)
    rotation = torch.eye(3, dtype=torch.float64)
    rotation[0, 0] = rotation[2, 2] = angle.cos()
    rotation[0, 2], rotation[2, 0] = angle.sin(), -angle.sin()
    shift = torch.tensor([[1.0, 0.2, 0.1]], dtype=torch.float64)
    moved = points @ rotation.T + shift
    matches = torch.cat([points[..., :2] / points[..., 2:], moved[..., :2] / moved[..., 2:]], -1)
    essential = cross_product_matrix(shift) @ rotation
    return matches, essential / essential.norm()


@pytest.mark.parametrize("training", [False, True])
def test_block_reproduces_the_oracle(shared: Path, training: bool) -> None:
    oracle = read(shared, "cne_block")
    block = CorrespondenceBlock().double().train(training)
    fill_block(block, oracle)
    with torch.no_grad():
        out = block(oracle["x"])
    assert (out - oracle["out_train" if training else "out_eval"]).abs().max() < 1e-12


def oracle_network(oracle: dict[str, Tensor]) -> CorrespondenceNet:
    network = CorrespondenceNet(blocks=2).double()
    with torch.no_grad():
        fill_conv(network.input, oracle["in_w"], oracle["in_b"])
        fill_conv(network.output, oracle["out_w"], oracle["out_b"])
    for n, block in enumerate(network.blocks):
        assert isinstance(block, CorrespondenceBlock)
        fill_block(block, oracle, f"b{n}_")
    return network


def test_network_reproduces_the_oracle(shared: Path) -> None:
    oracle = read(shared, "cne_net2")
    network = oracle_network(oracle)
    matches = oracle["x"].mT
    with torch.no_grad():
        assert (network.train().logits(matches) - oracle["logits_train"]).abs().max() < 1e-10
        network = oracle_network(oracle).eval()
        found = network(matches)
        single = network.float()(matches.float())
    assert (found.logits - oracle["logits_eval"]).abs().max() < 1e-10
    assert (found.weights - oracle["weights_eval"]).abs().max() < 1e-10
    same_up_to_sign(found.essential, oracle["e_hat_eval"], 1e-8)
    assert (single.logits - oracle["logits_eval"]).abs().max() < 1e-4


def test_eight_point_reproduces_the_oracle(shared: Path) -> None:
    o = read(shared, "cne_weighted8")
    matches = torch.cat([o["x1"], o["x2"]], 1)[None]
    rows = epipolar_rows(matches)[0]
    assert (rows - o["X"]).abs().max() < 1e-14
    assert (rows.T @ (rows * o["weights"][:, None]) - o["XtWX"]).abs().max() < 1e-12
    same_up_to_sign(weighted_eight_point(matches, o["weights"][None]).essential, o["e_gt"], 1e-10)
    outliers = torch.cat([o["x1"], o["x2_with_outliers"]], 1)[None]
    same_up_to_sign(weighted_eight_point(outliers, o["weights_outliers_zero"][None]).essential, o["e_gt"], 1e-10)
    noisy = torch.cat([o["noisy_x1"], o["noisy_x2"]], 1)[None]
    same_up_to_sign(weighted_eight_point(noisy, o["weights"][None]).essential, o["e_noisy"], 1e-9)


def test_eight_point_gradient_reproduces_the_oracle(shared: Path) -> None:
    o = read(shared, "cne_weighted8")
    logits = o["grad_logits"].clone().requires_grad_()
    matches = torch.cat([o["grad_x1"], o["grad_x2"]], 1)[None]
    e = weighted_eight_point(matches, torch.relu(torch.tanh(logits))[None]).essential.flatten()
    same_up_to_sign(e.detach(), o["grad_e_hat"], 1e-9)
    loss = torch.minimum((e - o["e_gt"]).square().sum(), (e + o["e_gt"]).square().sum())
    loss.backward()
    assert abs(float(loss.detach() - o["grad_loss"])) < 1e-9
    assert logits.grad is not None
    expected = o["grad_dloss_dlogits"]
    assert (logits.grad - expected).abs().max() < 1e-6 * expected.abs().max()


def test_eight_point_gradients_are_exact() -> None:
    matches, _ = scene(14)
    matches = (matches + 0.01 * torch.randn(1, 14, 4, dtype=torch.float64)).requires_grad_()
    weights = (torch.rand(1, 14, dtype=torch.float64) + 0.2).requires_grad_()
    assert gradcheck(lambda m, w: weighted_eight_point(m, w).essential, (matches, weights), atol=1e-4)


def test_network_gradients_are_exact() -> None:
    network = CorrespondenceNet(channels=6, blocks=2).double().eval()
    matches = (torch.rand(1, 12, 4, dtype=torch.float64) - 0.5).requires_grad_()
    with torch.no_grad():
        network.output.bias.fill_(1.0)  # type: ignore[union-attr]
    assert gradcheck(lambda m: network(m)[:3], (matches,), atol=1e-4)


def test_equal_eigenvalues_have_a_finite_gradient() -> None:
    """``torch.linalg.eigh`` gives NaN for diag(0, 1, 1): the eigenvector of 0 is smooth all the same."""
    from kornia_lift.geometry.epipolar import _SmallestEigenvector

    matrix = torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))[None].requires_grad_()
    vector, _ = _SmallestEigenvector.apply(matrix)
    vector[0, 1].backward()
    assert matrix.grad is not None
    # first-order perturbation: dv_1 = -dA_10, shared by both triangles
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 1] = expected[1, 0] = -0.5
    assert torch.allclose(matrix.grad[0], expected)


def test_context_normalisation_is_instance_normalisation() -> None:
    x = torch.randn(3, 5, 20)
    expected = torch.nn.functional.instance_norm(x, eps=1e-3)
    assert torch.allclose(context_normalise(x), expected, atol=1e-5)
    assert torch.allclose(context_normalise(x, torch.ones(3, 20, dtype=torch.bool)), expected, atol=1e-5)


def test_order_of_the_matches_does_not_matter() -> None:
    network = CorrespondenceNet(blocks=3).double().eval()
    matches = torch.rand(2, 40, 4, dtype=torch.float64) - 0.5
    order = torch.randperm(40)
    with torch.no_grad():
        one, other = network(matches), network(matches[:, order])
    assert torch.allclose(one.logits[:, order], other.logits, atol=1e-12)
    assert torch.allclose(one.weights[:, order], other.weights, atol=1e-12)
    assert torch.allclose(one.essential, other.essential, atol=1e-8)
    assert one.essential.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training: bool) -> None:
    """Neither the result nor the running statistics, even where the padding is NaN."""
    network = CorrespondenceNet(blocks=2).double().train(training)
    twin = CorrespondenceNet(blocks=2).double().train(training)
    twin.load_state_dict(network.state_dict())
    matches = torch.rand(1, 30, 4, dtype=torch.float64) - 0.5
    padded = torch.cat([matches, torch.full((1, 7, 4), float("nan"), dtype=torch.float64)], 1)
    mask = torch.arange(37)[None] < 30
    plain, masked = network(matches), twin(padded, mask)
    assert torch.allclose(plain.logits, masked.logits[:, :30], atol=1e-10)
    assert (masked.logits[:, 30:] == 0).all() and (masked.weights[:, 30:] == 0).all()
    assert torch.allclose(plain.essential, masked.essential, atol=1e-8)
    for (name, a), b in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-10), name
    masked.logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in twin.parameters())


def test_size_of_the_published_network() -> None:
    assert sum(p.numel() for p in CorrespondenceNet().parameters()) == 397_057


def test_pixels_with_intrinsics_are_normalised() -> None:
    matches, _ = scene()
    k1 = torch.tensor([[800.0, 0, 320], [0, 810, 240], [0, 0, 1]], dtype=torch.float64)
    k2 = torch.tensor([[500.0, 0, 200], [0, 500, 160], [0, 0, 1]], dtype=torch.float64)
    pixels = torch.cat(
        [matches[..., :2] * torch.diagonal(k1)[:2] + k1[:2, 2], matches[..., 2:] * torch.diagonal(k2)[:2] + k2[:2, 2]],
        -1,
    )
    assert torch.allclose(normalise_matches(pixels, (k1, k2)), matches, atol=1e-12)
    network = CorrespondenceNet(blocks=1).double().eval()
    with torch.no_grad():
        assert torch.allclose(network(pixels, intrinsics=(k1, k2)).logits, network(matches).logits, atol=1e-9)


def test_assumed_intrinsics_put_the_centre_at_the_origin() -> None:
    k = assumed_intrinsics((640, 480))
    corner = torch.tensor([[[319.5, 239.5, 639.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([0, 0, 319.5 / 640, -239.5 / 640], dtype=torch.float64)
    assert torch.allclose(normalise_matches(corner, (k, k))[0, 0], expected)


@pytest.mark.parametrize("count", [0, 1, 5, 7])
def test_few_matches_have_no_essential_matrix(count: int) -> None:
    network = CorrespondenceNet(blocks=2).eval()
    matches = (torch.rand(2, count, 4) - 0.5).requires_grad_()
    found = network(matches)
    assert found.weights.shape == (2, count)
    assert found.logits.isfinite().all()
    assert (found.essential == 0).all() and (found.gap == 0).all()
    (found.essential.sum() + found.weights.sum()).backward()
    assert matches.grad is not None and matches.grad.isfinite().all()


def test_degenerate_matches_have_no_essential_matrix_and_no_gradient() -> None:
    """All on a line, of a pure rotation, all the same: zero, never NaN."""
    matches, _ = scene(30)
    t = torch.linspace(-0.5, 0.5, 30, dtype=torch.float64)
    line = torch.stack([t, 2 * t, 0.5 * t, t], 1)[None]
    rotated = torch.cat([matches[..., 1:2], -matches[..., :1]], -1)  # by 90 degrees about the optical axis
    rotation = torch.cat([matches[..., :2], rotated], -1)
    for case in (line, rotation, matches[:, :1].expand(-1, 30, -1)):
        weights = torch.ones(1, 30, dtype=torch.float64, requires_grad=True)
        essential, gap = weighted_eight_point(case, weights)
        assert (essential == 0).all() and gap < 1e-12
        essential.sum().backward()
        assert weights.grad is not None and (weights.grad == 0).all()


def test_all_outliers_leave_the_gradient_finite() -> None:
    matches, _ = scene(20)
    logits = torch.full((1, 20), -2.0, dtype=torch.float64, requires_grad=True)
    found = weighted_eight_point(matches, torch.relu(torch.tanh(logits)))
    found.essential.sum().backward()
    assert logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("matches", "options", "error", "text"),
    [
        (torch.rand(1, 20, 4) * 640, {}, ValueError, "look like pixels"),
        (torch.rand(1, 20, 4), {"intrinsics": (assumed_intrinsics((640, 480)),) * 2}, ValueError, "normalised already"),
        (torch.rand(20, 4), {}, ShapeError, r"matches\[None\]"),
        (torch.rand(1, 4, 20), {}, ShapeError, r"\(1, 4, 20\)"),
        (torch.ones(1, 20, 4, dtype=torch.int64), {}, TypeError, "int64"),
        (torch.full((1, 20, 4), float("nan")), {}, ValueError, "finite"),
        (torch.rand(1, 20, 4), {"mask": torch.ones(1, 20)}, TypeError, "boolean"),
        (torch.rand(1, 20, 4), {"mask": torch.ones(1, 19, dtype=torch.bool)}, ShapeError, r"\(1, 20\)"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.eye(2), torch.eye(3))}, ShapeError, r"\(2, 2\)"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": torch.eye(3)}, TypeError, r"two tensors \(K1, K2\)"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.eye(3),) * 3}, TypeError, r"two tensors \(K1, K2\)"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.ones(3), torch.eye(3))}, ShapeError, r"\(3,\)"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.eye(3) * NAN, torch.eye(3))}, ValueError, "finite K"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.eye(3), -torch.eye(3))}, ValueError, "positive focal"),
        (torch.rand(1, 20, 4) * 640, {"intrinsics": (torch.zeros(3, 3), torch.eye(3))}, ValueError, "positive focal"),
    ],
)
def test_bad_input_is_refused(matches: Tensor, options: dict[str, Tensor], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        CorrespondenceNet(blocks=1).eval()(matches, **options)


def test_side_columns_are_finite_where_there_are_matches() -> None:
    network, matches = CorrespondenceNet(blocks=1, side=True).eval(), torch.rand(1, 20, 4)
    side, mask = torch.rand(1, 20, 2), torch.ones(1, 20, dtype=torch.bool)
    side[0, 3] = NAN
    with pytest.raises(ValueError, match="finite side columns"):
        network(matches, side=side)
    mask[0, 3] = False
    assert network(matches, mask, side=side).logits.isfinite().all()


@pytest.mark.parametrize("size", [(0, 0), (-4, 3), (NAN, 3)])
def test_sizes_of_images_are_checked(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive width and height"):
        assumed_intrinsics(size)
