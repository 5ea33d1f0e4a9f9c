"""From a config file to weights, through the command line as a user does it, and what it says when that fails."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.training.config import ConfigError, read_mapping
from kornia_lift.training.data.store import Store, load_store, save_store
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import read_run, with_budget
from tests.helpers.training import picture, with_image

TINY = """
recipe = "paper"
data = ["{folder}/store.npz"]
validation = ["{folder}/held_out"]
stages = ["overlap"]
table = false
[paper.overlap]
steps = 30
validate_every = 15
checkpoint_every = 2
log_every = 1
[paper.detector_options]
quadruplets = 4
mining_ratio = 1
validation_quadruplets = 20
"""


@pytest.fixture
def config(tiny_store: Store, tmp_path: Path) -> Path:
    save_store(tmp_path / "store.npz", tiny_store)
    held_out = tiny_store
    for index in range(3):
        held_out = with_image(held_out, index, tiny_store.decode(index).numpy(), 80)
    (tmp_path / "held_out").mkdir()
    save_store(tmp_path / "held_out" / "store.npz", held_out)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(folder=tmp_path.as_posix()))
    return path


@pytest.mark.parametrize("name", ["paper", "modern", "compact", "lfnet"])
def test_the_shipped_recipes_are_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(read_mapping(recipe_path(Path(name))))
    assert run.recipe == name
    assert run.chosen_stages
    monkeypatch.chdir(tmp_path)
    assert recipe_path(Path(f"{name}.toml")) == Path(f"{name}.toml")  # a path stays a path
    (tmp_path / name).touch()
    assert recipe_path(Path(name)) == Path(name)


def test_train_writes_weights_log_and_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(config), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    said = printed.out
    assert "stages: overlap (at most 30 steps); trained on 3 images of rotated, flat, " in printed.err
    assert "overlap: validation error" in said
    assert "not trained yet, random numbers in the weights: descriptor, orientation, detector\n" in said
    state = load_checkpoint(out / "overlap" / "last.pt")
    assert state["step"] == 30
    assert state["resolved"]["detector_options"]["quadruplets"] == 4
    lines = [json.loads(line) for line in (out / "overlap" / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in lines if e["kind"] == "train"] == list(range(1, 31))
    pytest.importorskip("safetensors")
    LIFTDescriptor(out / "weights.safetensors")
    assert main(["train", str(config), "--out", str(out)]) == 0  # nothing left to do


def test_max_minutes_ends_a_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("steps = 30", "steps = 1000000"))
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--max-minutes", "0.02"]) == 0
    said = capsys.readouterr().out
    assert "(out of time)" in said and "out of time: overlap; the same command with a larger --max-minutes" in said
    for minutes in ("-1", "0", "ten"):
        with pytest.raises(SystemExit):
            main(["train", str(config), "--out", str(tmp_path / "run"), "--max-minutes", minutes])
        assert f"expected a number above 0, got '{minutes}'" in capsys.readouterr().err


def test_a_budget_is_divided_over_the_chosen_stages() -> None:
    base = {"recipe": "paper", "data": ["x"], "stages": ["overlap", "detector"]}
    run = with_budget(read_run(base), 10)
    assert run.paper.overlap.max_minutes == run.paper.detector.max_minutes == 5
    assert run.paper.descriptor.max_minutes is None
    weighted = {"overlap": {"max_minutes": 30}, "detector": {"max_minutes": 10}}
    run = with_budget(read_run({**base, "paper": weighted}), 8)
    assert (run.paper.overlap.max_minutes, run.paper.detector.max_minutes) == (6, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "modernist"}, "recipe must be one of 'paper', 'modern', 'compact', 'lfnet', got 'modernist'"),
        ({"data": []}, "data names no training data"),
        ({"stages": ["describe"]}, "unknown stage 'describe'; the paper recipe has descriptor"),
        ({"modern": {}}, r"the table \[modern\] has no effect on the recipe 'paper'"),
        ({"paper": {"descriptor": {"step": 1}}}, r"unknown option paper\.descriptor\.step; valid are"),
        ({"paper": {"descriptor_options": {"validation_pairs": 0}}}, "validation_pairs must be at least 2, got 0"),
        ({"paper": {"descriptor_options": {"pairs": 0}}}, "paper.descriptor_options: pairs must be at least 1, got 0"),
        ({"paper": {"orientation_options": {"validation_pairs": 1}}}, "validation_pairs must be at least 2, got 1"),
        ({"paper": {"detector_options": {"validation_quadruplets": 0}}}, "validation_quadruplets must be at least 2"),
        ({"paper": {"split": {"share": 1.0}}}, "paper.split: the share held out must be"),
        ({"recipe": ["paper"]}, "recipe must be one of 'paper', 'modern', 'compact', 'lfnet', got"),
        ({"paper": {"descriptor": {"learning_rate": 10**400}}}, "learning_rate must be finite, got an integer of 401"),
        ({"paper": {"descriptor": {"steps": 10**400}}}, "steps must have at most 64 bits"),
        ({"paper": {"synthetic": {"zoom": 0.5}}}, "paper.synthetic: zoom must be at least 1, got 0.5"),
        ({"recipe": "modern", "modern": {"crops": {"max_step": 0.1}}}, "modern.crops: max_step must be at least 0.7"),
        ({"recipe": "modern", "modern": {"anchors_per_image": 1}}, "modern: anchors_per_image must be at least 2"),
    ],
)
def test_what_is_wrong_with_a_config_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_run({"recipe": "paper", "data": ["x"], **change})


def test_errors_of_the_data_are_one_line(
    config: Path, tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*more: str) -> str:
        assert main(["train", str(config), "--out", str(tmp_path / "run"), *more]) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    assert "build-dataset" in complaint("--data", str(tmp_path / "none.npz"))
    (tmp_path / "empty").mkdir()
    assert "holds no images" in complaint("--data", str(tmp_path / "empty"))
    store = tmp_path / "store.npz"
    store.write_bytes(store.read_bytes()[:3000])
    assert "truncated" in complaint()
    alone = tiny_store.tracks.take(tiny_store.tracks.point == 3)
    save_store(store, dataclasses.replace(tiny_store, tracks=alone))
    assert "at least two points" in complaint()
    config.write_text("recipe = ")
    assert "not well formed" in complaint()


@pytest.mark.parametrize("stage", ["orientation", "detector", "joint"])
def test_no_stage_trains_through_random_networks(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--stages", stage]) == 2
    assert "run/descriptor/best.pt is missing; train it first (`--stages descriptor" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_data_cannot_be_validation_data(
    config: Path, tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("other/0", "rotated/1", "other/2")
    images = tuple(dataclasses.replace(i, name=name) for i, name in zip(tiny_store.images, names, strict=True))
    renamed = dataclasses.replace(tiny_store, images=images)
    save_store(tmp_path / "renamed.npz", renamed)
    for path in ("store.npz", "renamed.npz"):
        more = ["--out", str(tmp_path / "run"), "--validation", str(tmp_path / path)]
        assert main(["train", str(config), *more]) == 2
        assert "3 of 3 images of the validation data are training data too" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_build_dataset_from_single_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), picture(5))
    (tmp_path / "bare").mkdir()
    out = tmp_path / "set"
    folders = [str(tmp_path / "photos"), str(tmp_path / "bare")]
    assert main(["build-dataset", *folders, "--single", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "photos.npz: 1 images" in said.out
    assert "bare: holds no image" in said.err
    assert load_store(out / "photos.npz").names == ("photos/a.png",)
    assert main(["build-dataset", folders[1], "--single", "--out", str(out)]) == 2


def test_build_dataset_without_a_scene_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("pycolmap")
    photos = tmp_path / "photos"
    photos.mkdir()

    def complaint() -> str:
        assert main(["build-dataset", str(photos), "--out", str(tmp_path / "set")]) == 2
        return capsys.readouterr().err

    cv2.imwrite(str(photos / "0.png"), picture(1))
    assert "holds 1 images" in complaint()
    for i in (1, 2):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((90, 120), 100, np.uint8))
    assert "no reconstruction results from the 3 images" in complaint()
    (photos / "3.jpg").write_bytes(b"no picture")
    assert "3.jpg as an image" in complaint()
    assert not (tmp_path / "set" / "reconstructions" / "photos").exists()


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
    cv2.imwrite(str(church / "b.png"), picture(3))
    code, said = build(str(church))
    assert code == 2 and "1 files were added (b.png)" in said
    (church / "b.png").unlink()
    code, said = build(str(church), "--quality", "70")
    assert code == 2 and "quality was 88, is 70" in said
    (out / "church.json").unlink()
    code, said = build(str(church))
    assert code == 2 and "church.json beside it" in said
    assert (out / "church.npz").read_bytes() == before
    (out / "church.npz").unlink()
    assert build(str(church))[0] == 0


def test_a_reconstruction_of_other_images_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2")
    from kornia_lift.training.data.prepare import build

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
    monkeypatch.setattr(build, "read_source", read_source)
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
    assert "1 files were added (3.png)" in complaint()


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


def test_a_device_that_is_not_there_is_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device, said in (("abacus", "'abacus' is not a device"), ("cuda:77", "device 'cuda:77' cannot be used here")):
        assert main(["train", str(config), "--out", str(tmp_path / "run"), "--device", device]) == 2
        assert said in capsys.readouterr().err
