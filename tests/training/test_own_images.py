"""Both recipes on data of one's own: they split, train every stage, and say what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kornia_lift import LIFTFeature
from kornia_lift.cli import main
from tests.helpers.tiny_recipes import TINY, TINY_PAPER
from tests.helpers.training import picture

STAGES = ("descriptor", "orientation", "repeatable", "matchable", "refine")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"holiday{i}.jpg"), picture(i, 200))
    return folder


def write_config(tmp_path: Path, data: Path, text: str = TINY) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text.format(data=data.as_posix()))
    return path


@pytest.mark.parametrize("layout", ["plain", "photos", "store"])
def test_all_stages_train_on_images(tmp_path: Path, images: Path, layout: str) -> None:
    pytest.importorskip("safetensors")
    data = images
    if layout == "photos":
        data = tmp_path / "data"
        data.mkdir()
        images.rename(data / "photos")
    if layout == "store":
        data = tmp_path / "dataset"
        assert main(["build-dataset", str(images), "--single", "--out", str(data)]) == 0
        shutil.rmtree(images)
    stages = STAGES if layout == "plain" else ("descriptor", "repeatable")
    out = tmp_path / "run"
    assert main(["train", str(write_config(tmp_path, data)), "--out", str(out), "--stages", *stages]) == 0
    split = json.loads((out / "split.json").read_text())
    assert (len(split["training"]), len(split["held_out"])) == (2, 1)
    assert all((out / name / "best.pt").is_file() for name in stages)
    LIFTFeature(10, pretrained=out / "weights.safetensors")


@pytest.mark.parametrize("stage", ["matchable", "refine"])
def test_no_stage_trains_through_random_networks(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    config = write_config(tmp_path, images)
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--stages", stage]) == 2
    assert "run/descriptor/best.pt is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_store_of_scenes_trains_both_recipes_as_their_folders_do(tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("pycolmap")
    data = tmp_path / "data"
    for name in ("kermit", "et"):
        shutil.copytree(shared / "data" / "train" / "sfm" / name, data / "sfm" / name)
    assert main(["build-dataset", str(data), "--out", str(tmp_path / "set")]) == 0
    sides = []
    for number, (text, source) in enumerate(((TINY, tmp_path / "set"), (TINY_PAPER, tmp_path / "set"), (TINY, data))):
        config, out = write_config(tmp_path, source, text), tmp_path / str(number)
        # the detector is ranked on the pairs of the scenes
        stages = ["descriptor"] if number else ["descriptor", "orientation", "repeatable", "matchable"]
        assert main(["train", str(config), "--out", str(out), "--stages", *stages]) == 0
        sides.append(json.loads((out / "split.json").read_text()))
    assert [each.pop("recipe") for each in sides] == ["modern", "paper", "modern"]
    assert sides[0] == sides[1] == sides[2]
    assert sorted(sides[0]["training"] + sides[0]["held_out"]) == ["sfm/et", "sfm/kermit"]
    shutil.rmtree(data / "sfm" / "kermit")
    config = write_config(tmp_path, data)
    assert main(["train", str(config), "--out", str(tmp_path / "one"), "--stages", "descriptor"]) == 0
    split = json.loads((tmp_path / "one" / "split.json").read_text())
    assert (len(split["training"]), len(split["held_out"])) == (7, 2)


def test_what_is_missing_is_said(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")

    def complaint(data: Path, *more: str) -> str:
        config = write_config(tmp_path, data)
        assert main(["train", str(config), "--out", str(tmp_path / "run"), *more]) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    one = tmp_path / "one"
    one.mkdir()
    assert "holds no images" in complaint(one)
    shutil.copy(images / "holiday0.jpg", one)
    assert "leave nothing to hold out" in complaint(one)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(2):
        cv2.imwrite(str(flat / f"{i}.png"), picture(i, 200) * 0 + 90 + i)
    assert "no SIFT keypoint in 2 images" in complaint(flat)


def test_check_dataset_says_what_is_there_and_what_is_missing(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-dataset", str(images)]) == 0
    said = capsys.readouterr().out
    assert "3 images in 3 scenes" in said
    assert "held out: mine/holiday" in said
    assert "too little for all stages of the paper's recipe" in said
    assert main(["check-dataset", str(images / "none")]) == 2


def test_check_dataset_fails_where_nothing_can_be_trained(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for number, folder in enumerate((one, other)):
        folder.mkdir()
        shutil.copy(images / f"holiday{number}.jpg", folder)
    assert main(["check-dataset", str(one)]) == 1
    said = capsys.readouterr().out
    assert "nothing can be held out" in said and said.endswith(
        "nothing can be trained on these data, see the lines above\n"
    )
    assert main(["check-dataset", str(one), "--validation", str(other)]) == 0
    said = capsys.readouterr().out
    assert "held out: other/holiday1.jpg" in said and "training: 1 image;" in said and "nothing can" not in said
    assert main(["check-dataset", str(one), "--validation", str(one)]) == 2
    assert "images of the validation data are training data too" in capsys.readouterr().err
    assert main(["check-dataset", str(one), "--validation", str(tmp_path / "none")]) == 2


def test_a_run_refuses_data_that_changed_sides(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, images)
    command = ["train", str(config), "--out", str(tmp_path / "run"), "--stages", "repeatable"]
    assert main(command) == 0
    held_out = json.loads((tmp_path / "run" / "split.json").read_text())["held_out"]
    other = next(p.name for p in sorted(images.iterdir()) if f"mine/{p.name}" not in held_out)
    config.write_text(config.read_text() + f'[modern.split]\nheld_out = ["{other}"]\n')
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"mine/{other}" in said and held_out[0] in said and "changed between" in said


def test_a_run_refuses_other_data_and_another_recipe(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    out = tmp_path / "run"

    def train(data: Path, text: str = TINY) -> tuple[int, str]:
        code = main(["train", str(write_config(tmp_path, data, text)), "--out", str(out), "--stages", "descriptor"])
        return code, capsys.readouterr().err

    assert train(images)[0] == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix in (".json", ".pt", ".safetensors")}
    others = tmp_path / "others"
    others.mkdir()
    for i in range(3):
        cv2.imwrite(str(others / f"winter{i}.jpg"), picture(7 + i, 200))
    code, said = train(others)
    assert code == 2 and "the data differ from those that the run" in said and "without mine/holiday0.jpg" in said
    code, said = train(images, TINY_PAPER)
    assert code == 2 and "is of the recipe 'modern', not of 'paper'" in said
    assert {p: p.read_bytes() for p in before} == before
