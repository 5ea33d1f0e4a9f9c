"""Stores made from scenes, images and reconstructions, and the errors where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.prepare.assemble import STEPS, NoCorrespondenceError
from kornia_lift.training.data.prepare.negatives import SUPPORT
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.read import read_source
from kornia_lift.training.data.prepare.sources import Source, find_sources
from kornia_lift.training.data.store import Store
from tests.helpers.rotated_scene import RotatedScene, texture


def write(path: Path, picture: np.ndarray) -> Path:
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene, folder = RotatedScene(rotations=(0.0, 30.0, 75.0)), tmp_path_factory.mktemp("data") / "rotated"
    for number, (picture, matrix) in enumerate(zip(scene.pictures, scene.matrices, strict=True), start=1):
        write(folder / f"{number}.png", picture)
        if number > 1:
            np.savetxt(folder / f"H_1_{number}", matrix)
    return folder


@pytest.fixture(scope="module")
def store(sequence: Path) -> Store:
    return read_source(Source("homography", "rotated", sequence))


def test_sift_frames_have_their_whole_support_in_the_images(store: Store) -> None:
    seen = store.with_sift_frames()
    assert store.names == ("rotated/1", "rotated/2", "rotated/3")
    assert len(np.unique(seen.point)) > 30
    assert np.bincount(seen.point)[np.unique(seen.point)].min() >= 2
    reach = SUPPORT * seen.sigma[:, None]
    assert (seen.xy >= reach).all() and (seen.xy <= 399 - reach).all()


def test_sift_frames_and_tracks_follow_the_homography(sequence: Path, store: Store) -> None:
    matrix = np.loadtxt(sequence / "H_1_2")
    for table, distance in ((store.with_sift_frames(), 3.0), (store.tracks, 3.0)):
        found = 0
        for row in np.flatnonzero(table.image == 0):
            for other in np.flatnonzero((table.point == table.point[row]) & (table.image == 1)):
                moved = apply_homography(matrix, table.xy[[row]].astype(float))
                assert np.hypot(*(moved[0] - table.xy[other])) < distance
                # geometry: exactly 30 degrees and 1.25
                rotation = np.degrees(table.angle[other] - table.angle[row]) - 30
                assert abs((rotation + 180) % 360 - 180) < 0.1
                assert table.zoom[other] / table.zoom[row] == pytest.approx(1.25, rel=1e-3)
                if table.sigma[row] and table.sigma[other]:
                    change = np.degrees(table.theta[other] - table.theta[row]) - 30
                    assert abs((change + 180) % 360 - 180) < 41
                found += 1
        assert found > 20


def test_no_two_locations_share_a_keypoint(store: Store) -> None:
    seen = store.with_sift_frames()
    for image in range(3):
        rows = seen.take(seen.image == image)
        keys = {(*xy, sigma, theta) for xy, sigma, theta in zip(rows.xy.tolist(), rows.sigma, rows.theta, strict=True)}
        assert len(keys) == len(rows)


def test_the_same_seed_gives_the_same_store(sequence: Path, store: Store) -> None:
    again = read_source(Source("homography", "rotated", sequence))
    np.testing.assert_array_equal(store.empty.xy, again.empty.xy)
    np.testing.assert_array_equal(store.tracks.xy, again.tracks.xy)


def test_single_images_and_exposures(tmp_path: Path) -> None:
    picture = texture(300, 360, 5)
    write(tmp_path / "p" / "a.png", picture)
    write(tmp_path / "p" / "b.png", texture(280, 300, 6))
    singles = read_source(Source("single", "p", tmp_path / "p"), ReadOptions(points_per_image=20))
    assert len(singles.tracks) <= 40 and singles.scenes == ("p/a.png", "p/b.png")
    assert len(np.unique(singles.tracks.point)) == len(singles.tracks)
    assert len(singles.with_sift_frames())
    for gain in (0.5, 0.8, 1.1):
        write(tmp_path / "bracket" / f"{gain}.png", (picture * gain).clip(0, 255).astype(np.uint8))
    source = Source("exposures", "bracket", tmp_path / "bracket")
    exposures = read_source(source)
    for store in (singles, exposures):  # each step leaves some of those before
        (counts,) = store.counts.values()
        steps = [counts[name] for name in STEPS if name in counts]
        assert len(steps) == 3 and steps == sorted(steps, reverse=True)
    assert (np.bincount(exposures.tracks.point) == 3).all() and exposures.scenes == ("bracket",)
    write(tmp_path / "bracket" / "odd.png", picture[:-1])
    with pytest.raises(ValueError, match="two or more images of one size"):
        read_source(source)


def test_large_single_images_are_scaled_down(tmp_path: Path) -> None:
    write(tmp_path / "a.png", texture(300, 500, 5))
    store = read_source(Source("single", "p", tmp_path), ReadOptions(max_size=250))
    assert tuple(store.decode(0).shape) == (150, 250)


def test_images_without_keypoints_say_so(tmp_path: Path) -> None:
    write(tmp_path / "flat.png", np.full((200, 200), 90, np.uint8))
    with pytest.raises(NoCorrespondenceError, match="no SIFT keypoint in 1 image;"):
        read_source(Source("single", "p", tmp_path))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg as an image"):
        read_source(Source("single", "p", tmp_path))


def test_sources_of_a_folder(tmp_path: Path, sequence: Path) -> None:
    for name in (
        "church/images/1.jpg",
        "church/sparse/points3D.bin",
        "a.jpg",
        "b.PNG",
        "._a.jpg",
        "notes.txt",
        "x/c.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(s.kind, s.name) for s in find_sources(tmp_path)]
    assert found == [("sfm", "church"), ("single", tmp_path.name)]
    assert [p.name for p in find_sources(tmp_path)[1].files] == ["a.jpg", "b.PNG"]
    assert [(s.kind, s.name) for s in find_sources(tmp_path / "church")] == [("sfm", "church")]
    assert [s.kind for s in find_sources(sequence)] == ["homography"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no images"):
        find_sources(tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match="no training data .*none"):
        load_data([tmp_path / "none"])


def test_a_sorted_data_set_is_read_as_one_store(tmp_path: Path, sequence: Path) -> None:
    shutil.copytree(sequence, tmp_path / "posed" / "rotated")
    picture = texture(300, 360, 5)
    write(tmp_path / "photos" / "a.png", picture)
    for gain in (0.6, 1.1):
        write(tmp_path / "illumination" / "room" / f"{gain}.png", (picture * gain).clip(0, 255).astype(np.uint8))
    store = load_data([tmp_path])
    assert store.scenes == ("posed/rotated", "illumination/room", "photos/a.png")
    assert set(store.counts) == {"posed/rotated", "illumination/room", "photos"}
    write(tmp_path / "photos" / "flat.png", np.full((200, 200), 90, np.uint8))
    assert "photos/flat.png" in load_data([tmp_path]).names  # the others of the folder still serve


@pytest.fixture
def scene_copy(shared: Path, tmp_path: Path) -> Path:
    pytest.importorskip("pycolmap")
    return Path(shutil.copytree(shared / "data" / "train" / "sfm" / "unity_hall", tmp_path / "unity_hall"))


def test_missing_images_are_named(scene_copy: Path) -> None:
    victim = next((scene_copy / "images").iterdir())
    victim.chmod(0o644)
    victim.parent.chmod(0o755)
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of \d+ images of the model are missing in images/: {victim.name}"):
        read_source(Source("sfm", "unity_hall", scene_copy))


def test_images_of_another_size_are_named(scene_copy: Path) -> None:
    victim = next((scene_copy / "images").iterdir())
    victim.chmod(0o644)
    victim.parent.chmod(0o755)
    write(victim, texture(100, 120, 7))
    with pytest.raises(ValueError, match=rf"{victim.name} is 120x100, but the model was made for"):
        read_source(Source("sfm", "unity_hall", scene_copy))


def test_a_folder_without_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build-dataset"):
        read_source(Source("sfm", "none", tmp_path))
