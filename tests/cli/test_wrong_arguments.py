"""The wrong ways in: a name that is misspelt, a file that is not there; one line says what was meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.cli import Call, one_line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("mach a.png b.png", "invalid choice: 'mach'"),
        ("mach a.png b.png", "did you mean match? (see kornia-lift --help)"),
        ("extrct images", "did you mean extract?"),
        ("--versoin", "kornia-lift: unrecognized arguments: --versoin; did you mean --version?"),
        (
            "train modern --stage refine",
            "kornia-lift train: unrecognized arguments: --stage refine; did you mean --stages? (see kornia-lift train",
        ),
        (
            "match a.png b.png --num-feature 10",
            "unrecognized arguments: --num-feature 10; did you mean --num-features?",
        ),
        ("match a.png b.png --modle=lift", "unrecognized arguments: --modle=lift; did you mean --model?"),
        ("match a.png b.png --num 3", "unrecognized arguments: --num 3; did you mean --num-features?"),
        ("evaluate scenes --feat lift", "unrecognized arguments: --feat lift; did you mean --features?"),
        ("compare r.json a b --oth s.json", "unrecognized arguments: --oth s.json; did you mean --other?"),
        ("match a.png b.png --geometry homografy", "did you mean homography?"),
        ("demo picture.png", "kornia-lift demo: unrecognized arguments: picture.png (see"),
        ("train modrn", "no recipe 'modrn': expected one of compact, correspondences, lfnet, modern, paper, tilde"),
        ("train tilde --init lift", "the recipe 'tilde' starts from random weights only; leave out --init"),
        ("train tilde --stages tilde", "--stages is not for the recipe 'tilde'; leave it out"),
        ("train modern --features lift", "--features is not for the recipe 'modern'; leave it out"),
        (f"train modern --data d --out {__file__}/run", f"{__file__} is not a folder; choose another --out"),
        ("train modern", "modern reads 'data', which does not exist here; name your data: --data PATH"),
        ("train tilde", "tilde reads 'data', which does not exist here; name your data: --data PATH"),
        ("train modern --data d --max-minutes ten", "expected a number above 0, got 'ten'"),
        ("compare results.json a b", "results.json: No such file or directory"),
        ("patches absent", "absent is not a folder"),
        ("patches absent -d sfit", "unknown descriptor 'sfit': expected one of sift, rootsift, tfeat, lift"),
    ],
)
def test_one_line_says_what_was_meant(call: Call, arguments: str, said: str) -> None:
    answer = call(*arguments.split())
    assert answer.code == 2
    assert said in one_line(answer.err)
    assert list(Path().iterdir()) == []


def test_nothing_is_suggested_for_what_resembles_nothing(call: Call) -> None:
    for arguments in (("frobnicate",), ("demo", "--frobnicate"), ("demo", "-z")):
        assert "did you mean" not in one_line(call(*arguments).err)


def test_a_value_that_begins_with_a_dash_is_not_taken_for_an_option(call: Call) -> None:
    assert "expected a whole number, 0 or larger, got '-3'" in one_line(call("match", "a", "b", "--resize", "-3").err)


def test_a_device_that_is_none(call: Call, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("a.png")
    answer = call("train", "paper", "--data", "a.png", "--device", "gpu")
    assert answer.code == 2
    assert "device expects a device of this machine (auto, cpu" in one_line(answer.err)


@pytest.mark.parametrize("option", ["--num-features", "--max-pairs"])
@pytest.mark.parametrize("value", ["-3", "1.5", "many"])
def test_counts_of_evaluate_are_checked_before_anything_is_read(call: Call, option: str, value: str) -> None:
    answer = call("evaluate", "absent", f"{option}={value}")
    assert answer.code == 2
    assert f"{option}: expected a whole number" in one_line(answer.err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pairs", "absent.txt"], "absent.txt: No such file or directory"),
        (["--pairs", "pairs.txt"], "pairs.txt, line 1: there are no features of the image 'c.png'"),
        (["--camera", "PINHOLE,1,2"], "the model PINHOLE does not have 2 parameters"),
        (["--camera", "FISHEYE,1,2"], "camera 'FISHEYE,1,2'"),
    ],
)
def test_reconstruct_checks_its_options_before_it_extracts(call: Call, options: list[str], said: str) -> None:
    pytest.importorskip("pycolmap")
    Path("images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(f"images/{name}")
    Path("pairs.txt").write_text("a.png c.png\n")
    answer = call("reconstruct", "images", "--out", "model", *options)
    assert answer.code == 2
    assert said in one_line(answer.err)
    assert not Path("model").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("reconstruct", "images"),
        ("export-onnx",),
        ("evaluate", "images"),
        ("build-dataset", "images"),
        ("train", "paper", "--data", "images"),
    ],
)
@pytest.mark.parametrize("out", ["a.png", "a.png/below"])
def test_a_file_where_a_folder_is_to_be_written(call: Call, command: tuple[str, ...], out: str) -> None:
    Path("images").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("images/b.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("a.png")
    answer = call(*command, "--out", out)
    assert answer.code == 2
    assert one_line(answer.err) == f"kornia-lift: --out {out}: a.png is not a folder; choose another --out"


def test_a_file_as_cache(call: Call) -> None:
    Path("cache").touch()
    answer = call("evaluate", ".", "--cache", "cache")
    assert answer.code == 2
    assert "--cache cache: cache is not a folder" in one_line(answer.err)


@pytest.mark.parametrize("command", [("train", "paper", "--data"), ("check-dataset",)])
def test_an_image_is_no_data_set_and_nobody_is_told_to_delete_it(call: Call, command: tuple[str, ...]) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("a.png")
    answer = call(*command, "a.png")
    assert answer.code == 2
    said = one_line(answer.err)
    assert "expected a folder of images or a store of `kornia-lift build-dataset` (.npz), got a.png" in said


@pytest.mark.parametrize(
    ("given", "meant"), [("lift_plus", "lift-plus"), ("LIFT", "lift"), ("lift-uprigth", "lift-upright")]
)
def test_a_model_that_was_probably_meant(call: Call, given: str, meant: str) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("a.png")
    answer = call("match", "a.png", "a.png", "--out", "m.png", "--model", given, make_feature=None)
    assert answer.code == 2
    assert one_line(answer.err).endswith(f"; did you mean {meant}?")


def test_no_model_is_suggested_for_what_resembles_none(call: Call) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("a.png")
    answer = call("match", "a.png", "a.png", "--out", "m.png", "--model", "surf", make_feature=None)
    assert "did you mean" not in one_line(answer.err)
