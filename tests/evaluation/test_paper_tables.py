"""The rows of Tables 2 and 3, and of the table of exchanged parts."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTFeature, LIFTResponse
from kornia_lift.evaluation import paper_tables
from kornia_lift.evaluation.candidates import Candidate
from kornia_lift.evaluation.paper_tables import OpenCVSIFTDetector, parts, table2, table3
from kornia_lift.features import Features
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.weights import load_tensors, save_model
from tests.helpers.cli import astronaut

COUNT = 30


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.from_numpy(astronaut(200)).permute(2, 0, 1)[None].float().mean(1, keepdim=True) / 255


def features(entry: Candidate, image: Tensor) -> Features:
    assert entry.build is not None
    return entry.build(COUNT)(image)


def same(first: Features, second: Features) -> bool:
    return first.keypoints.shape == second.keypoints.shape and bool(
        np.allclose(first.keypoints, second.keypoints) and np.allclose(first.descriptors, second.descriptors)
    )


def test_table_2_changes_the_detector_only(image: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    early = tmp_path / "early.safetensors"
    save_model(early, {"response": LIFTResponse(False)})
    assert all(name.startswith("response.") for name in load_tensors(early)[0])
    pretrained, final = table2("lift", str(early))
    assert (pretrained.name, final.name) == ("detector pre-trained", "detector fully trained")
    assert pretrained.identity != final.identity
    lafs = LIFTFeature(COUNT, pretrained="lift")(image)[0]
    assert np.allclose(features(final, image).keypoints, lafs[0, :, :, 2].detach().numpy(), atol=1e-4)
    assert not same(features(pretrained, image), features(final, image))


def test_table_3_has_every_mixture(image: Tensor) -> None:
    rows = {entry.name: entry for entry in table3("lift")}
    assert set(rows) == {" + ".join(names) for names in itertools.product(("sift", "lift"), repeat=3)}
    assert len({str(entry.identity) for entry in rows.values()}) == len(rows)
    found = {name: features(entry, image) for name, entry in rows.items()}
    sift = np.array(
        sorted({k.pt for k in cv2.SIFT_create().detect((image[0, 0].numpy() * 255).round().astype(np.uint8), None)})
    )
    for name, f in found.items():
        detector, orientation, descriptor = name.split(" + ")
        assert len(f) == COUNT and f.descriptors.shape == (COUNT, 128)
        near = np.abs(f.keypoints[:, None] - sift[None]).max(2).min(1) < 1e-3
        assert near.all() == (detector == "sift")
        other = found[f"{detector} + {orientation} + {'lift' if descriptor == 'sift' else 'sift'}"]
        assert np.allclose(f.keypoints, other.keypoints) and not np.allclose(f.descriptors, other.descriptors)
        other = found[f"{detector} + {'lift' if orientation == 'sift' else 'sift'} + {descriptor}"]
        assert np.allclose(f.keypoints, other.keypoints) and not np.allclose(f.angles, other.angles)


def test_each_part_is_exchanged_alone(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ("lift", "lift", "lift")
    assert paper_tables.PARTS[0] == whole
    downloaded = {"keynet", "orinet"}
    offline = tuple(names for names in paper_tables.PARTS if not downloaded & set(names))
    monkeypatch.setattr(paper_tables, "PARTS", offline)
    rows = {entry.name: entry for entry in parts("lift")}
    assert list(rows) == [" + ".join(names) for names in offline]
    found = {name: features(entry, image) for name, entry in rows.items()}
    assert not any(same(a, b) for a, b in itertools.combinations(found.values(), 2))


class TestOpenCVSIFTDetector:
    def test_keypoints_are_those_of_opencv_once(self, image: Tensor) -> None:
        lafs, responses = OpenCVSIFTDetector(COUNT)(image)
        assert lafs.shape == (1, COUNT, 2, 3) and responses.shape == (1, COUNT)
        assert (responses.diff() <= 0).all()
        frames = torch.cat([lafs[0, :, :, 2], lafs[0, :, 0, :1]], 1)
        assert len(frames.unique(dim=0)) == COUNT
        best = max(
            cv2.SIFT_create().detect((image[0, 0].numpy() * 255).round().astype(np.uint8), None),
            key=lambda k: k.response,
        )
        assert frames[0].tolist() == pytest.approx([*best.pt, LAF_SCALE_PER_SIGMA * best.size / 2], rel=1e-4)

    def test_slots_without_a_keypoint_are_empty(self) -> None:
        lafs, responses = OpenCVSIFTDetector(5)(torch.full((1, 1, 64, 64), 0.5))
        assert not lafs.any() and not responses.any()

    def test_a_mask_is_refused(self, image: Tensor) -> None:
        with pytest.raises(ValueError, match="no mask"):
            OpenCVSIFTDetector(5)(image, image)
