"""`kornia-lift build-dataset`: from images, scenes and sequences to one file, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.training.data.prepare import build, read
from kornia_lift.training.data.store import Store, load_store
from tests.helpers.training import picture


def test_build_dataset_from_single_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), picture(5))
    (tmp_path / "bare").mkdir()
    out = tmp_path / "set"
    folders = [str(tmp_path / "photos"), str(tmp_path / "bare")]
    assert main(["build-dataset", *folders, "--single", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "photos.npz: 1 image," in said.out
    assert "bare: holds no image" in said.err
    assert load_store(out / "photos.npz").names == ("photos/a.png",)
    assert main(["build-dataset", folders[1], "--single", "--out", str(out)]) == 2


def test_a_data_set_is_built_without_the_scene_that_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What minutes of reading found is not lost for one dull scene, and every scene is named when its turn comes."""
    cv2 = pytest.importorskip("cv2")
    data = tmp_path / "data"
    (data / "photos").mkdir(parents=True)
    cv2.imwrite(str(data / "photos" / "a.png"), picture(5))
    for name in ("dull", "room"):
        folder = data / "illumination" / name
        folder.mkdir(parents=True)
        for gain in (0.6, 1.1):
            shown = picture(6) * gain if name == "room" else np.full((90, 120), 100.0)
            cv2.imwrite(str(folder / f"{gain}.png"), shown.clip(0, 255).astype(np.uint8))
    assert main(["build-dataset", str(data), "--out", str(tmp_path / "set")]) == 0
    said = capsys.readouterr()
    assert "reading illumination/dull (exposures), 1 of 3" in said.err
    assert "left out: illumination/dull: no SIFT keypoint in 2 images" in said.err
    assert load_store(tmp_path / "set" / "data.npz").scenes == ("illumination/room", "photos/a.png")
    shutil.rmtree(data / "photos")
    shutil.rmtree(data / "illumination" / "room")
    assert main(["build-dataset", str(data), "--out", str(tmp_path / "none")]) == 2
    assert "illumination/dull: no SIFT keypoint" in capsys.readouterr().err


def test_build_dataset_without_a_scene_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("pycolmap")
    photos = tmp_path / "photos"
    photos.mkdir()

    def complaint() -> str:
        assert main(["build-dataset", str(photos), "--out", str(tmp_path / "set")]) == 2
        return capsys.readouterr().err

    (photos / "church").mkdir()
    cv2.imwrite(str(photos / "church" / "0.png"), picture(1))
    assert f"its sub-folders hold images: give each of them, as in {photos / 'church'}" in complaint()
    shutil.rmtree(photos / "church")
    cv2.imwrite(str(photos / "0.png"), picture(1))
    assert "holds 1 image, at least 3 of one scene are needed; for single images use --single" in complaint()
    for i in (1, 2):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((90, 120), 100, np.uint8))
    assert "no reconstruction results from the 3 images" in complaint()
    (photos / "3.jpg").write_bytes(b"no picture")
    assert "3.jpg as an image" in complaint()
    assert not (tmp_path / "set" / "reconstructions" / "photos").exists()


