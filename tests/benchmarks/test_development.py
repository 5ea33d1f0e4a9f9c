"""The development images: copies follow their homographies, and degraded copies are made of the good ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.development import COPIES, DEGRADED, HELD_OUT, development_groups, warped_images
from kornia_lift.scenes.scene import Scene
from kornia_lift.training.held_out.scenes import StoredPlanes
from tests.helpers.training import picture


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Scene], list[Scene]]:
    folder = tmp_path_factory.mktemp("photos")
    for n, name in enumerate(["kodak__01", "kodak__02", "pop-os__one", "trained_on"]):
        assert cv2.imwrite(str(folder / f"{name}.jpg"), picture(n, 300)[:240], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return warped_images(folder)


def test_copies_follow_their_homographies(scenes: tuple[list[Scene], list[Scene]]) -> None:
    (scene,), _ = scenes
    assert isinstance(scene, StoredPlanes)
    assert len(scene.pairs) == 3 * COPIES
    assert not any("trained_on" in name for name in scene.names)
    for pair in scene.pairs:
        first, second = (scene.image(k)[0, 0].numpy() for k in (pair.i, pair.j))
        again = cv2.warpPerspective(first, scene.homography(pair.i, pair.j), second.shape[::-1], borderValue=-1)
        seen = cv2.erode((again >= 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert seen.mean() > 0.3
        assert np.corrcoef(again[seen], second[seen])[0, 1] > 0.9


def test_degraded_copies_are_made_of_the_good_ones(scenes: tuple[list[Scene], list[Scene]]) -> None:
    (good,), degraded = scenes
    assert isinstance(good, StoredPlanes)
    number = {name: k for k, name in enumerate(good.names)}
    assert [scene.name for scene in degraded] == list(DEGRADED)
    assert sum(len(scene.pairs) for scene in degraded) == len(good.pairs)
    for scene in degraded:
        assert isinstance(scene, StoredPlanes)
        for pair in scene.pairs:
            i, j = number[scene.names[pair.i]], number[scene.names[pair.j].removesuffix(f"-{scene.name}")]
            np.testing.assert_allclose(scene.homography(pair.i, pair.j), good.homography(i, j))
            np.testing.assert_array_equal(scene.image(pair.i), good.image(i))
            sharp, changed = good.image(j)[0, 0].numpy(), scene.image(pair.j)[0, 0].numpy()
            assert 0.7 < np.corrcoef(sharp.ravel(), changed.ravel())[0, 1] < 0.999
            assert (changed.mean() < sharp.mean() / 2) == (scene.name == "darkened")


def test_test_scenes_are_not_among_them(shared: Path) -> None:
    groups = development_groups(shared / "data" / "train")
    names = {group: [scene.name for scene in scenes] for group, scenes in groups.items()}
    assert names["posed"] == ["castle-P30"]
    assert names["sfm"] == list(HELD_OUT)
    assert not set(names["sfm, trained on"]) & set(HELD_OUT)
    assert len(names["sfm, trained on"]) > 20
