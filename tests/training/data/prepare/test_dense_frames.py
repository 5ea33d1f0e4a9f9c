"""Frames from posed scenes and homographies: a plane, whose homography gives position and local map of every point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.images import to_gray
from kornia_lift.training.data.prepare.frames import frames_from_scene
from kornia_lift.training.data.prepare.read import read_source
from kornia_lift.training.data.prepare.sift import detect_sift, one_per_location
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.modern.tracks import CutConfig, cut_tracks
from tests.helpers.rotated_scene import texture
from tests.helpers.small_scenes import HEIGHT, WIDTH, plane_homography, write_plane_scene

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    """The plane scene with images that fit its geometry."""
    root = write_plane_scene(tmp_path / "posed" / "plane")
    first = texture(HEIGHT, WIDTH, 3)
    second = cv2.warpPerspective(first, plane_homography(), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    for name, picture in (("0", first), ("1", second)):
        cv2.imwrite(str(root / "images" / f"{name}.png"), picture)
    return root


def test_locations_and_local_maps_are_those_of_the_homography(plane: Path) -> None:
    scene = PosedScene.load(plane)
    found = [one_per_location(detect_sift(to_gray(scene.image(i)))) for i in (0, 1)]
    seen = frames_from_scene(scene, [keypoints.xy for keypoints in found])
    homography, step = plane_homography(), 1e-4

    def apply(xy: np.ndarray) -> np.ndarray:
        moved = np.c_[xy, np.ones(len(xy))] @ homography.T
        return moved[:, :2] / moved[:, 2:]

    order = np.lexsort((seen.image, seen.point))
    image, xy, jacobian = seen.image[order], seen.xy[order], seen.jacobian[order]
    assert len(image) > 40
    assert (np.bincount(seen.point)[np.unique(seen.point)] == 2).all()
    assert (image.reshape(-1, 2) == [0, 1]).all()
    one, two = xy[0::2], xy[1::2]
    np.testing.assert_allclose(apply(one), two, atol=0.05)
    columns = [(apply(one + d) - apply(one - d)) / (2 * step) for d in np.eye(2) * step]
    local = np.stack(columns, axis=2)
    # whichever image the location was chosen in
    np.testing.assert_allclose(jacobian[1::2] @ np.linalg.inv(jacobian[0::2]), local, atol=0.03)


def test_patches_of_a_location_look_alike(plane: Path) -> None:
    store = read_source(Source("posed", "plane", plane))
    assert {image.kind for image in store.images} == {"posed"}
    tracks = cut_tracks(store, CutConfig(points_per_scene=100, max_sigma=2.0))
    assert len(tracks) >= 40
    flat = tracks.pixels[:, 32:72, 32:72].flatten(1).float()
    flat = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    alike = flat @ flat.T
    same = (tracks.track[:, None] == tracks.track[None]) & ~torch.eye(len(flat), dtype=torch.bool)
    assert alike[same].median() > 0.9
    assert alike[~same].median().abs() < 0.3


def test_cameras_are_kept(plane: Path) -> None:
    scene = PosedScene.load(plane)
    camera = read_source(Source("posed", "plane", plane)).images[1].camera
    assert camera is not None and camera.size == (WIDTH, HEIGHT) and camera.model == "PINHOLE"
    np.testing.assert_allclose(camera.rotation, scene.rotations[1])
    np.testing.assert_allclose(camera.params[2], scene.intrinsics[1][0, 2] + 0.5)


def test_an_image_of_another_size_is_named(plane: Path) -> None:
    cv2.imwrite(str(plane / "images" / "1.png"), np.zeros((50, 60), np.uint8))
    with pytest.raises(ValueError, match=r"'1' is 60x50, the cameras are for"):
        read_source(Source("posed", "plane", plane))