@pytest.mark.parametrize("full", ["from the start", "while images are written"])
def test_a_full_disk_is_said_before_colmap_ends_the_process(
    full: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2 = pytest.importorskip("cv2")
    pycolmap = pytest.importorskip("pycolmap")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        cv2.imwrite(str(photos / f"{i}.png"), picture(i))
    usage = shutil.disk_usage(tmp_path)
    if full == "from the start":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    else:
        monkeypatch.setattr(cv2, "imwrite", lambda *arguments: False)
    monkeypatch.setattr(pycolmap, "extract_features", lambda *args, **options: pytest.fail("runs COLMAP"))
    assert main(["build-dataset", str(photos), "--out", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    expected = {"from the start": "12 MiB are needed for the reconstruction of 3 images, 1 MiB are free"}
    assert expected.get(full, "is the disk full?") in said
    assert list((tmp_path / "set" / "reconstructions").iterdir()) == []


def test_wrong_options_are_said_before_anything_is_reconstructed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "reconstruct", lambda *args, **options: pytest.fail("reconstructs"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for option, value, message in (
        ("--quality", "300", "quality must be at most 100"),
        ("--max-size", "10", "max_size must be at least 64"),
        ("--seed", "-1", "seed must be at least 0"),
    ):
        assert main(["build-dataset", str(photos), "--out", str(tmp_path / "set"), option, value]) == 2
        assert message in capsys.readouterr().err


def test_build_dataset_never_takes_one_folder_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    church, other = tmp_path / "y1" / "church", tmp_path / "y2" / "church"
    for number, folder in enumerate((church, other)):
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "a.png"), picture(number))
    out = tmp_path / "set"

    def build(*more: str) -> tuple[int, str]:
        code = main(["build-dataset", *more, "--single", "--out", str(out)])
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = build(str(church), str(other))
    assert code == 2 and "would both become church.npz" in said
    assert not out.exists()
    assert build(str(church))[0] == 0
    before = (out / "church.npz").read_bytes()
    code, said = build(str(church))
    assert code == 0 and "kept" in said
    code, said = build(str(other))
    assert code == 2 and "church.npz exists and was made of something else" in said
    assert f"delete {out / 'church.npz'} and {out / 'church.json'} to make it again" in said
    cv2.imwrite(str(church / "b.png"), picture(3))
    code, said = build(str(church))
    assert code == 2 and "1 file added (b.png)" in said
    (church / "b.png").unlink()
    code, said = build(str(church), "--quality", "70")
    assert code == 2 and "quality was 88, is 70" in said
    (out / "church.json").unlink()
    code, said = build(str(church))
    assert code == 2 and "church.json beside it" in said and f"delete {out / 'church.npz'} to make it again" in said
    assert (out / "church.npz").read_bytes() == before
    (out / "church.npz").unlink()
    assert build(str(church))[0] == 0


def test_a_reconstruction_of_other_images_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2")
    calls: list[int] = []

    def reconstruct(folder: Path, out: Path, *, max_size: int, seed: int, say: object) -> Path:
        calls.append(max_size)
        if len(calls) == 1:
            raise ValueError("too few matches")
        (out / "sparse").mkdir(parents=True)
        return out

    def read_source(source: object, options: object, say: object) -> Store:
        raise ValueError("nothing seen twice")

    monkeypatch.setattr(build, "reconstruct", reconstruct)
    monkeypatch.setattr(read, "read_source", read_source)
    (tmp_path / "church").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "church" / f"{number}.png"), picture(number, 80))

    def complaint(*more: str) -> str:
        arguments = ["build-dataset", str(tmp_path / "church"), "--out", str(tmp_path / "set")]
        assert main([*arguments, *more]) == 2
        return capsys.readouterr().err

    assert "too few matches" in complaint()
    assert not (tmp_path / "set" / "reconstructions" / "church.json").exists()
    assert "nothing seen twice" in complaint()
    assert "nothing seen twice" in complaint("--quality", "70")
    assert calls == [1024, 1024]  # the reconstruction was used again
    assert "max_size was 1024, is 512" in complaint("--max-size", "512")
    cv2.imwrite(str(tmp_path / "church" / "3.png"), picture(3, 80))
    assert "1 file added (3.png)" in complaint()


def test_build_dataset_from_a_homography_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "wall"
    folder.mkdir()
    rotated = cv2.getRotationMatrix2D((210, 210), 20, 1.0)
    base = picture(4)
    for number, image in ((1, base), (2, cv2.warpAffine(base, rotated, base.shape)), (3, base)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    np.savetxt(folder / "H_1_2", np.vstack([rotated, [0, 0, 1]]))
    assert main(["build-dataset", str(folder), "--out", str(tmp_path / "set")]) == 0
    assert "H_1_3 is missing" in capsys.readouterr().err
    store = load_store(tmp_path / "set" / "wall.npz")
    table = store.with_sift_frames()
    assert set(table.image.tolist()) == {0, 1}
    assert len(np.unique(table.point)) > 20
    for point in np.unique(table.point):
        (one,), (two,) = (np.flatnonzero((table.point == point) & (table.image == i)) for i in (0, 1))
        moved = rotated @ np.append(table.xy[one], 1)
        assert np.hypot(*(moved - table.xy[two])[:2]) < 3.5


@pytest.mark.slow
def test_build_dataset_reconstructs_a_scene(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycolmap")
    photos = shared / "data" / "train" / "sfm" / "lund_door" / "images"
    arguments = ["build-dataset", str(photos), "--out", str(tmp_path), "--max-size", "640"]
    assert main(arguments) == 0
    store = load_store(tmp_path / "images.npz")
    assert len(store.names) >= 6
    assert len(np.unique(store.tracks.point)) > 100
    assert main(arguments) == 0
    assert "kept" in capsys.readouterr().out
    assert main([*arguments[:-1], "480"]) == 2
    assert "max_size was 640, is 480" in capsys.readouterr().err
    (tmp_path / "images.npz").unlink()
    assert main([*arguments[:-1], "480"]) == 2
    said = capsys.readouterr().err
    assert "reconstructions/images exists and was made of something else" in said
    assert main(arguments) == 0
    assert "reconstruction from" not in capsys.readouterr().err


def test_build_dataset_names_damaged_images_and_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_store: Store
) -> None:
    """OpenCV fills a JPEG that is cut off with gray; pycolmap raises what damaged bytes lead to."""
    pytest.importorskip("pycolmap")

    def complaint(*more: str) -> str:
        assert main(["build-dataset", *more, "--out", str(tmp_path / "set")]) == 2
        return capsys.readouterr().err

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.jpg").write_bytes(tiny_store.images[0].jpeg)
    (photos / "1.jpg").write_bytes(tiny_store.images[0].jpeg[:5000])
    for more in ([], ["--single"]):
        assert "1.jpg as an image" in complaint(str(photos), *more)
    model = tmp_path / "scene" / "sparse"
    model.mkdir(parents=True)
    (tmp_path / "scene" / "images").mkdir()
    for name in ("cameras", "images", "points3D"):
        (model / f"{name}.bin").write_bytes(b"\x05")
    said = complaint(str(tmp_path / "scene"))
    assert "is damaged or incomplete" in said and "Traceback" not in said
