"""Stores made from scenes, photographs and reconstructions, and what is said when they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.scenes.scene import VISIBLE
from kornia_lift.training.data.sources import NoCorrespondenceError, bracket_store, photo_store, scene_store, sfm_store
from kornia_lift.training.paper.quadruplets import SUPPORT

from .conftest import TurnedScene, texture


def write(path: Path, picture: np.ndarray) -> Path:
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def test_a_scene_gives_places_whose_whole_support_is_in_the_photographs(turned_scene: TurnedScene) -> None:
    store = scene_store(turned_scene)
    places = store.places
    assert store.names == ("turned/view0", "turned/view1", "turned/view2")
    assert len(np.unique(places.point)) > 30
    assert np.bincount(places.point)[np.unique(places.point)].min() >= 2
    reach = SUPPORT * places.sigma[:, None]
    assert (places.xy >= reach).all()
    assert (places.xy <= turned_scene.size - 1 - reach).all()
    rows = np.flatnonzero(places.image == 0)
    for row in rows:
        for other in np.flatnonzero((places.point == places.point[row]) & (places.image == 1)):
            moved = turned_scene.transfer(0, 1, places.xy[[row]])
            assert moved.status[0] == VISIBLE
            assert np.hypot(*(moved.points[0] - places.xy[other])) < 3.5
            turn = np.degrees(places.theta[other] - places.theta[row]) - 30
            assert abs((turn + 180) % 360 - 180) < 41
            assert places.sigma[other] / places.sigma[row] == pytest.approx(1.25, rel=0.9)


def test_the_same_seed_gives_the_same_store(turned_scene: TurnedScene) -> None:
    a, b = scene_store(turned_scene, seed=4), scene_store(turned_scene, seed=4)
    np.testing.assert_array_equal(a.empty.xy, b.empty.xy)
    np.testing.assert_array_equal(a.places.xy, b.places.xy)


def test_photographs_and_brackets(tmp_path: Path) -> None:
    picture = texture(300, 360, 5)
    paths = [write(tmp_path / "p" / "a.png", picture), write(tmp_path / "p" / "b.png", texture(280, 300, 6))]
    photos = photo_store(paths, per_photo=20)
    assert len(photos.places) <= 40
    assert len(np.unique(photos.places.point)) == len(photos.places)
    for gain in (0.5, 0.8, 1.1):
        write(tmp_path / "bracket" / f"{gain}.png", (picture * gain).clip(0, 255).astype(np.uint8))
    bracket = bracket_store(tmp_path / "bracket")
    assert (np.bincount(bracket.places.point)[np.unique(bracket.places.point)] == 3).all()
    write(tmp_path / "bracket" / "odd.png", picture[:-1])
    with pytest.raises(ValueError, match="one size"):
        bracket_store(tmp_path / "bracket")


def test_photographs_without_keypoints_say_so(tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.png", np.full((200, 200), 90, np.uint8))
    with pytest.raises(NoCorrespondenceError, match="none of the 1 photographs shows a SIFT keypoint"):
        photo_store([flat])


def test_a_damaged_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg: missing or damaged"):
        photo_store([tmp_path / "broken.jpg"])


@pytest.fixture
def scene_copy(shared: Path, tmp_path: Path) -> Path:
    pytest.importorskip("pycolmap")
    return Path(shutil.copytree(shared / "data" / "train" / "sfm" / "unity_hall", tmp_path / "unity_hall"))


def test_a_reconstruction_gives_confirmed_places(scene_copy: Path) -> None:
    store = sfm_store(scene_copy)
    assert len(store.names) == 5
    assert len(store.places) > 50
    assert np.bincount(store.places.point)[np.unique(store.places.point)].min() >= 2
    assert store.places.sigma.min() >= 2


def test_missing_photographs_are_named(scene_copy: Path) -> None:
    victim = next((scene_copy / "images").iterdir())
    victim.chmod(0o644)
    victim.parent.chmod(0o755)
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 photographs of the model are missing in images/: {victim.name}"):
        sfm_store(scene_copy)


def test_photographs_of_another_size_are_named(scene_copy: Path) -> None:
    victim = next((scene_copy / "images").iterdir())
    victim.chmod(0o644)
    victim.parent.chmod(0o755)
    write(victim, texture(100, 120, 7))
    with pytest.raises(ValueError, match=rf"{victim.name} is 120x100, but the model was made for"):
        sfm_store(scene_copy)


def test_a_folder_without_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build-dataset"):
        sfm_store(tmp_path)
