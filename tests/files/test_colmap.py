"""The COLMAP database: conventions to the digit, and a scene that pycolmap reconstructs from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.features import Features
from kornia_lift.files.colmap import descriptor_bytes, keypoint_rows, map_database, verify, write_database

pycolmap = pytest.importorskip("pycolmap")

SIZE = (640, 480)


def camera(known: bool = True) -> object:
    made = pycolmap.Camera(model="PINHOLE", width=SIZE[0], height=SIZE[1], params=[500.0, 500.0, 320.0, 240.0])
    made.has_prior_focal_length = known
    return made


def described(points: np.ndarray, descriptors: np.ndarray | None = None) -> Features:
    count = len(points)
    if descriptors is None:
        descriptors = np.full((count, 64), 0.125, np.float32)
    return Features(points, descriptors, None, np.full(count, 2.5), np.full(count, 90.0), SIZE)


def test_a_keypoint_in_colmaps_convention() -> None:
    """Half a pixel is added; 90 degrees counter-clockwise points up: in the negative y direction of COLMAP."""
    rows = keypoint_rows(described(np.array([[10.0, 20.25]])))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[10.5, 20.75, 2.5, -np.pi / 2]], atol=1e-6)
    shape = pycolmap.FeatureKeypoint
    a = rows[0, 2] * np.cos(rows[0, 3]), rows[0, 2] * np.sin(rows[0, 3])
    made = shape()
    made.x, made.y, made.a11, made.a12, made.a21, made.a22 = rows[0, 0], rows[0, 1], a[0], -a[1], a[1], a[0]
    assert made.compute_scale() == pytest.approx(2.5)
    assert made.compute_orientation() == pytest.approx(-np.pi / 2)


def test_no_scale_and_no_angle() -> None:
    rows = keypoint_rows(Features(np.array([[1.0, 2.0]]), np.zeros((1, 8), np.float32)))
    np.testing.assert_array_equal(rows, [[1.5, 2.5, 1.0, 0.0]])


def test_descriptors_become_bytes_only_where_nothing_is_lost() -> None:
    unit = np.zeros((2, 128), np.float32)
    unit[0, :2] = 0.6, 0.8
    unit[1, :16] = 0.25
    found = descriptor_bytes(unit * 7)  # OpenCV's SIFT is no unit vector
    assert found is not None
    np.testing.assert_array_equal(found[0, :3], [255, 255, 0])  # as COLMAP caps them
    np.testing.assert_array_equal(found[1, 14:18], [128, 128, 0, 0])
    assert descriptor_bytes(-unit) is None
    assert descriptor_bytes(unit[:, :64]) is None
    assert descriptor_bytes(np.zeros((2, 128), np.uint8)) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    points = np.array([[1.0, 2.0], [3.0, 4.0]])
    features = {"b.jpg": described(points), "a/1.jpg": described(points + 1)}
    matches = {("b.jpg", "a/1.jpg"): np.array([[0, 1]])}
    path = tmp_path / "database.db"
    write_database(path, features, matches, cameras=camera())
    assert [p.name for p in tmp_path.iterdir()] == ["database.db"]
    with pycolmap.Database.open(path) as database:
        images = {image.name: image for image in database.read_all_images()}
        assert set(images) == set(features)
        assert database.num_cameras() == 1
        first, second = images["b.jpg"].image_id, images["a/1.jpg"].image_id
        np.testing.assert_allclose(database.read_keypoints(second)[0, :3], [2.5, 3.5, 2.5])
        np.testing.assert_array_equal(database.read_matches(first, second), [[0, 1]])
        assert not database.exists_descriptors(first)
    with pytest.raises(FileExistsError, match="exists"):
        write_database(path, features, matches, cameras=camera())


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        ({("a", "c"): np.array([[0, 0]])}, "no features of c"),
        ({("a", "b"): np.array([[0, 2]])}, "point beyond"),
        ({("a", "b"): np.array([[-1, 0]])}, "point beyond"),
    ],
)
def test_matches_that_point_nowhere_are_refused(tmp_path: Path, matches: dict, message: str) -> None:
    features = {name: described(np.zeros((2, 2))) for name in "ab"}
    with pytest.raises(ValueError, match=message):
        write_database(tmp_path / "x.db", features, matches, cameras=camera())
    assert not list(tmp_path.iterdir())


def test_features_of_another_size_are_refused(tmp_path: Path) -> None:
    small = Features(np.zeros((1, 2)), np.zeros((1, 8), np.float32), image_size=(320, 240))
    with pytest.raises(ValueError, match="320x240"):
        write_database(tmp_path / "x.db", {"a": small}, {}, cameras=camera())
    assert not list(tmp_path.iterdir())


def test_a_scene_is_found_again(tmp_path: Path) -> None:
    """Points before four cameras on an arc: all are registered, and the error is that of rounding to float32."""
    generator = np.random.default_rng(0)
    points = generator.uniform([-2, -1.5, 5], [2, 1.5, 8], (300, 3))
    k = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])  # our pixel centres: half a pixel less
    features, matches = {}, {}
    for index in range(4):
        angle = np.radians(8 * index)
        rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
        centre = np.array([0, 0, 6.5]) + rotation.T @ np.array([0, 0, -6.5])
        projected = (points - centre) @ rotation.T @ k.T
        features[f"{index}.png"] = described(projected[:, :2] / projected[:, 2:])
    names = sorted(features)
    everything = np.stack([np.arange(300)] * 2, axis=1)
    matches = {(a, b): everything for i, a in enumerate(names) for b in names[i + 1 :]}
    path = tmp_path / "database.db"
    write_database(path, features, matches, cameras=camera())
    assert verify(path, threads=1) == 6
    model = map_database(path, tmp_path / "models", refine_intrinsics=False, threads=1)
    assert model is not None
    assert model.num_reg_images() == 4
    assert model.num_points3D() == 300
    assert model.compute_mean_reprojection_error() < 1e-3
    np.testing.assert_allclose(next(iter(model.cameras.values())).params, [500, 500, 320, 240])
    # models of an earlier run, of which there may have been more, do not stay beside those of this one
    models = tmp_path / "models"
    shutil.copytree(models / "0", models / "1")
    before = (models / "0" / "points3D.bin").stat().st_mtime_ns
    map_database(path, models, refine_intrinsics=False, threads=1)
    assert [found.name for found in models.iterdir()] == ["0"]
    assert (models / "0" / "points3D.bin").stat().st_mtime_ns > before
    write_database(tmp_path / "empty.db", features, {}, cameras=camera())
    assert map_database(tmp_path / "empty.db", models, threads=1) is None
    assert (models / "0" / "points3D.bin").is_file()  # no model replaces none
    (models / "2024").mkdir()
    (models / "2024" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"2024 is no COLMAP model.*choose another folder"):
        map_database(path, models, refine_intrinsics=False, threads=1)
    assert (models / "2024" / "holiday.jpg").is_file() and (models / "0").is_dir()


def test_pairs_without_inliers_are_not_verified(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = {name: described(rng.uniform(0, 400, (40, 2))) for name in ("a.png", "b.png")}
    one = np.zeros((1, 2), dtype=np.int64)
    write_database(tmp_path / "database.db", features, {("a.png", "b.png"): one}, cameras=camera())
    assert verify(tmp_path / "database.db", threads=1) == 0
