"""A scene that is damaged or incomplete is reported, and the rest is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.evaluation.validation import evaluate_feature
from kornia_lift.scenes.folders import UnreadableScene, load_scenes
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.small_scenes import (
    features,
    grid_points,
    unit_vectors,
    write_plane_scene,
    write_sequence,
    write_strecha,
)

SAME = dict.fromkeys((2, 3), np.eye(3))


def skipped(scene: HomographySequence) -> list[tuple[str, str, str]]:
    return [(scene.names[p.i], scene.names[p.j], p.reason) for p in scene.skipped]


def test_without_image_1_every_pair_is_skipped(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "seq", SAME)
    (root / "1.png").unlink()
    scene = HomographySequence.load(root)
    assert scene.pairs == ()
    assert skipped(scene) == [("1", "2", "image 1 is missing"), ("1", "3", "image 1 is missing")]
    assert [(p.i, p.j) for p in HomographySequence.load(root, all_pairs=True).pairs] == [(1, 2)]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_image_skips_its_pair(tmp_path: Path, content: bytes | None) -> None:
    root = write_sequence(tmp_path / "seq", SAME)
    whole = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    scene = HomographySequence.load(root)
    assert [scene.names[p.j] for p in scene.pairs] == ["3"]
    assert "cannot read" in skipped(scene)[0][2]
    assert "2.png" in skipped(scene)[0][2]


@pytest.mark.parametrize("text", ["", "1 0 0", "\xff\xfe\x00"])
def test_a_damaged_homography_skips_its_pair(tmp_path: Path, text: str) -> None:
    root = write_sequence(tmp_path / "seq", SAME)
    (root / "H_1_2").write_bytes(text.encode("latin-1"))
    scene = HomographySequence.load(root)
    assert [scene.names[p.j] for p in scene.pairs] == ["3"]
    assert "H_1_2" in skipped(scene)[0][2]


def test_oxford_as_published(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "graf", {2: np.diag([2.0, 2.0, 1.0])})
    for number in (1, 2):
        cv2.imwrite(str(root / f"img{number}.ppm"), cv2.imread(str(root / f"{number}.png")))
        (root / f"{number}.png").unlink()
    (root / "H_1_2").rename(root / "H1to2p")
    scene = load_scenes([tmp_path])["homography"][0]
    assert isinstance(scene, HomographySequence)
    assert (scene.names, len(scene.pairs), scene.skipped) == (("img1", "img2"), 1, ())
    assert scene.image_size(1) == (120, 90)
    assert scene.image(0).shape[-2:] == (90, 120)
    assert scene.transfer(0, 1, np.array([[3.0, 4.0]])).points.tolist() == [[6.0, 8.0]]


def test_image_1_is_the_reference_whatever_the_other_numbers(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "seq", {0: np.eye(3), 2: np.eye(3)})
    scene = HomographySequence.load(root)
    assert [(scene.names[p.i], scene.names[p.j]) for p in scene.pairs] == [("1", "0"), ("1", "2")]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_cut_cameras_file_is_said_to_be_damaged(tmp_path: Path, keep: float) -> None:
    root = write_plane_scene(tmp_path / "plane")
    whole = (root / "cameras.npz").read_bytes()
    (root / "cameras.npz").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"cameras\.npz is damaged"):
        PosedScene.load(root)
    with pytest.raises(ValueError, match=r"cameras\.npz is damaged"):
        load_scenes([tmp_path])  # nothing else is there to be evaluated


def test_cameras_without_translations_are_reported(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "plane")
    stored = dict(np.load(root / "cameras.npz"))
    np.savez(root / "cameras.npz", **(stored | {"t": np.zeros((1, 3))}))
    with pytest.raises(ValueError, match=r"K, R and t must have shape .*\(1, 3\)"):
        PosedScene.load(root)
    np.savez(root / "cameras.npz", **(stored | {"names": np.array(["0", "0"])}))
    with pytest.raises(ValueError, match="names must be unique"):
        PosedScene.load(root)


def test_everything_damaged_is_listed_beside_what_is_whole(tmp_path: Path) -> None:
    write_sequence(tmp_path / "whole", SAME)
    lost = write_sequence(tmp_path / "lost", SAME)
    for number in SAME:
        (lost / f"H_1_{number}").unlink()
    cut = write_plane_scene(tmp_path / "cut")
    (cut / "cameras.npz").write_bytes(b"")
    without = write_plane_scene(tmp_path / "without")
    (without / "cameras.npz").unlink()
    plane = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    strecha = write_strecha(tmp_path / "urd", plane)
    (strecha / "0.png.camera").write_text("1 2 3")
    groups = {name: {s.name: s for s in scenes} for name, scenes in load_scenes([tmp_path]).items()}
    assert sorted(groups["homography"]) == ["lost", "whole"]
    assert [p.reason for p in groups["homography"]["lost"].skipped] == ["H_1_2 is missing", "H_1_3 is missing"]
    assert sorted(groups["posed"]) == ["cut", "plane", "without"]
    assert isinstance(groups["posed"]["cut"], UnreadableScene)
    assert "cameras.npz is missing" in groups["posed"]["without"].skipped[0].reason
    assert "is not a .camera file" in groups["calibrated"]["urd"].skipped[0].reason
    with pytest.raises(FileNotFoundError, match="no scene in"):
        load_scenes([lost])  # numbered images alone are no scene


def test_scenes_of_different_groups_need_different_names(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a" / "s", SAME)
    write_plane_scene(tmp_path / "b" / "s")
    with pytest.raises(ValueError, match="two scenes are called 's'"):
        load_scenes([tmp_path])


def test_the_command_evaluates_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    write_sequence(data / "whole", SAME)
    (write_sequence(data / "headless", SAME) / "1.png").unlink()
    cut = write_sequence(data / "cut", SAME) / "2.jpg"
    encoded = cv2.imencode(".jpg", cv2.imread(str(cut.with_suffix(".png"))))[1].tobytes()
    cut.write_bytes(encoded[: len(encoded) // 2])  # the header is whole, the pixels are not
    cut.with_suffix(".png").unlink()
    (write_plane_scene(data / "plane") / "cameras.npz").write_bytes(b"")
    out = tmp_path / "out"
    code = main(["evaluate", str(data), "-f", "opencv-sift", "opencv-orb", "-o", str(out), "-q", "--no-geometry"])
    assert code == 1
    text = (out / "report.md").read_text()
    assert "3 pairs, 0 failed, 3 skipped." in text
    assert "- all: cut 1–2 skipped: cannot read" in text
    assert "- all: headless 1–3 skipped: image 1 is missing" in text
    assert r"- all: plane \*–\* skipped:" in text
    rows = json.loads((out / "results.json").read_text())["features"][0]["pairs"]
    assert [len(rows[g]) for g in ("homography", "posed")] == [6, 1]
    robust = ["-p", "robustness", "-f", "opencv-orb", "-o", str(tmp_path / "warped"), "-q"]
    assert main(["evaluate", str(data), *robust]) == 1
    assert r"plane \*–\*@rotate90 skipped" in capsys.readouterr().out


def test_damaged_depth_skips_in_memory_too(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "plane")
    whole = (root / "depth" / "1.png").read_bytes()
    (root / "depth" / "1.png").write_bytes(whole[: len(whole) // 2])
    sequence = HomographySequence.load(write_sequence(tmp_path / "seq", SAME))
    found = features(grid_points(), unit_vectors(len(grid_points())))
    scores = evaluate_feature(lambda image: found, [PosedScene.load(root), sequence])
    assert (scores["pairs"], scores["failed"], scores["skipped"]) == (2, 0, 1)
    assert scores["matching_score"] == 1
