"""pytest-benchmark over stages and sizes; the default test run does not collect it.

pytest benchmarks/timing/test_stages.py --benchmark-columns=min,median,rounds --benchmark-group-by=group
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.timing.cases import picture
from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTFeature, LIFTOrientation
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.geometry.pyramid import PatchPyramid

SIZES = ((640, 480), (1600, 1200))
PATCHES = (1, 16, 250, 1000)

pytest.importorskip("pytest_benchmark")


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def image(size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(picture(*size)).float()[None, None] / 255


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.benchmark(group="detector", min_rounds=3)
def test_detector(benchmark: Any, size: tuple[int, int]) -> None:
    lafs, _ = benchmark(LIFTDetector(1000).eval(), image(size))
    assert lafs.shape == (1, 1000, 2, 3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.benchmark(group="pyramid and 1000 patches", min_rounds=3)
def test_patches(benchmark: Any, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(1, 1000, 2, generator=generator) * torch.tensor(size)
    lafs = lafs_from_lift(centres, 2.4 + 6 * torch.rand(1, 1000, generator=generator))
    x = image(size)
    assert benchmark(lambda: PatchPyramid(x).cut(lafs, 64)).shape == (1, 1000, 1, 64, 64)


@pytest.mark.parametrize("count", PATCHES)
@pytest.mark.benchmark(group="orientation", min_rounds=3)
def test_orientation(benchmark: Any, count: int) -> None:
    assert benchmark(LIFTOrientation().eval(), torch.rand(count, 1, 64, 64)).shape == (count,)


@pytest.mark.parametrize("count", PATCHES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.benchmark(group="descriptor", min_rounds=3)
def test_descriptor(benchmark: Any, count: int, precision: Any) -> None:
    network = LIFTDescriptor(precision=precision).eval()
    assert benchmark(network, torch.rand(count, 1, 64, 64)).shape == (count, 128)


@pytest.mark.parametrize("count", [250, 1000])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.benchmark(group="feature", min_rounds=3)
def test_feature(benchmark: Any, size: tuple[int, int], count: int) -> None:
    _, _, descriptors = benchmark(LIFTFeature(count).eval(), image(size))
    assert descriptors.shape == (1, count, 128)
