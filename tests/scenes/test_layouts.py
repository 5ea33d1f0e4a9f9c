"""Published layouts: Webcam, Strecha's camera files, COLMAP models."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.runner import OK, evaluate
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.folders import load_posed, load_scenes
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import UNKNOWN, VISIBLE, HasPose
from kornia_lift.scenes.static import StaticSequence
from tests.helpers.feature_files import writing
from tests.helpers.small_scenes import features, unit_vectors, write_plane_scene, write_strecha


def test_webcam_pairs_images_of_a_camera_that_stands_still(tmp_path: Path) -> None:
    folder = tmp_path / "Frankfurt" / "test" / "image_color"
    folder.mkdir(parents=True)
    for name in "abcdef":
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((20, 30), np.uint8))
    scene = load_scenes([tmp_path])["static"][0]
    assert isinstance(scene, StaticSequence)
    assert (scene.name, [(p.i, p.j) for p in scene.pairs]) == ("Frankfurt", [(0, 3), (1, 4), (2, 5)])
    moved, status = scene.transfer(0, 3, np.array([[3.0, 4.0]]))
    assert (moved[0].tolist(), status[0]) == ([3.0, 4.0], VISIBLE)
    assert len(StaticSequence.load(tmp_path / "Frankfurt", all_pairs=True).pairs) == 15
    with pytest.raises(FileNotFoundError, match="fewer than two images"):
        StaticSequence.load(tmp_path)


def test_strecha_as_published_has_the_same_poses(tmp_path: Path) -> None:
    plane = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    scene = CalibratedScene.from_strecha(write_strecha(tmp_path / "urd", plane))
    assert isinstance(scene, HasPose)
    for found, expected in zip(scene.relative_pose(0, 1), plane.relative_pose(0, 1), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (scene.transfer(0, 1, np.ones((3, 2))).status == UNKNOWN).all()
    (tmp_path / "urd" / "1.png").unlink()
    missing = CalibratedScene.from_strecha(tmp_path / "urd")
    assert "image 1.png is missing" in missing.skipped[0].reason
    (tmp_path / "urd" / "0.png.camera").write_text("1 2 3")
    with pytest.raises(ValueError, match="expected K, distortion, R, C and size"):
        CalibratedScene.from_strecha(tmp_path / "urd")


def test_without_depth_only_the_pose_is_measured(tmp_path: Path) -> None:
    plane = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    scene = CalibratedScene.from_strecha(write_strecha(tmp_path / "urd", plane))
    generator = np.random.default_rng(0)
    world = np.c_[generator.uniform(-1.2, 1.2, (150, 2)), generator.uniform(4, 9, 150)]
    with writing(tmp_path / "f.h5", {}) as store:
        for k in (0, 1):
            image = (world @ plane.rotations[k].T + plane.translations[k]) @ plane.intrinsics[k].T
            store.write(f"urd/{k}", features(image[:, :2] / image[:, 2:], unit_vectors(150)))
    with FeatureStore(tmp_path / "f.h5") as store:
        result = evaluate(store, [scene])[0]
    assert result.status == OK
    assert "only cameras and matches were measured" in result.reason
    assert result.values["epipolar_precision"] == 1
    assert 50 < result.values["epipolar_matches"] < 150  # thinned
    assert result.values["pose_error"] < 0.5
    assert "matching_score" not in result.values


def test_colmap_model_agrees_with_its_own_points(shared: Path) -> None:
    pytest.importorskip("pycolmap")
    root = shared / "data" / "train" / "sfm" / "wall_fountain"
    scene = CalibratedScene.from_colmap(root / "sparse", root / "images")
    import pycolmap

    model = pycolmap.Reconstruction(str(root / "sparse"))
    entries = sorted(model.images.values(), key=lambda image: image.name)
    pair = scene.pairs[0]
    shared_points = {p.point3D_id: p.xy for p in entries[pair.i].points2D if p.has_point3D()}
    both = [(shared_points[p.point3D_id], p.xy) for p in entries[pair.j].points2D if p.point3D_id in shared_points]
    first, second = (np.array(side) - 0.5 for side in zip(*both, strict=True))
    rotation, t = scene.relative_pose(pair.i, pair.j)
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) / np.linalg.norm(t)
    k = [np.linalg.inv(scene.intrinsics[index]) for index in (pair.i, pair.j)]
    rays = [
        np.c_[scene.undistort(index, points), np.ones(len(points))] @ inverse.T
        for index, points, inverse in ((pair.i, first, k[0]), (pair.j, second, k[1]))
    ]
    lines = rays[0] @ (cross @ rotation).T
    distance = np.abs((rays[1] * lines).sum(1)) / np.hypot(lines[:, 0], lines[:, 1]) * scene.intrinsics[pair.j][0, 0]
    assert np.median(distance) < 1.0  # pixels from the epipolar line
    assert scene.image_size(pair.i) == scene.sizes[pair.i]


def test_a_folder_without_depth_maps_is_not_taken_for_dtu(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="holds no scene with depth maps, expected cameras.npz"):
        load_posed(tmp_path)
    with pytest.raises(ValueError, match="nothere is not a folder"):
        load_posed(tmp_path / "nothere")
