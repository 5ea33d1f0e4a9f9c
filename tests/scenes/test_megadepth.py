"""MegaDepth as published: cameras of undistorted images, depth, ordinal masks, what is missing or damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.runner import OK, evaluate
from kornia_lift.scenes.folders import load_posed, load_scenes
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.megadepth import MegaDepthScene
from kornia_lift.scenes.scene import UNKNOWN, VISIBLE, HasLocalAffine, HasPose
from kornia_lift.training.data.prepare.sources import find_sources
from kornia_lift.training.data.store import load_store
from tests.helpers.feature_files import writing
from tests.helpers.small_scenes import features, unit_vectors
from tests.scenes.megadepth_files import LARGEST, NAMES, Published, write_depth, write_megadepth

pytest.importorskip("pycolmap")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_megadepth(tmp_path_factory.mktemp("megadepth"))


@pytest.fixture
def broken(whole: Published, tmp_path: Path) -> Published:
    """A copy to be damaged."""
    base = tmp_path / "copy"
    shutil.copytree(whole.base, base)
    return Published(base, base / whole.dense.relative_to(whole.base), whole.depth, whole.homography)


def points(scene: MegaDepthScene, count: int = 1500) -> np.ndarray:
    return np.random.default_rng(0).uniform([0, 0], np.array(scene.camera_size(0)) - 1.0, (count, 2))


def test_points_follow_the_plane_between_undistorted_images(whole: Published) -> None:
    (scene,) = load_scenes([whole.dense.parents[1]])["posed"]
    assert isinstance(scene, MegaDepthScene) and isinstance(scene, HasPose) and isinstance(scene, HasLocalAffine)
    assert scene.name == "0015-dense0" and len(scene) == 4
    assert max(scene.camera_size(0)) == LARGEST and scene.image(0).shape[-2:] == scene.camera_size(0)[::-1]
    xy = points(scene)
    moved, status = scene.transfer(0, 1, xy)
    truth = apply_homography(whole.homography, xy)
    seen = status == VISIBLE
    assert seen.mean() > 0.6
    assert np.hypot(*(moved - truth)[seen].T).max() < 0.05
    assert (status[xy[:, 1] < 19] == UNKNOWN).all()  # depth 0
    # and so do the images, which were rendered through the lens and undistorted by COLMAP
    first, second = (scene.image(k)[0, 0].numpy() for k in (0, 1))

    def difference(shift: tuple[float, float]) -> float:
        grid = (moved[seen] + shift).astype(np.float32)[None]
        other = cv2.remap(second, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)[0]
        mine = xy[seen].astype(np.float32)[None]
        return float(np.abs(cv2.remap(first, mine[..., 0], mine[..., 1], cv2.INTER_LINEAR)[0] - other).mean())

    assert all(difference((0, 0)) < 0.8 * difference(s) for s in ((0.7, 0), (-0.7, 0), (0, 0.7), (0, -0.7)))


def test_pairs_share_points_and_masks_are_left_out(whole: Published) -> None:
    scene = MegaDepthScene.load(whole.dense)
    assert scene.names == ("a_b.jpg", "b.jpg", "c.jpg", "e.jpg")  # d.jpg has an ordinal mask
    assert [(p.i, p.j, p.overlap) for p in scene.pairs] == [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)]
    assert [(p.i, p.j) for p in scene.skipped] == [(0, 3), (1, 3), (2, 3)]
    assert all(p.reason == "depth map depths/e.h5 is missing" for p in scene.skipped)
    assert len(MegaDepthScene.load(whole.dense, max_images=2, name="mine").pairs) == 1
    with pytest.raises(ValueError, match="share 61 points and have depth; 1 have ordinal masks, 1 no usable"):
        MegaDepthScene.load(whole.dense, min_shared=61)


def test_evaluation_measures_matches_and_poses(whole: Published, tmp_path: Path) -> None:
    scene = load_posed(whole.dense)
    xy = points(scene, 400)
    truth, status = scene.transfer(0, 1, xy)
    xy, truth = xy[status == VISIBLE][:150], truth[status == VISIBLE][:150]
    with writing(tmp_path / "f.h5", {}) as store:
        for name, where in (("a_b.jpg", xy), ("b.jpg", truth)):
            found = features(where, unit_vectors(len(where)))
            store.write(f"0015-dense0/{name}", replace(found, image_size=scene.camera_size(0)))
    scene.pairs = scene.pairs[:1]
    with FeatureStore(tmp_path / "f.h5") as store:
        result = evaluate(store, [scene])[0]
    assert result.status == OK, result.reason
    assert result.values["matching_score"] > 0.9


def test_what_is_wrong_with_a_depth_file_is_said(broken: Published) -> None:
    write_depth(broken.dense, "b.jpg", np.ones((40, 50)))
    (broken.dense / "depths" / "c.h5").write_bytes(b"no h5")
    write_depth(broken.dense, "e.jpg", np.zeros_like(broken.depth["e.jpg"]))
    with pytest.raises(ValueError, match="share 50 points and have depth"):
        MegaDepthScene.load(broken.dense)
    write_depth(broken.dense, "d.jpg", broken.depth["d.jpg"])
    scene = MegaDepthScene.load(broken.dense)
    assert [tuple(scene.names[k] for k in (p.i, p.j)) for p in scene.pairs] == [("a_b.jpg", "d.jpg")]
    reasons = " ".join(p.reason for p in scene.skipped)
    assert all(text in reasons for text in ("b.h5 is 50x40, its image 320x", "cannot open", "e.h5 has no valid depth"))


def test_the_model_is_looked_for_and_named(broken: Published) -> None:
    sfm = broken.base / "MegaDepth_v1_SfM" / "0015"
    undistorted = broken.base / "Undistorted_SfM" / "0015"
    undistorted.mkdir(parents=True)
    before = MegaDepthScene.load(broken.dense)
    (sfm / "sparse" / "manhattan" / "0").rename(undistorted / "sparse")
    again = MegaDepthScene.load(broken.dense)
    np.testing.assert_array_equal(again.intrinsics, before.intrinsics)
    shutil.rmtree(broken.base / "Undistorted_SfM")
    with pytest.raises(FileNotFoundError, match="MegaDepth_v1_SfM/0015/sparse/manhattan/0"):
        MegaDepthScene.load(broken.dense)


def test_images_of_another_shape_than_the_model(broken: Published) -> None:
    image = cv2.imread(str(broken.dense / "imgs" / "b.jpg"), 0)
    cv2.imwrite(str(broken.dense / "imgs" / "b.jpg"), image[:150])
    write_depth(broken.dense, "b.jpg", broken.depth["b.jpg"][:150])
    with pytest.raises(ValueError, match="the image b.jpg is 320x150, its undistorted camera"):
        MegaDepthScene.load(broken.dense)


def test_training_data_of_a_scene(whole: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = find_sources(whole.dense.parents[1])
    assert (source.kind, source.name) == ("posed", "0015-dense0")
    assert {p.name for p in source.files} >= {"a_b.jpg", "a_b.h5"} and len(source.files) == 9
    out = tmp_path / "dataset"
    assert main(["build-dataset", str(whole.dense.parent), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "0015-dense0: images a_b.jpg and e.jpg are not paired: depth map depths/e.h5 is missing" in said.err
    store = load_store(out / "0015.npz")
    assert len(store.tracks) > 100 and {image.kind for image in store.images} == {"posed"}
    sizes = {image.camera.size for image in store.images if image.camera is not None}
    assert sizes == {load_posed(whole.dense).camera_size(0)}
    assert NAMES[0] in store.names[0]


def test_a_recipe_that_leaves_depth_scenes_out_says_so(
    whole: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "compact", "--data", str(whole.dense), "--out", str(out), "--stages", "orientation"]) == 2
    said = capsys.readouterr().err
    assert "leave nothing to train on" in said and "4 images with depth maps, used only where" in said
