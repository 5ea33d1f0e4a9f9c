"""The response that sees its surroundings at several resolutions."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from kornia.feature import ScaleSpaceDetector
from kornia.geometry import ScalePyramid
from torch import Tensor, nn

from kornia_lift._kornia import ShapeError
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.dense_response import DenseResponse
from tests.helpers.pictures import texture


def trained(seed: int = 0) -> DenseResponse:
    """A network with weights and statistics of its own, in eval mode."""
    torch.manual_seed(seed)
    network = DenseResponse()
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.3)
        for _ in range(10):
            network(torch.rand(4, 1, 48, 48))
    return network.eval()


@torch.no_grad()
def test_autocast_does_not_round_the_scores() -> None:
    network, image = trained(), texture(48, 60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(image)
    torch.testing.assert_close(found, network(image), atol=1e-4, rtol=1e-4)
    assert network.to("meta")(image.to("meta")).shape == image.shape  # a device without autocast


@torch.no_grad()
def test_no_image_has_no_scores() -> None:
    assert trained()(torch.rand(0, 1, 20, 30)).shape == (0, 1, 20, 30)


@torch.no_grad()
def test_kornias_scale_space_scores_blurred_levels() -> None:
    network, image = trained(), texture(80, 90)
    scores = network(image.repeat(2, 1, 1, 1), torch.tensor([1.0, 1.6]))
    assert scores.shape == (2, 1, 80, 90) and scores.isfinite().all()
    assert not torch.allclose(scores[0], scores[1], atol=1e-2)
    detector = ScaleSpaceDetector(
        40, resp_module=network, scale_pyr_module=ScalePyramid(3, 1.6, 32), mr_size=2 * LAF_SCALE_PER_SIGMA
    )
    lafs, _ = detector(image)
    assert lafs.shape == (1, 40, 2, 3) and lafs.isfinite().all()


@pytest.mark.parametrize("size", [(32, 40), (33, 41), (5, 7), (1, 1), (26, 300)])
@torch.no_grad()
def test_every_pixel_of_images_of_any_size_has_a_score(size: tuple[int, int]) -> None:
    scores = trained()(torch.rand(2, 1, *size))
    assert scores.shape == (2, 1, *size) and scores.isfinite().all()


@torch.no_grad()
def test_images_of_a_batch_do_not_change_each_other() -> None:
    network, images = trained(), torch.cat([texture(60, 80, seed=1), texture(60, 80, seed=2) * 0.3])
    torch.testing.assert_close(network(images)[1:], network(images[1:]), atol=1e-4, rtol=1e-4)


def test_counts_its_weights_and_products() -> None:
    network, counted = DenseResponse().eval(), 0

    def count(layer: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, nn.Conv2d)
        counted += out[0].numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad(), fast_paths(False):
        network(torch.rand(1, 1, 64, 64))
    assert sum(weight.numel() for weight in network.parameters()) == 272_380
    assert counted == 7500 * 64 * 64


@torch.no_grad()
def test_folded_normalisations_give_the_same_scores() -> None:
    network, image = trained(), texture(70, 91)
    with fast_paths(False):
        expected = network(image)
    found = network(image)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    network.head.bias += 1.0  # the folded weights follow
    torch.testing.assert_close(network(image), expected + 1, atol=1e-4, rtol=1e-4)


def test_copies_and_pickles_score_alike() -> None:
    network, image = trained(), texture(40, 50)
    with torch.no_grad():
        expected = network(image)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(image), expected)


@torch.no_grad()
def test_folding_draws_no_random_numbers() -> None:
    network, image = trained(), texture(40, 50)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    network(image)
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_scores_shift_with_the_image() -> None:
    """By multiples of 16, exactly away from the border; the pixels of a block of 2x2 have no scores of their own."""
    network, whole = trained(), texture(420, 420, seed=4)
    here, there = network(whole[..., :400, :400]), network(whole[..., 16:416, 16:416])
    moved, expected = there[..., 200:220, 200:220], here[..., 216:236, 216:236]  # what these see lies in both
    assert (moved - expected).std() < 0.05 * expected.std()
    flat = network(torch.full((1, 1, 400, 400), 0.4))[..., 190:210, 190:210]
    assert flat.std() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_is_scored_in_float32(dtype: torch.dtype) -> None:
    network, image = trained(), texture(48, 60).to(dtype)
    expected = network(image.float())
    found = copy.deepcopy(network).to(dtype)(image)
    assert network(image).dtype == found.dtype == torch.float32
    assert torch.equal(network(image), expected)
    assert (found - expected).std() < 0.1 * expected.std()  # the weights are rounded, the products are not


def test_gradients_are_those_of_the_scores() -> None:
    network = trained().double()
    image = texture(18, 21).double().requires_grad_()
    with fast_paths(False):
        assert torch.autograd.gradcheck(lambda x: network(x)[..., 6:9, 7:10], (image,), eps=1e-6, atol=1e-4)
    network(image).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@torch.no_grad()
def test_contrast_and_brightness_hardly_change_the_scores() -> None:
    network, image = trained(), texture(90, 110)
    expected = network(image)
    dimmed = network(image * 0.4 + 0.3)
    assert F.cosine_similarity((dimmed - dimmed.mean()).flatten(), (expected - expected.mean()).flatten(), 0) > 0.99


@torch.no_grad()
def test_what_lies_outside_of_the_content_has_no_influence() -> None:
    network, image = trained(), texture(80, 200)
    content = torch.ones_like(image, dtype=torch.bool)
    content[..., :60] = False
    found = [network(torch.where(content, image, value), content=content) for value in (0.0, 0.7)]
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(torch.where(content, image, 0.7)), found[0], atol=1e-2)


@torch.no_grad()
def test_windows_that_show_nothing_have_no_score() -> None:
    network, image = trained(), texture(80, 120)
    image[..., :50] = 0.25
    scores = network.valid(image)
    assert scores.shape == (1, 1, 56, 96)
    assert scores[..., :25].isneginf().all() and scores[..., 40:].isfinite().all()
    torch.testing.assert_close(scores[..., 40:], network(image)[..., 12:-12, 52:-12])


@pytest.mark.parametrize("slope", [3e-4, 1e-3, 3e-3])
@pytest.mark.parametrize("rounded", [False, True])
@torch.no_grad()
def test_ramps_show_nothing(slope: float, rounded: bool) -> None:
    y, x = torch.meshgrid(torch.arange(100.0), torch.arange(120.0), indexing="ij")
    for image in (slope * x, slope * (x + y) / 2):
        image = (image + 0.2)[None, None]
        image = (image * 255).round() / 255 if rounded else image
        assert trained().valid(image).isneginf().all()


def test_other_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"content as booleans of the size of the images \(1, 1, 9, 9\), got"):
        DenseResponse()(torch.rand(1, 1, 9, 9), content=torch.ones(1, 1, 9, 8, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"DenseResponse expects grayscale images \(B, 1, H, W\), got \(1, 3, 9, 9\)"):
        DenseResponse()(torch.rand(1, 3, 9, 9))
    with pytest.raises(TypeError, match="DenseResponse expects a floating-point tensor"):
        DenseResponse()(torch.zeros(1, 1, 9, 9, dtype=torch.uint8))
