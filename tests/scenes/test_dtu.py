"""DTU's published layout in miniature: a plane with a board in front of it, three cameras, a point cloud."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from kornia_lift.scenes.dtu import DTUScan, decompose_projection
from kornia_lift.scenes.dtu.ply import read_ply_points
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.scene import VISIBLE, HasPose
from kornia_lift.training.data.prepare.sources import find_sources

SIZE = (160, 120)
K = np.array([[200.0, 0, 79.5], [0, 201.0, 59.5], [0, 0, 1]])
#: The plane n . X = d of the first camera, and a board nearer to it, which hides its middle.
NORMAL, DISTANCE, BOARD = np.array([0.1, -0.05, 1.0]), 600.0, 450.0
POSES = [
    (np.eye(3), np.zeros(3)),
    (cv2.Rodrigues(np.array([0.0, 0.12, 0.03]))[0], np.array([-60.0, 5.0, 10.0])),
    (cv2.Rodrigues(np.array([0.0, -1.2, 0.0]))[0], np.array([500.0, 0.0, 250.0])),
]
HEADER = "ply\nformat {} 1.0\ncomment made\nelement vertex {}\n" + "".join(
    f"property {kind} {name}\n"
    for kind, name in [*(("float", n) for n in ("x", "y", "z")), *(("uchar", n) for n in ("red", "green", "blue"))]
)


def cloud() -> np.ndarray:
    """Points of the plane and of the board, denser than the pixels of the first camera."""
    u, v = (a.ravel() for a in np.meshgrid(np.arange(-60, 220, 0.6), np.arange(-40, 160, 0.6)))
    rays = np.stack([u, v, np.ones_like(u)], 1) @ np.linalg.inv(K).T
    plane = rays * (DISTANCE / (rays @ NORMAL))[:, None]
    board = rays[(abs(u - 80) < 15) & (abs(v - 60) < 15)] * BOARD
    return np.concatenate([plane, board])


def write_ply(path: Path, points: np.ndarray, form: Literal["ascii", "binary_little_endian"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = HEADER.format(form, len(points)) + "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
    if form == "ascii":
        path.write_text(header + "".join(f"{x:.5f} {y:.5f} {z:.5f} 1 2 3\n" for x, y, z in points))
        return
    rows = np.zeros(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"] = points
    path.write_bytes(header.encode() + rows.tobytes())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dtu")
    scan = root / "Rectified" / "scan7"
    scan.mkdir(parents=True)
    for number, (rotation, translation) in enumerate(POSES, start=1):
        for light in ("0_r5000", "3_r5000", "max"):
            cv2.imwrite(str(scan / f"rect_{number:03d}_{light}.png"), np.full(SIZE[::-1], 90, np.uint8))
        calibration = root / "Calibration" / "cal18" / f"pos_{number:03d}.txt"
        calibration.parent.mkdir(parents=True, exist_ok=True)
        matrix = -0.7 * K @ np.c_[rotation, translation]  # P is known up to a factor
        calibration.write_text("\n".join(" ".join(f"{v:.12g}" for v in row) for row in matrix) + "\n")
    write_ply(root / "Points" / "stl" / "stl007_total.ply", cloud(), "binary_little_endian")
    return root


def homography() -> np.ndarray:
    rotation, translation = POSES[1]
    matrix = K @ (rotation + np.outer(translation, NORMAL) / DISTANCE) @ np.linalg.inv(K)
    return matrix / matrix[2, 2]


def test_cameras_come_back_from_their_projection() -> None:
    for rotation, translation in POSES:
        for factor in (1.0, -3.0):
            k, r, t = decompose_projection(factor * K @ np.c_[rotation, translation])
            np.testing.assert_allclose(k, K, atol=1e-9)
            np.testing.assert_allclose(r, rotation, atol=1e-9)
            np.testing.assert_allclose(t, translation, atol=1e-7)
    with pytest.raises(ValueError, match="expected a camera matrix"):
        decompose_projection(np.zeros((3, 4)))


def test_points_follow_the_plane_and_those_behind_the_board_are_hidden(published: Path) -> None:
    (scene,) = load_scenes([published / "Rectified"])["posed"]
    assert isinstance(scene, DTUScan) and isinstance(scene, HasPose)
    assert scene.name == "scan7" and scene.names == tuple(f"rect_00{n}_3_r5000" for n in (1, 2, 3))
    # the third camera sees the object from too far aside
    assert [(p.i, p.j) for p in scene.pairs] == [(0, 1)]
    assert scene.pairs[0].angle_deg == pytest.approx(7, abs=2.5)
    generator = np.random.default_rng(0)
    xy = generator.uniform([0, 0], np.array(SIZE) - 1.0, (2000, 2))
    truth = apply_homography(homography(), xy)
    moved, status = scene.transfer(0, 1, xy)
    on_board = (abs(xy - [80, 60]) < 14).all(axis=1)
    clear = (abs(xy - [80, 60]) > 24).any(axis=1)
    seen = (status == VISIBLE) & clear
    assert seen.sum() > 0.6 * clear.sum()
    assert np.hypot(*(moved - truth)[seen].T).max() < 0.3
    # the board moves as it should, which is not as the plane does
    rotation, translation = POSES[1]
    board = K @ (rotation + np.outer(translation, [0, 0, 1]) / BOARD) @ np.linalg.inv(K)
    there = (status == VISIBLE) & on_board
    assert there.sum() > 0.5 * on_board.sum()
    assert np.hypot(*(moved - apply_homography(board, xy))[there].T).max() < 0.3
    # where the plane goes behind the board of the second image, it is not seen
    edge = apply_homography(board, np.array([[66.0, 46], [94, 74]]))
    beside = (abs(xy - [80, 60]) > 16).any(axis=1)
    behind = beside & ((truth > edge[0]) & (truth < edge[1])).all(axis=1)
    assert behind.any() and (status[behind] != VISIBLE).all()


def test_training_reads_a_scan_and_knows_its_files(published: Path) -> None:
    (source,) = find_sources(published / "Rectified")
    assert (source.kind, source.name) == ("posed", "scan7")
    assert all(path.suffix == ".png" for path in source.files) and len(source.files) == 9


def test_the_sample_set_has_the_calibration_in_a_folder_of_its_own(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "dtu"
    shutil.copytree(published, root)
    inside = root / "SampleSet" / "MVS Data"
    inside.mkdir(parents=True)
    (root / "Calibration").rename(inside / "Calibration")
    assert len(DTUScan.load(root / "Rectified" / "scan7", illumination="max").names) == 3
    shutil.rmtree(inside)
    with pytest.raises(
        FileNotFoundError, match=r"the calibration Calibration.cal18 of DTU's data is missing; looked in"
    ):
        DTUScan.load(root / "Rectified" / "scan7")
    (root / "Rectified" / "scan7").rename(root / "Rectified" / "seven")
    with pytest.raises(ValueError, match="its name must be scanN"):
        load_scenes([root / "Rectified"])


def test_what_is_damaged_is_named(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "dtu"
    shutil.copytree(published, root)
    scan, ply = root / "Rectified" / "scan7", root / "Points" / "stl" / "stl007_total.ply"
    with pytest.raises(FileNotFoundError, match="holds 0 images of illumination 5"):
        DTUScan.load(scan, illumination="5")
    whole = ply.read_bytes()
    for raw, message in (
        (whole[:-40], "the file ends before its"),
        (b"solid x", "does not begin with 'ply'"),
        (whole.replace(b"binary_little", b"binary_bigger"), "its format is"),
        (whole.replace(b"element vertex", b"element cortex"), "expected 'vertex'"),
        (b"ply\nformat ascii 1.0\n", "its header does not end"),
        ((HEADER.format("ascii", 9) + "end_header\n").encode(), "0 of 9 vertices are there"),
        ((HEADER.format("ascii", 9) + "end_header\n1 2 3 4 5 6\n\n").encode(), "1 of 9 vertices are there"),
    ):
        ply.write_bytes(raw)
        with pytest.raises(ValueError, match="stl007_total.ply is not a readable PLY file") as error:
            DTUScan.load(scan)
        assert message in str(error.value)
    ply.write_bytes(whole)
    (root / "Calibration" / "cal18" / "pos_002.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"pos_002.txt is not a camera file of DTU"):
        DTUScan.load(scan)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_point_clouds_of_both_kinds(form: Literal["ascii", "binary_little_endian"], tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(-100, 100, (50, 3))
    write_ply(tmp_path / "a.ply", points, form)
    np.testing.assert_allclose(read_ply_points(tmp_path / "a.ply"), points, atol=1e-4)
