"""The examples of the documentation run and do what their text says."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.repository import ROOT, load_script

EXAMPLES = ROOT / "docs" / "examples"


def load(name: str) -> ModuleType:
    pytest.importorskip("skimage")
    return load_script(f"docs/examples/{name}.py")


def test_registration_by_descriptors_approaches_the_true_motion() -> None:
    losses, errors = load("register_images").register(False, steps=8, keypoints=6)
    assert errors[0] > 25
    assert errors[-1] < 0.8 * errors[0]
    assert losses[-1] < losses[0]


def test_the_notebook_runs() -> None:
    """Offline, on the images of scikit-image, and its last cell shows what its text says."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("skimage")
    pytest.importorskip("cv2")
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    namespace: dict[str, Any] = {}
    keypoints = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"], "scripts/run_notebook.py stores the output that a reader sees without running it"
            assert "error" not in {output["output_type"] for output in cell["outputs"]}
            # fewer keypoints than a reader gets, which take most of the time
            source = "".join(cell["source"])
            keypoints += source.count("LIFTFeature(2000,")
            exec(source.replace("LIFTFeature(2000,", "LIFTFeature(700,"), namespace)
    assert keypoints == 2
    pyplot.close("all")
    assert namespace["match"].verified.sum() > 100
    assert namespace["inliers"]["lift"] > 5 * namespace["inliers"]["lift-upright"]


@pytest.mark.slow
def test_registration_with_shipped_weights_reaches_a_pixel() -> None:
    _, errors = load("register_images").register(True, steps=80, keypoints=30)
    assert errors[-1] < 1
