"""From public downloads to the scenes of the tables: cameras and images of the published layouts, depth by sweeping."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.public.make_scenes import main
from benchmarks.public.plane_sweep import View, depth_maps
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.features.peers import opencv_sift
from kornia_lift.evaluation.runner import evaluate
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.feature_files import writing
from tests.helpers.training import picture

SIZE = (150, 110)
K = np.array([[160.0, 0, 74.0], [0, 161.0, 55.0], [0, 0, 1]])
#: The plane n . X = d of the world.
NORMAL, DISTANCE = np.array([0.25, -0.1, 1.0]), 5.0


def poses() -> list[tuple[np.ndarray, np.ndarray]]:
    """Four cameras in a row."""
    found = []
    for n in range(4):
        rotation = cv2.Rodrigues(np.array([0.0, 0.05 * n, 0.01 * n]))[0]
        found.append((rotation, -rotation @ np.array([0.35 * n, 0.02 * n, 0.0])))
    return found


def plane_views(size: tuple[int, int], k: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of a textured plane, and its inverse depth in each."""
    texture = cv2.resize(picture(2, 420), (1400, 1400), interpolation=cv2.INTER_CUBIC)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(size[0]), np.arange(size[1])))
    rays = np.c_[x, y, np.ones(len(x))] @ np.linalg.inv(k).T
    images, inverse = [], []
    for rotation, t in poses():
        normal = rotation @ NORMAL
        depth = (DISTANCE + normal @ t) / (rays @ normal)
        world = (rays * depth[:, None] - t) @ rotation
        at = ((world[:, :2] + 3.5) * 200).astype(np.float32).reshape(*size[::-1], 2)
        images.append(cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
        inverse.append((1 / depth).reshape(size[::-1]))
    return images, inverse


def test_swept_depth_of_a_plane() -> None:
    images, truth = plane_views(SIZE, K)
    views = [View(image, K, r, t) for image, (r, t) in zip(images, poses(), strict=True)]
    said: list[str] = []
    maps = depth_maps(views, neighbours=3, say=said.append)
    assert len(said) == 4
    for found, expected in zip(maps, truth, strict=True):
        known = found > 0
        assert known.mean() > 0.5
        error = np.abs(found / expected - 1)[known]
        assert np.median(error) < 0.004 and (error < 0.02).mean() > 0.97


def test_published_cameras_and_images_are_reduced_by_three(tmp_path: Path) -> None:
    large = K.copy()
    large[:2] *= 3
    large[:2, 2] += 1  # (x + .5) 3 - .5
    source = tmp_path / "downloads" / "Benchmarking_Camera_Calibration_2008" / "Herz-Jesus-P8"
    for name in ("images", "gt_dense_cameras"):
        (source / name).mkdir(parents=True)
    images, truth = plane_views((3 * SIZE[0] + 2, 3 * SIZE[1] + 1), large)
    for n, (image, (rotation, t)) in enumerate(zip(images, poses(), strict=True)):
        lines = [*large, np.zeros(3), *rotation.T, -rotation.T @ t, image.shape[::-1]]
        text = "\n".join(" ".join(f"{v:.17g}" for v in line) for line in lines)
        (source / "gt_dense_cameras" / f"000{n}.jpg.camera").write_text(text + "\n")
        cv2.imwrite(str(source / "images" / f"000{n}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 99])
    assert main([str(tmp_path / "downloads"), "--out", str(tmp_path / "public")]) == 0
    (scene,) = load_scenes([tmp_path / "public"])["posed"]
    assert isinstance(scene, PosedScene) and scene.names == ("0000", "0001", "0002", "0003")
    np.testing.assert_allclose(scene.intrinsics[0], K, atol=1e-9)
    assert scene.size == SIZE
    block = images[0][: 3 * SIZE[1], : 3 * SIZE[0]].reshape(SIZE[1], 3, SIZE[0], 3).mean((1, 3))
    assert np.abs(255 * scene.image(0).mean(1)[0].numpy() - block).mean() < 1.5
    # the depth of the large image at the middle of the three pixels
    found, known = scene.depth(0, np.array([[70.0, 60.0]]))
    assert known[0] and found[0] * truth[0][181, 211] == pytest.approx(1, abs=0.01)


@pytest.fixture
def oxford(shared: Path, tmp_path: Path) -> Path:
    """A sequence as it is published, made of the images of the tables: an archive with ppm files."""
    there = shared / "data" / "test" / "homography" / "oxford_graf"
    plain = tmp_path / "plain" / "graf"
    plain.mkdir(parents=True)
    for n in (1, 2):
        cv2.imwrite(str(plain / f"img{n}.ppm"), cv2.imread(str(there / f"{n}.jpg")))
    (plain / "H1to2p").write_text((there / "H_1_2").read_text())
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with tarfile.open(downloads / "graf.tar.gz", "w:gz") as file:
        for path in sorted(plain.iterdir()):
            file.add(path, path.name)
    return downloads


def figures(sequence: HomographySequence, path: Path) -> dict[str, float]:
    """Of SIFT on the first pair."""
    sequence.pairs = sequence.pairs[:1]
    with writing(path, {}) as store:
        for k in (0, 1):
            store.write(f"{sequence.name}/{sequence.names[k]}", opencv_sift(1000)(sequence.image(k)))
    with FeatureStore(path) as store:
        return dict(evaluate(store, [sequence])[0].values)


def test_a_published_sequence_has_the_figures_of_the_tables(oxford: Path, shared: Path, tmp_path: Path) -> None:
    expected = figures(HomographySequence.load(shared / "data" / "test" / "homography" / "oxford_graf"), tmp_path / "a")
    assert expected["correct_matches"] > 200
    # as published: the pixels are the same, and so is every figure
    assert figures(HomographySequence.load(tmp_path / "plain" / "graf"), tmp_path / "b") == expected
    assert main([str(oxford), "--out", str(tmp_path / "public")]) == 0
    (made,) = load_scenes([tmp_path / "public"])["homography"]
    assert isinstance(made, HomographySequence) and made.name == "oxford_graf"
    # compressed once more: as near as that allows
    again = figures(made, tmp_path / "c")
    assert again["correct_matches"] == pytest.approx(expected["correct_matches"], rel=0.1)


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "downloads").mkdir()
    assert main([str(tmp_path / "downloads"), "--out", str(tmp_path / "public")]) == 1
    assert "nothing; not found: Herz-Jesus-P8, bark, boat" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none")])
