"""Frames from posed scenes: a plane, whose homography gives the place and the local map of every point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.images import PhotoSources
from kornia_lift.training.data.posed_frames import posed_observations
from kornia_lift.training.data.split import find_sources
from kornia_lift.training.modern.tracks import CutConfig, cut_tracks
from tests.evaluation.conftest import HEIGHT, WIDTH, plane_homography, write_plane_scene

from .conftest import texture

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    """The plane scene with photographs that fit its geometry."""
    root = write_plane_scene(tmp_path / "posed" / "plane")
    first = texture(HEIGHT, WIDTH, 3)
    second = cv2.warpPerspective(first, plane_homography(), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    for name, picture in (("0", first), ("1", second)):
        cv2.imwrite(str(root / "images" / f"{name}.png"), picture)
    return root


def test_places_and_local_maps_are_those_of_the_homography(plane: Path) -> None:
    seen = posed_observations(PosedScene.load(plane), 100, np.random.default_rng(0))
    assert seen.images == ("0.png", "1.png")
    homography, step = plane_homography(), 1e-4

    def apply(xy: np.ndarray) -> np.ndarray:
        moved = np.c_[xy, np.ones(len(xy))] @ homography.T
        return moved[:, :2] / moved[:, 2:]

    order = np.lexsort((seen.image, seen.point))
    image, xy, jacobian = seen.image[order], seen.xy[order], seen.jacobian[order]
    assert len(image) > 60
    assert (np.bincount(seen.point)[np.unique(seen.point)] == 2).all()
    assert (image.reshape(-1, 2) == [0, 1]).all()
    one, two = xy[0::2], xy[1::2]
    np.testing.assert_allclose(apply(one), two, atol=0.05)
    columns = [(apply(one + d) - apply(one - d)) / (2 * step) for d in np.eye(2) * step]
    local = np.stack(columns, axis=2)
    # whichever photograph the place was chosen in
    np.testing.assert_allclose(jacobian[1::2] @ np.linalg.inv(jacobian[0::2]), local, atol=0.03)


def test_patches_of_a_place_look_alike(plane: Path) -> None:
    tracks = cut_tracks(PhotoSources((), (), (), (plane,)), CutConfig(points_per_scene=100, max_sigma=2.0))
    assert len(tracks) >= 40
    flat = tracks.pixels[:, 32:72, 32:72].flatten(1).float()
    flat = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    alike = flat @ flat.T
    same = (tracks.track[:, None] == tracks.track[None]) & ~torch.eye(len(flat), dtype=torch.bool)
    assert alike[same].median() > 0.9
    assert alike[~same].median().abs() < 0.3


def test_posed_scenes_are_used_only_when_asked_for(plane: Path) -> None:
    root = plane.parents[1]
    (root / "photos").mkdir()
    assert find_sources(root).posed == ()
    assert find_sources(root, posed=True).posed == (plane,)
    assert find_sources(root, validation=True, posed=True).posed == ()


def test_a_photograph_of_another_size_is_named(plane: Path) -> None:
    cv2.imwrite(str(plane / "images" / "1.png"), np.zeros((50, 60), np.uint8))
    with pytest.raises(ValueError, match=r"'1' is 60x50, the cameras are for"):
        posed_observations(PosedScene.load(plane), 10, np.random.default_rng(0))
