"""What exact changes of an image do to the best keypoints, on a real image and a random texture: the promised floors.

The figures for all changes, images and models are in benchmarks/results/trust/invariance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("skimage")

from benchmarks.invariance import CHANGES, images, measure, unchanged
from kornia_lift import LIFTFeature

#: Least share that returns, largest medians: pixels, factor of the size, degrees, distance of descriptors.
FLOORS = {
    "translated by (16, 16) px": (0.8, 0.3, 1.02, 2.0, 0.06),
    "rotated by 90°": (0.85, 0.4, 1.03, 4.0, 0.1),
    "mirrored": (0.85, 0.4, 1.02, None, None),
    "enlarged by 2": (0.75, 0.3, 1.05, 2.0, 0.12),
    "brighter by 0.1": (0.98, 0.05, 1.01, 0.5, 0.01),
    "contrast halved": (0.9, 0.1, 1.01, 1.0, 0.08),
}
Cached = Callable[[str], tuple[Tensor, Any]]


@pytest.fixture(scope="module")
def feature() -> LIFTFeature:
    return LIFTFeature(400)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Tensor]:
    return images()


@pytest.fixture(scope="module")
def found(feature: LIFTFeature, pictures: dict[str, Tensor]) -> Cached:
    kept: dict[str, Any] = {}

    def of(name: str) -> tuple[Tensor, Any]:
        if name not in kept:
            kept[name] = unchanged(feature, pictures[name])
        return pictures[name], kept[name]

    return of


@pytest.mark.parametrize("picture", ["astronaut", "texture"])
@pytest.mark.parametrize("change", FLOORS)
def test_the_best_keypoints_return(change: str, picture: str, feature: LIFTFeature, found: Cached) -> None:
    image, before = found(picture)
    moved = measure(feature, image, CHANGES[change], before)
    share, position, size, angle, descriptor = FLOORS[change]
    assert moved.keypoints >= 50
    assert moved.returned >= share, moved
    assert moved.position <= position and moved.size <= size, moved
    if angle is not None and descriptor is not None:
        assert moved.angle <= angle and moved.descriptor <= descriptor, moved


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_a_batch_is_its_images(model: str, pictures: dict[str, Tensor]) -> None:
    feature = LIFTFeature(200, pretrained=model, precision="float32")
    batch = torch.cat([pictures[name][..., :120, :140] for name in ("astronaut", "texture")])
    with torch.inference_mode():
        together, single = feature(batch), [feature(image[None]) for image in batch]
    for k, one in enumerate(single):
        for mine, other in zip(together, one, strict=True):
            torch.testing.assert_close(mine[k], other[0], rtol=2e-3, atol=2e-3)


def test_the_plain_path_finds_the_same(feature: LIFTFeature, pictures: dict[str, Tensor]) -> None:
    """While gradients are recorded the networks run as they are defined, not by their inference paths."""
    image = pictures["astronaut"][..., :120, :140]
    with torch.inference_mode():
        fast = feature(image)
    plain = [t.detach() for t in feature(image.clone().requires_grad_())]
    for mine, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-3)
