"""A graph has no shapes that depend on values: what it computes is what the detector finds otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from kornia_lift import LIFTDetector, LIFTFeature, ScaleSpaceConfig
from kornia_lift.detector import selection
from kornia_lift.detector.padding import cover_max
from kornia_lift.detector.suppression import suppress, suppress_all
from tests.helpers.pictures import texture

T = TypeVar("T")


@pytest.fixture
def as_graph(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], T]], T]:
    """Run what a graph would hold, operation by operation, without the minute that it takes to build one."""

    def run(function: Callable[[], T]) -> T:
        with monkeypatch.context() as context:
            context.setattr(torch.compiler, "is_compiling", lambda: True)
            return function()

    return run


def images() -> Tensor:
    """An image, a padded one, and one without texture."""
    padded = torch.zeros(1, 1, 130, 150)
    padded[..., 5:120, 10:140] = texture(115, 130, seed=1) * 0.8 + 0.1
    return torch.cat([texture(130, 150), padded, torch.full((1, 1, 130, 150), 0.5)])


CONFIGS = {
    "default": ScaleSpaceConfig(),
    "LIFT's": ScaleSpaceConfig(max_sigma=4.0, levels_per_octave=5, nms_radius=3, scale_nms=2, edge_threshold=10),
    "released": ScaleSpaceConfig.lift(),
    "border": ScaleSpaceConfig(border=17.0, suppression_sigma=0.0, suppression_pixels=4.0),
    "pixels": ScaleSpaceConfig(subpixel=False),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("masked", [False, True])
def test_a_graph_finds_the_same_keypoints(name: str, masked: bool, as_graph: Callable[..., tuple[Tensor, ...]]) -> None:
    detector, img = LIFTDetector(60, CONFIGS[name]), images()
    if name == "released":  # it keeps maxima that rounding errors make in an image without texture
        img = img[:2]
    mask = torch.ones(1, 1, *img.shape[-2:])
    mask[..., :60, :60], mask[..., 90:] = 0, 0.5
    given = (img, mask) if masked else (img,)
    with torch.inference_mode():
        lafs, responses = detector(*given)
        found = as_graph(lambda: detector(*given))
    assert (responses[0] != 0).sum() > 3
    torch.testing.assert_close(found[1], responses, atol=2e-4, rtol=1e-4)
    # two whose responses are equal up to rounding may exchange ranks
    apart = torch.cdist(found[0].flatten(2).double(), lafs.flatten(2).double())
    assert max(apart.amin(1).max(), apart.amin(2).max()) < 0.02


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_a_graph_describes_the_same(model: str, as_graph: Callable[..., tuple[Tensor, ...]]) -> None:
    feature = LIFTFeature(20, pretrained=model, precision="float32")
    with torch.inference_mode():
        expected, found = feature(images()), as_graph(lambda: feature(images()))
    torch.testing.assert_close(found[0], expected[0], atol=0.05, rtol=1e-2)
    assert torch.cosine_similarity(found[2], expected[2], dim=-1)[0].min() > 0.999
    assert found[2][2].eq(0).all()


def test_gradients_of_a_graph_are_the_same(as_graph: Callable[..., Tensor]) -> None:
    detector = LIFTDetector(40).double()

    def gradient() -> Tensor:
        img = images()[..., :96, :110].double().requires_grad_()  # small: in float64 it takes long
        lafs, responses = detector(img)
        (lafs.sum() + responses.sum()).backward()
        assert img.grad is not None
        return img.grad

    expected = gradient()
    assert expected[0].abs().max() > 0
    assert expected.isfinite().all()
    torch.testing.assert_close(as_graph(gradient), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(("most", "rounds"), [(3, 2), (40, 2), (150, 1)])
@pytest.mark.parametrize("gradient", [False, True])
def test_the_strongest_maxima_are_enough_or_all_are_used(
    most: int, rounds: int, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, img = LIFTDetector(30), images().requires_grad_(gradient)

    def found() -> list[Tensor]:
        lafs, responses = detector(img)
        if not gradient:
            return [lafs, responses]
        return [lafs, responses, *torch.autograd.grad(lafs.sum() + responses.sum(), img)]

    expected = found()
    used: list[int] = []
    best = selection.AnyNumber.best

    def counted(self: selection.AnyNumber, found: selection.Candidates, *rest: Any) -> tuple[Tensor, Tensor]:
        used.append(len(found.image))
        return best(self, found, *rest)

    monkeypatch.setattr(selection.AnyNumber, "best", counted)
    monkeypatch.setattr(selection, "_candidates_for", lambda count: most)
    for one, other in zip(found(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.detach().abs().max()))
    assert used[0] <= 3 * most
    assert len(used) == rounds and used == sorted(used)  # of few, fewer than 30 survive


def test_fewer_candidates_than_slots(as_graph: Callable[..., tuple[Tensor, ...]]) -> None:
    detector = LIFTDetector(500, pretrained=False).eval()
    for size in ((48, 48), (20, 20)):  # the second has no level
        img = texture(*size)
        lafs, responses = as_graph(lambda img=img: detector(img))
        expected = detector(img)
        assert lafs.shape == (1, 500, 2, 3)
        torch.testing.assert_close(responses, expected[1], atol=1e-4, rtol=1e-4)


def test_all_pairs_suppress_as_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(2, 300, 2, generator=generator) * 60
    radius = torch.rand(2, 300, generator=generator) * 6
    valid = torch.rand(2, 300, generator=generator) > 0.2
    score = torch.arange(300, 0, -1.0).expand(2, -1)
    found = suppress_all(xy, radius, valid)
    image, index = valid.nonzero(as_tuple=True)
    kept = suppress(image, xy[image, index], score[image, index], radius[image, index])
    expected = torch.zeros_like(valid)
    expected[image[kept], index[kept]] = True
    assert torch.equal(found, expected)
    assert 50 < found.sum() < valid.sum()


@pytest.mark.parametrize("sizes", [((7, 9), (3, 4)), ((100, 57), (79, 45)), ((20, 30), (25, 31)), ((64, 64), (2, 1))])
def test_cover_max_is_torchs_adaptive_pooling(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    x = torch.rand(2, *sizes[0])
    assert torch.equal(cover_max(x, sizes[1]), nn.functional.adaptive_max_pool2d(x, sizes[1]))
