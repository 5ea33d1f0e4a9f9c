"""LIFTDescriptor: published weights against the oracle, and kornia's contract for patch descriptors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import LAFDescriptor
from torch import Tensor
from torch.autograd import gradcheck

from kornia_lift import LIFTDescriptor
from kornia_lift.convert import load_lift_descriptor
from kornia_lift.geometry import lafs_from_lift
from tests.helpers.pictures import texture


def test_every_stage_reproduces_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/lift_desc_picc56k.npz")
    network = load_lift_descriptor(shared / "weights_upstream/new-CNN3-picc-iter-56k.h5")
    x = (torch.from_numpy(oracle["patches"][:1]).float()[:, None] / 255 - network.mean) / network.std
    # the oracle keeps each block after convolution and tanh, after pooling, and after normalisation
    stages = [key for key in oracle.files if key.startswith("p0_stage")]
    found = []
    with torch.no_grad():
        for layer in network.features:
            x = layer(x)
            found.append(x[0])
    compared = 0
    for key in stages:
        expected = oracle[key]
        same = [f for f in found if f.numpy().squeeze().shape == expected.squeeze().shape]
        assert min(np.abs(f.numpy().squeeze() - expected.squeeze()).max() for f in same) < 1e-4, key
        compared += 1
    assert compared == 8


def test_has_the_parameters_of_the_paper() -> None:
    assert sum(p.numel() for p in LIFTDescriptor(False).parameters()) == 280_320


def test_normalize_only_scales() -> None:
    unit, raw = LIFTDescriptor(False).eval(), LIFTDescriptor(False, normalize=False).eval()
    raw.load_state_dict(unit.state_dict())
    patches = texture(64, 64, batch=3)
    with torch.no_grad():
        a, b = unit(patches), raw(patches)
    assert torch.allclose(a.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(a, b / b.norm(dim=1, keepdim=True), atol=1e-6)
    assert 0 <= b.min() and b.max() <= 4  # the root of 16 squared hyperbolic tangents


def test_is_a_patch_descriptor_for_kornia() -> None:
    image = texture(80, 90, batch=2)
    lafs = lafs_from_lift(torch.rand(2, 7, 2) * 60 + 10, torch.full((2, 7), 2.0))
    describe = LAFDescriptor(LIFTDescriptor(False), patch_size=64)
    assert describe(image, lafs).shape == (2, 7, 128)


def test_chunks_and_an_empty_batch_do_not_change_the_result() -> None:
    whole, parts = LIFTDescriptor(False).eval(), LIFTDescriptor(False, chunk_size=2).eval()
    parts.load_state_dict(whole.state_dict())
    patches = texture(64, 64, batch=5)
    with torch.no_grad():
        assert torch.allclose(whole(patches), parts(patches), atol=1e-6)
        assert whole(patches[:0]).shape == (0, 128)


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (torch.zeros(1, 1, 64, 64, dtype=torch.uint8), TypeError),
        (torch.rand(1, 1, 32, 32), ValueError),
        (torch.rand(64, 64), ValueError),
    ],
)
def test_bad_input_is_refused(patch: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        LIFTDescriptor(False)(patch)


def test_constant_patch_has_finite_output_and_gradient() -> None:
    network = LIFTDescriptor(False)
    out = network(torch.full((1, 1, 64, 64), 0.45))
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_gradient_with_respect_to_the_patch_is_exact() -> None:
    network = LIFTDescriptor(False).double().eval()
    patch = texture(64, 64).double().requires_grad_()
    assert gradcheck(network, (patch,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(dtype: torch.dtype) -> None:
    out = LIFTDescriptor(False).to(dtype).eval()(texture(64, 64, batch=2).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()
