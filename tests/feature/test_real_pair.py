"""The shipped weights on real images with measured geometry, beside OpenCV's SIFT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import DescriptorMatcher
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift import LIFTFeature
from kornia_lift._kornia import laf_is_filled
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import VISIBLE

cv2 = pytest.importorskip("cv2")

COUNT, TOLERANCE = 1000, 3.0


def right_mutual_matches(
    scene: PosedScene, i: int, j: int, first: tuple[NDArray, NDArray], second: tuple[NDArray, NDArray]
) -> tuple[int, float]:
    """Number of mutual nearest neighbours within 3 px of the truth, and their share of those the depth map knows."""
    descriptors = [torch.from_numpy(np.asarray(d, dtype=np.float32)) for _, d in (first, second)]
    _, index = DescriptorMatcher("mnn")(*descriptors)
    truth = scene.transfer(i, j, first[0][index[:, 0]])
    known = truth.status == VISIBLE
    error = np.linalg.norm(truth.points - second[0][index[:, 1]], axis=1)[known]
    return int((error < TOLERANCE).sum()), float((error < TOLERANCE).mean())


def sift(image: Tensor) -> tuple[NDArray, NDArray]:
    gray = (image.mean(1)[0] * 255).round().byte().numpy()
    keypoints, descriptors = cv2.SIFT_create(nfeatures=COUNT).detectAndCompute(gray, None)
    return np.array([k.pt for k in keypoints], dtype=np.float64), descriptors


def lift(feature: LIFTFeature, image: Tensor) -> tuple[NDArray, NDArray]:
    with torch.inference_mode():
        lafs, _, descriptors = feature(image)
    filled = laf_is_filled(lafs)[0]
    return lafs[0, filled, :, 2].double().numpy(), descriptors[0, filled].numpy()


def test_lift_matches_a_real_pair_at_least_as_well_as_sift(shared: Path) -> None:
    scene = PosedScene.load(shared / "data" / "test" / "strecha" / "Herz-Jesus-P8")
    i, j = 3, 4
    images = scene.image(i), scene.image(j)
    feature = LIFTFeature(COUNT).eval()
    ours, precision = right_mutual_matches(scene, i, j, lift(feature, images[0]), lift(feature, images[1]))
    theirs, _ = right_mutual_matches(scene, i, j, sift(images[0]), sift(images[1]))
    assert 400 < ours < COUNT
    assert ours > theirs
    assert precision > 0.75
