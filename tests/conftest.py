"""Fixtures that every test may use: the shared data, the device and dtype under test, a seed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Where another program runs beside the tests, OpenMP's waiting threads, which spin, keep the core from the thread that
# they wait for. A thousandth of the usual spinning costs nothing alone, and two runs of the network tests at once take
# 97 s, 41 s alone. The variable is read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "300")

import pytest
import torch

from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from kornia_lift.scenes.homographies import HomographySequence
    from kornia_lift.scenes.posed import PosedScene

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or os.environ.get("KORNIA_LIFT_GPU_TESTS_ON"):
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``../shared`` with oracles and images, which is not part of the repository.

    Skips where it is absent; fails instead when KORNIA_LIFT_REQUIRE_SHARED=1, so that CI cannot lose these tests.
    """
    path = ROOT.parent / "shared"
    if path.is_dir():
        return path
    if os.environ.get("KORNIA_LIFT_REQUIRE_SHARED") == "1":
        pytest.fail(f"KORNIA_LIFT_REQUIRE_SHARED=1, but {path} is missing")
    pytest.skip(f"needs the folder {path} (oracles and images), which is not part of the repository")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test: KORNIA_LIFT_TEST_DEVICE, by default cpu."""
    return torch.device(os.environ.get("KORNIA_LIFT_TEST_DEVICE", "cpu"))


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """A GPU; KORNIA_LIFT_GPU_TESTS_ON=cpu plays the CUDA tests through where there is none."""
    return torch.device(os.environ.get("KORNIA_LIFT_GPU_TESTS_ON", "cuda"))


@pytest.fixture(scope="session")
def dtype() -> torch.dtype:
    """The floating-point type under test: KORNIA_LIFT_TEST_DTYPE, by default float32."""
    name = os.environ.get("KORNIA_LIFT_TEST_DTYPE", "float32")
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise pytest.UsageError(f"KORNIA_LIFT_TEST_DTYPE must name a torch dtype such as float64, got {name!r}")
    return found


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def plane(tmp_path: Path) -> PosedScene:
    """Two cameras before one plane, with exact depth."""
    from kornia_lift.scenes.posed import PosedScene
    from tests.helpers.small_scenes import write_plane_scene

    return PosedScene.load(write_plane_scene(tmp_path / "plane"))


@pytest.fixture
def sequence(tmp_path: Path) -> HomographySequence:
    """The same two views of the plane, related by their homography."""
    from kornia_lift.scenes.homographies import HomographySequence
    from tests.helpers.small_scenes import plane_homography, write_sequence

    return HomographySequence.load(write_sequence(tmp_path / "seq", {2: plane_homography()}))
