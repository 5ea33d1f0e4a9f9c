"""The inference paths are faster than the plain networks, measured side by side; imports are quick.

    pytest benchmarks/timing/test_inference_paths.py

Speed limits depend on the machine, so they are not part of the package's tests.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from kornia.feature import extract_patches_from_pyramid
from torch import Tensor
from torch.nn import functional as F

from kornia_lift import LIFTDescriptor, LIFTOrientation, LIFTResponse
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks.layers import normalize_patches
from tests.helpers.pictures import texture

# processor time of one thread, both alternately, the best of each: other programs hardly matter. Where these were
# written the inference paths take 0.2 to 0.5 of the time
ROUNDS = 5
LIMIT = 0.9


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def ratio(ours: Callable[[], Tensor], reference: Callable[[], Tensor]) -> float:
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for k, call in enumerate((ours, reference)):
            start = time.process_time()
            call()
            best[k] = min(best[k], time.process_time() - start)
    return best[0] / best[1]


def test_descriptor() -> None:
    network, x = LIFTDescriptor(False).eval(), torch.rand(128, 1, 64, 64)
    z = normalize_patches(x, network.mean, network.std).contiguous(memory_format=torch.channels_last)
    assert ratio(lambda: network(x), lambda: network.features(z)) < LIMIT


def test_orientation() -> None:
    network, x = LIFTOrientation(False).eval(), torch.rand(128, 1, 64, 64)
    z = normalize_patches(x, network.mean, network.std).contiguous(memory_format=torch.channels_last)

    def plain() -> Tensor:
        maps = F.relu(F.max_pool2d(network.conv1(z), 2))
        maps = F.relu(network.conv3(F.relu(F.max_pool2d(network.conv2(maps), 2))))
        return network.fc1(F.max_pool2d(maps, 2).flatten(1))  # without the rest of the head

    assert ratio(lambda: network(x), plain) < LIMIT


def test_response() -> None:
    network, x = LIFTResponse(False).eval(), torch.rand(1, 1, 500, 600)
    assert ratio(lambda: network.valid(x), lambda: network.valid(x, direct=True)) < LIMIT


def test_patches() -> None:
    image = texture(600, 800)
    lafs = lafs_from_lift(torch.rand(1, 200, 2) * 600, 2 + 6 * torch.rand(1, 200))
    ours, kornias = (lambda: PatchPyramid(image).cut(lafs, 64)), (lambda: extract_patches_from_pyramid(image, lafs, 64))
    assert ratio(ours, kornias) < LIMIT


def test_import_adds_little_to_kornia() -> None:
    """At most 150 ms on top of `import kornia.feature`; the best of several runs, since machines are busy."""
    code = (
        "import kornia.feature, time; start = time.process_time(); from kornia_lift import LIFTFeature; "
        "print(time.process_time() - start)"
    )
    done = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5))
    assert min(float(each.stdout) for each in done) < 0.15
