"""Every network computes on a GPU what it computes on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kornia_lift import LIFTDescriptor, LIFTOrientation, LIFTResponse
from kornia_lift.convert.tilde import TILDEResponse
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.geometry.epipolar import robust_essential, weighted_eight_point
from kornia_lift.geometry.frames import patch_score, softargmax
from kornia_lift.matching import match_descriptors
from kornia_lift.matching.putative import putative_matches
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.networks.layers import exact_conv2d
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.polar_orientation import PolarOrientation
from tests.helpers.pictures import texture
from tests.helpers.training import matched_pair

pytestmark = pytest.mark.gpu


def patches(size: int, channels: int = 1) -> Tensor:
    return texture(size, size, 24).view(24 // channels, channels, size, size)


def tilde() -> TILDEResponse:
    network = TILDEResponse(2, 2, 1, 11, rank=0, gain=1.0)
    nn.init.normal_(network.weight, std=0.01)
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "response": (LIFTResponse, lambda: texture(70, 90, 2)),
    "TILDE": (tilde, lambda: texture(70, 90, 2)),
    "descriptor": (LIFTDescriptor, lambda: patches(64)),
    "compact descriptor": (lambda: CompactDescriptor("lift-plus"), lambda: patches(32, 3)),
    "LF-Net descriptor": (LFNetDescriptor, lambda: patches(32)),
    "localization": (lambda: KeypointLocalization("lift-plus"), lambda: patches(32)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_networks_agree_with_the_cpu(name: str, dtype: torch.dtype, cuda: torch.device) -> None:
    make, draw = NETWORKS[name]
    network, x = make().double().eval(), draw().double()
    with torch.no_grad(), fast_paths(False):
        expected = network(x)
        found = network.to(cuda, dtype)(x.to(cuda, dtype))
    assert found.device.type == cuda.type and found.dtype == dtype
    # float32 includes TensorFloat-32, which cuDNN uses unless it is switched off
    limit = {torch.float64: 1e-9, torch.float32: 5e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}[dtype]
    assert (found.double().cpu() - expected).abs().max() < limit * expected.abs().max()


@pytest.mark.parametrize("make", [LIFTOrientation, lambda: PolarOrientation("lift-plus")])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 0.05), (torch.float16, 0.3)])
def test_angles_agree_with_the_cpu(
    make: Callable[[], nn.Module], dtype: torch.dtype, limit: float, cuda: torch.device
) -> None:
    network = make().eval()
    x = patches(int(network.patch_size))  # type: ignore[call-overload]
    with torch.no_grad(), fast_paths(False):
        expected = network(x)
        found = network.to(cuda, dtype)(x.to(cuda, dtype)).float().cpu()
    error = torch.remainder(found - expected + torch.pi, 2 * torch.pi) - torch.pi
    assert error.abs().median() < limit / 10
    # two directions may be nearly as likely as each other
    assert (error.abs() < limit).float().mean() > 0.9


def test_scores_keep_the_digits_of_float32(cuda: torch.device) -> None:
    x, weight = texture(60, 80), torch.randn(16, 1, 25, 25)
    expected = torch.nn.functional.conv2d(x.double(), weight.double())
    found = exact_conv2d(x.to(cuda), weight.to(cuda)).double().cpu()
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    response, image = LIFTResponse().eval(), texture(120, 160)
    with torch.no_grad():
        expected = response.double().valid(image.double())
        response.float()
        error = (response.to(cuda).valid(image.to(cuda)).double().cpu() - expected).abs()
        assert error.max() < response.rounding_error(image.to(cuda)).cpu().max()


def test_gradients_reach_input_and_weights(cuda: torch.device) -> None:
    for name, (make, draw) in NETWORKS.items():
        network, x = make().to(cuda).train(), draw().to(cuda).requires_grad_()
        network(x).square().sum().backward()
        assert x.grad is not None and x.grad.isfinite().all(), name
        for parameter in network.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_maps_of_lfnet(cuda: torch.device) -> None:
    detector, image = LFNetDetector(20).double().eval(), texture(80, 90, 2).double()
    with torch.no_grad():
        for expected, found in zip(detector.dense(image), detector.to(cuda).dense(image.to(cuda)), strict=True):
            torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=1e-6)


def test_correspondence_network_and_essential_matrix(cuda: torch.device) -> None:
    pair = matched_pair(0, 200, 0.3)
    network = CorrespondenceNet(pretrained=True).eval()
    side = pair.side[None] if network.side else None
    with torch.no_grad():
        expected = network(pair.matches[None], side=side)
        found = network.to(cuda)(pair.matches[None].to(cuda), side=None if side is None else side.to(cuda))
    assert ((found.logits.cpu() > 0) == (expected.logits > 0)).float().mean() > 0.97
    weights = (pair.side[:, 1] > 0).float()
    for estimate in (
        lambda m, w: weighted_eight_point(m[None], w[None]).essential[0],
        robust_essential,
    ):
        matrices = [estimate(pair.matches.to(device), weights.to(device)).cpu() for device in (cuda, "cpu")]
        assert (matrices[0] * matrices[1]).sum().abs() > 1 - 1e-6
    network.train()
    scored = network(pair.matches[None].to(cuda), side=None if side is None else side.to(cuda))
    (scored.logits.square().sum() + scored.essential.square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_matching_of_descriptors(cuda: torch.device) -> None:
    first, second = (torch.nn.functional.normalize(torch.rand(n, 32), dim=1) for n in (60, 70))
    for ratio in (0.97, 1.0):
        expected, _ = match_descriptors(first, second, ratio)
        found, confidence = match_descriptors(first.to(cuda), second.to(cuda), ratio)
        assert {tuple(p) for p in found} == {tuple(p) for p in expected} and len(confidence) == len(found)
    found_pairs = putative_matches(first.to(cuda), second.to(cuda))
    assert torch.equal(found_pairs.pairs.cpu(), putative_matches(first, second).pairs)


def test_soft_maxima_of_training_patches(cuda: torch.device) -> None:
    score = torch.randn(3, 1, 24, 24)
    for function in (softargmax, patch_score):
        torch.testing.assert_close(function(score.to(cuda)).cpu(), function(score), atol=1e-5, rtol=1e-5)
