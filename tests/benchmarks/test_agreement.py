"""Keypoints of two extractions are paired, and what differs between the pairs is written down."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("skimage")

from benchmarks.parts import agreement


def features(seed: int = 0) -> list[np.ndarray]:
    """Frames on a grid, so that each keypoint has one partner; decreasing responses; unit vectors."""
    random = np.random.default_rng(seed)
    lafs = np.zeros((12, 2, 3), np.float32)
    lafs[:, :, 2] = [[x, y] for x in (10, 20, 30) for y in (10, 20, 30, 40)]
    lafs[:, 0, 0] = lafs[:, 1, 1] = 6
    descriptors = random.normal(size=(12, 128)).astype(np.float32)
    return [lafs, np.linspace(2, 1, 12, dtype=np.float32), descriptors / np.linalg.norm(descriptors, axis=1)[:, None]]


def test_what_differs_is_found() -> None:
    first, second = features(), features()
    assert agreement.compare(first, second)["paired"] == 12
    order = np.arange(12)
    order[[3, 4]] = 4, 3
    second = [each[order] for each in second]
    second[0][0, 0, 2] += 0.02
    second[0][5, :, 2] += 3  # another keypoint
    second[1][1] += 0.125
    second[2][2, 0] += 0.25
    found = agreement.compare(first, second)
    assert (found["keypoints"], found["paired"], found["in another order"]) == ([12, 12], 11, 2)
    assert found["centres, px"]["largest"] == pytest.approx(0.02, abs=1e-4)
    assert found["centres, px"]["share within 0.01"] == pytest.approx(10 / 11)
    assert found["responses"]["largest"] == pytest.approx(0.125)
    assert found["descriptors"]["largest distance"] == pytest.approx(0.25, abs=1e-6)


def test_another_environment(tmp_path: Path) -> None:
    """This one again: everything agrees."""
    out = tmp_path / "a.json"
    assert agreement.main(["--with", sys.executable, "--out", str(out)], exports=(), keypoints=20, size=(160, 120)) == 0
    content = json.loads(out.read_text())
    found = content["another environment"]
    assert found["versions"][0] == found["versions"][1] and set(found["versions"][0]) == {"python", "torch", "kornia"}
    assert len(found["models"]) == len(agreement.MODELS)
    for row in found["models"]:
        assert row["paired"] == row["keypoints"][0] > 5 and row["descriptors"]["largest distance"] == 0
    assert sys.executable not in out.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter and of onnx
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_exported_graph(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    exports = (agreement.Export("lift", 110, 130, 20),)
    assert agreement.main(["--out", str(tmp_path / "a.json")], exports) == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())["onnx"]
    assert row["nodes"] > 1000 and row["paired"] == row["keypoints"][0] > 5 and row["centres, px"]["largest"] < 0.05
