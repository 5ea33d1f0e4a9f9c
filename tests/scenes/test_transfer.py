"""Ground truth: through depth, through homographies, through warps, and what is said where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kornia_lift.evaluation.warps import RESCALES, ROTATIONS, ImageWarp, WarpedScene
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.depth import interpolate_inverse_depth
from kornia_lift.scenes.homographies import HomographySequence, apply_homography, homography_jacobian
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import INVISIBLE, UNKNOWN, VISIBLE, Scene
from tests.helpers.small_scenes import (
    HEIGHT,
    WIDTH,
    grid_points,
    plane_homography,
    write_plane_scene,
    write_sequence,
    write_strecha,
)


def test_depth_agrees_with_the_homography_on_a_plane(plane: PosedScene) -> None:
    points = grid_points(7, 12) + 0.37
    moved, status = plane.transfer(0, 1, points)
    expected = apply_homography(plane_homography(), points)
    lands = (expected >= 0).all(1) & (expected <= [WIDTH - 1, HEIGHT - 1]).all(1)
    assert (status[lands] == VISIBLE).all()
    assert (status[~lands] == INVISIBLE).all()
    np.testing.assert_allclose(moved, expected, atol=0.02)  # 16 bits of inverse depth
    np.testing.assert_allclose(plane.transfer(1, 0, moved[lands]).points, points[lands], atol=0.04)


def test_tensor_and_array_give_the_same(plane: PosedScene) -> None:
    points = grid_points()
    np.testing.assert_allclose(
        plane.transfer(0, 1, torch.from_numpy(points)).points, plane.transfer(0, 1, points).points
    )


def test_unknown_depth_is_unknown_and_not_a_miss(plane: PosedScene, tmp_path: Path) -> None:
    path = plane.root / "depth" / "1.png"
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    point = np.array([[60.0, 45.0]])
    target = plane.transfer(0, 1, point).points[0]
    x, y = np.floor(target).astype(int)
    depth[y, x] = 0
    cv2.imwrite(str(path), depth)
    assert PosedScene.load(plane.root).transfer(0, 1, point).status[0] == UNKNOWN
    outside = np.array([[-5.0, 3.0], [np.nan, 1.0]])
    assert (plane.transfer(0, 1, outside).status == UNKNOWN).all()


def test_something_in_front_hides_the_point(plane: PosedScene) -> None:
    path = plane.root / "depth" / "1.png"
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), (depth * 1.5).astype(np.uint16))  # all of image 1 sees something nearer
    status = PosedScene.load(plane.root).transfer(0, 1, np.array([[60.0, 45.0]])).status
    assert status[0] == INVISIBLE


def test_no_depth_is_read_across_an_edge() -> None:
    inverse = np.array([[100, 100, 200], [100, 100, 200]], dtype=np.uint16)
    value, known = interpolate_inverse_depth(inverse, np.array([[0.5, 0.5], [1.5, 0.5], [1.0, 1.0]]))
    assert known.tolist() == [True, False, False]
    assert value[0] == 100


def test_cameras_are_known_up_to_a_factor(plane: PosedScene, tmp_path: Path) -> None:
    points = grid_points()
    expected, affine = plane.transfer(0, 1, points), plane.local_affine(0, 1, points)
    stored = dict(np.load(plane.root / "cameras.npz"))
    np.savez(plane.root / "cameras.npz", **(stored | {"K": stored["K"] * 2}))
    scaled = PosedScene.load(plane.root)
    np.testing.assert_allclose(scaled.transfer(0, 1, points).points, expected.points)
    np.testing.assert_array_equal(scaled.transfer(0, 1, points).status, expected.status)
    np.testing.assert_allclose(scaled.local_affine(0, 1, points), affine)
    root = write_strecha(tmp_path / "urd", plane)
    numbers = [line.split() for line in (root / "0.png.camera").read_text().splitlines()]
    for factor in (2, 0):
        k = [[f"{factor * float(v)}" for v in line] for line in numbers[:3]]
        (root / "0.png.camera").write_text("\n".join(" ".join(line) for line in k + numbers[3:]))
        if factor:
            np.testing.assert_allclose(CalibratedScene.from_strecha(root).intrinsics, plane.intrinsics)
    with pytest.raises(ValueError, match="size or K is not that of a camera"):
        CalibratedScene.from_strecha(root)


def test_local_affine_is_the_derivative(sequence: HomographySequence, plane: PosedScene) -> None:
    points, h, eps = grid_points(), plane_homography(), 1e-5
    numeric = [(apply_homography(h, points + eps * e) - apply_homography(h, points)) / eps for e in np.eye(2)]
    np.testing.assert_allclose(homography_jacobian(h, points), np.stack(numeric, axis=-1), atol=1e-4)
    np.testing.assert_allclose(sequence.local_affine(0, 1, points), np.stack(numeric, axis=-1), atol=1e-4)
    isotropic = np.sqrt(np.linalg.det(plane.local_affine(0, 1, points)))
    exact = np.sqrt(np.linalg.det(np.stack(numeric, axis=-1)))
    np.testing.assert_allclose(isotropic, exact, rtol=0.1)  # depth ratio against the true slanted plane


def test_sequence_goes_both_ways(sequence: HomographySequence) -> None:
    points = grid_points()
    there = sequence.transfer(0, 1, points)
    np.testing.assert_allclose(sequence.transfer(1, 0, there.points).points, points, atol=1e-9)
    assert isinstance(sequence, Scene)


def test_broken_ground_truth_is_skipped_with_a_reason(tmp_path: Path) -> None:
    h = np.eye(3)
    root = write_sequence(tmp_path / "s", {2: h, 3: h, 4: h, 5: h, 6: h})
    (root / "H_1_2").unlink()
    (root / "3.png").unlink()
    np.savetxt(root / "H_1_4", np.diag([1.0, 0.0, 1.0]))
    np.savetxt(root / "H_1_5", np.diag([1.0, -1.0, 1.0]))
    scene = HomographySequence.load(root)
    assert [p.j for p in scene.pairs] == [5]
    reasons = {p.j: p.reason for p in scene.skipped}
    assert set(reasons) == {1, 2, 3, 4}
    assert "H_1_2 is missing" in reasons[1]
    assert "image 3 is missing" in reasons[2]
    assert "degenerate" in reasons[3]
    assert "mirrors" in reasons[4]
    with pytest.raises(ValueError, match="no usable homography for image 2"):
        scene.transfer(0, 1, np.zeros((1, 2)))


def test_posed_scene_names_what_is_missing(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "p")
    (root / "depth" / "1.png").unlink()
    scene = PosedScene.load(root)
    assert not scene.pairs
    assert "depth map depth/1.png is missing" in scene.skipped[0].reason
    shutil.rmtree(root / "images")
    with pytest.raises(FileNotFoundError, match=r"cameras\.npz"):
        PosedScene.load(tmp_path)


def test_depth_of_another_size_is_refused(plane: PosedScene) -> None:
    cv2.imwrite(str(plane.root / "depth" / "0.png"), np.ones((10, 10), np.uint16))
    with pytest.raises(ValueError, match="depth map '0' is 10x10, the cameras are for 120x90"):
        PosedScene.load(plane.root).transfer(0, 1, grid_points())


@pytest.mark.parametrize("warp", [*ROTATIONS, *RESCALES], ids=lambda w: w.label)
def test_warp_moves_pixels_where_its_matrix_says(warp: ImageWarp) -> None:
    """A smooth bump in the image is found where the matrix carries its centre."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centre = np.array([[41.0, 52.0]])
    bump = np.exp(-((x - centre[0, 0]) ** 2 + (y - centre[0, 1]) ** 2) / (2 * 5.0**2))
    copy = warp(torch.from_numpy(bump)[None, None])[0, 0].numpy()
    assert copy.shape[::-1] == warp.output_size((WIDTH, HEIGHT))
    yy, xx = np.mgrid[: copy.shape[0], : copy.shape[1]]
    found = np.array([(xx * copy).sum(), (yy * copy).sum()]) / copy.sum()
    expected = apply_homography(warp.matrix((WIDTH, HEIGHT)), centre)[0]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_positive_angle_rotates_counter_clockwise_on_screen() -> None:
    right_of_centre = np.array([[WIDTH - 1.0, (HEIGHT - 1) / 2]])
    moved = apply_homography(ImageWarp(90).matrix((WIDTH, HEIGHT)), right_of_centre)[0]
    np.testing.assert_allclose(moved, [(HEIGHT - 1) / 2, 0.0], atol=1e-9)  # at the top


def test_warped_scene_composes(sequence: HomographySequence) -> None:
    warp = ImageWarp(30)
    scene = WarpedScene(sequence, warp)
    points = grid_points()
    plain, rotated = sequence.transfer(0, 1, points), scene.transfer(0, 3, points)
    np.testing.assert_array_equal(plain.status, rotated.status)
    matrix = warp.matrix(sequence.image_size(1))
    np.testing.assert_allclose(rotated.points, apply_homography(matrix, plain.points))
    back = scene.transfer(3, 0, rotated.points[plain.status == VISIBLE])
    np.testing.assert_allclose(back.points, points[plain.status == VISIBLE], atol=1e-9)
    assert scene.names[3] == "2@rotate30"
    assert tuple(scene.image(3).shape[-2:][::-1]) == scene.image_size(3)
    corner = scene.transfer(3, 0, np.zeros((1, 2)))
    assert corner.status[0] == UNKNOWN  # black corner of the canvas


@pytest.mark.parametrize("arguments", [{"factor": 0.0}, {"factor": 2.0, "angle_deg": 10}])
def test_warp_refuses(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive|either rotate"):
        ImageWarp(**arguments)
