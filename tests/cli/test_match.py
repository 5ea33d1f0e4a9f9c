"""``kornia-lift match`` on images whose true motion is known."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kornia_lift import LIFTDetector
from kornia_lift.cli import build_parser
from kornia_lift.cli._feature import make_lift_feature, provenance
from tests.helpers.cli import Call, astronaut, one_line, save

SHIFT = 12  # pixels to the left in the second image


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    pixels = astronaut(192)
    return save(tmp_path / "a.png", pixels[:, :-SHIFT]), save(tmp_path / "b.png", pixels[:, SHIFT:])


def test_report_and_picture(call: Call, pair: tuple[Path, Path]) -> None:
    answer = call("match", *pair, "-n", 200, "--geometry", "homography")
    assert answer.code == 0
    assert answer.err == ""
    for word in ("keypoints A", "keypoints B", "putative", "verified", "USAC_MAGSAC", "detector", "lift_matches.jpg"):
        assert word in answer.out
    with Image.open("lift_matches.jpg") as picture:
        assert picture.size == (2 * (192 - SHIFT) + 8, 192)
    assert sorted(p.name for p in Path().iterdir()) == ["a.png", "b.png", "lift_matches.jpg"]


def test_json_holds_the_true_motion(call: Call, pair: tuple[Path, Path]) -> None:
    answer = call("match", *pair, "-n", 200, "--geometry", "homography", "--json")
    assert answer.code == 0
    report = json.loads(answer.out)
    rows = np.array(report["matches"]["rows"], dtype=float)
    assert len(rows) == report["putative"] >= report["verified"] >= 50
    verified = rows[rows[:, 5] == 1]
    assert len(verified) == report["verified"]
    assert np.abs(verified[:, 0] - SHIFT - verified[:, 2]).max() < 2.5
    assert np.abs(verified[:, 1] - verified[:, 3]).max() < 2.5
    matrix = np.array(report["matrix"])
    np.testing.assert_allclose(matrix @ [90, 90, 1] / (matrix @ [90, 90, 1])[2], [90 - SHIFT, 90, 1], atol=0.5)
    assert (np.diff(rows[:, 4]) <= 0).all()
    assert report["images"][0]["size"] == [192 - SHIFT, 192]
    assert report["picture"] is None
    assert not Path("lift_matches.jpg").exists()
    assert {"reading", "detector", "descriptor", "matching", "verification"} <= report["seconds"].keys()


def test_fundamental_matrix_by_default(call: Call, pair: tuple[Path, Path]) -> None:
    report = json.loads(call("match", *pair, "-n", 200, "--json").out)
    assert report["geometry"] == "fundamental"
    rows = np.array(report["matches"]["rows"], dtype=float)
    points = [np.c_[rows[:, k : k + 2], np.ones(len(rows))] for k in (0, 2)]
    lines = points[0] @ np.array(report["matrix"]).T
    distance = np.abs((lines * points[1]).sum(1)) / np.hypot(lines[:, 0], lines[:, 1])
    assert distance[rows[:, 5] == 1].max() < 4


def test_positions_are_those_of_the_image_when_reduced(call: Call, tmp_path: Path) -> None:
    pixels = astronaut(384)
    first = save(tmp_path / "a.png", pixels)
    report = json.loads(call("match", first, first, "-n", 150, "--resize", 192, "--json").out)
    assert report["images"][0]["size"] == [384, 384]
    rows = np.array(report["matches"]["rows"])
    assert 200 < rows[:, :4].max() < 384


def test_16_bit_gray_with_alpha_and_exif(call: Call, tmp_path: Path) -> None:
    """The same image in every dress matches itself."""
    import cv2

    pixels = astronaut(160)
    plain = save(tmp_path / "plain.png", pixels)
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), pixels[..., ::-1].astype(np.uint16) * 257)
    alpha = save(tmp_path / "alpha.png", np.concatenate([pixels, np.full((160, 160, 1), 255, np.uint8)], 2))
    gray = save(tmp_path / "gray.png", np.asarray(Image.fromarray(pixels).convert("L")))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    rotated = tmp_path / "rotated.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(rotated, exif=exif)
    for other in (deep, alpha, gray, rotated):
        report = json.loads(call("match", plain, other, "-n", 100, "--geometry", "homography", "--json").out)
        rows = np.array(report["matches"]["rows"], dtype=float)
        assert report["verified"] > 50, other
        assert np.median(np.hypot(*(rows[:, :2] - rows[:, 2:4]).T)) < 0.1, other


def test_infinite_threshold_is_valid_json(call: Call, pair: tuple[Path, Path]) -> None:
    answer = call("match", *pair, "-n", 60, "--threshold", "inf", "--json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(answer.out, parse_constant=refuse)["threshold"] is None


def test_report_says_how_many_matches_the_picture_shows(call: Call, pair: tuple[Path, Path]) -> None:
    answer = call("match", *pair, "-n", 400)
    verified = int(re.search(r"verified +(\d+)", answer.out)[1])
    assert verified > 150
    assert f"(150 of the {verified} verified matches, evenly chosen)" in answer.out
    answer = call("match", *pair, "-n", 60)
    verified = int(re.search(r"verified +(\d+)", answer.out)[1])
    assert f"({verified} verified matches)" in answer.out


def test_unrelated_images_probably_do_not_overlap(call: Call, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (192, 192, 3)).astype(np.uint8)
    first, second = save(tmp_path / "a.png", astronaut(192)), save(tmp_path / "b.png", noise)
    answer = call("match", first, second, "-n", 300, "--ratio", 1)
    assert answer.code == 1
    assert "the images probably do not overlap" in answer.out
    report = json.loads(call("match", first, first, "-n", 300, "--json").out)
    assert report["overlap"] is True and report["log10_false_alarms"] < -100


def test_nothing_to_match(call: Call, tmp_path: Path) -> None:
    blank = save(tmp_path / "blank.png", np.full((64, 64, 3), 128, np.uint8))
    answer = call("match", blank, blank, "-n", 20, "--out", "m.png")
    assert answer.code == 1
    assert "no common fundamental matrix" in answer.out
    assert "no keypoints in A and B: too small, or without texture" in answer.out
    assert Path("m.png").exists()
    report = json.loads(call("match", blank, blank, "-n", 20, "--json").out)
    assert (report["putative"], report["verified"], report["matrix"], report["overlap"]) == (0, 0, None, None)


def test_a_thumbnail_has_too_few_keypoints_to_tell(call: Call, tmp_path: Path) -> None:
    """Its scene is the same: that there is no overlap would be wrong."""
    picture = astronaut(256)
    first, second = save(tmp_path / "a.png", picture), save(tmp_path / "b.png", picture[::5, ::5].copy())
    answer = call("match", first, second, "-n", 300)
    assert answer.code == 1
    assert re.search(
        r"overlap +unknown +too few keypoints to tell \(\d+ in B; fewer than 200 often do not suffice\)", answer.out
    )
    report = json.loads(call("match", first, second, "-n", 300, "--json").out)
    assert report["overlap"] is None


def test_bad_images_end_with_one_line(call: Call, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(pair[0].read_bytes()[:1000])
    for bad, reason in {
        "text.jpg": "no image of a known kind",
        "empty.png": "cannot read",
        "cut.png": "cannot read",
        "absent.jpg": "does not exist",
        ".": "is a folder",
    }.items():
        answer = call("match", pair[0], bad, "--out", "m.png")
        assert answer.code == 2, bad
        assert answer.out == ""
        assert reason in one_line(answer.err)
        assert bad.strip(".") in answer.err
        assert not Path("m.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "m.gif"], r"the name of a picture must end in .jpg"),
        (["--out", "absent/m.png"], "the folder absent does not exist"),
        (["--num-features", "0"], "expected a whole number from 1 to 1000000, got '0'"),
        (["--num-features", "99999999999"], "expected a whole number from 1 to 1000000, got '99999999999'"),
        (["--device", "meta"], "--device expects a device of this machine (auto, cpu"),
        (["--device", "hpu"], "got 'hpu': "),
        (["--ratio", "1.5"], "above 0 and at most 1, got '1.5'"),
        (["--threshold", "nan"], "expected a number above 0, got 'nan'"),
        (["--device", "toaster"], "got 'toaster': PyTorch knows no such device"),
        (["--geometry", "affine"], "choose from"),
        (["--num", "3"], "unrecognized arguments: --num 3"),
    ],
)
def test_bad_options_end_with_one_line(call: Call, pair: tuple[Path, Path], options: list[str], message: str) -> None:
    answer = call("match", *pair, *options)
    assert answer.code == 2
    assert message in one_line(answer.err)
    assert sorted(p.name for p in Path().iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_results_record_the_scale_space_of_the_model(model: str) -> None:
    args = build_parser().parse_args(["match", "a.png", "b.png", "--model", model, "-n", "10"])
    detector = make_lift_feature(args).detector
    assert isinstance(detector, LIFTDetector)
    assert provenance(args)["scale_space"] == repr(detector.config)


@pytest.mark.parametrize("how", ["itself", "link", "default"])
def test_a_image_is_not_replaced_by_the_picture(call: Call, pair: tuple[Path, Path], how: str) -> None:
    first, second = pair
    if how == "default":
        second = second.rename("lift_matches.jpg")
    elif how == "link":
        Path("m.png").symlink_to(second)
    before = second.read_bytes()
    options = {"itself": ["--out", second.name], "link": ["--out", "m.png"], "default": []}[how]
    answer = call("match", first, second, *options, make_feature=never)
    assert answer.code == 2
    assert "one of the images to match" in one_line(answer.err)
    assert second.read_bytes() == before


def never(args: argparse.Namespace) -> nn.Module:
    """The error is to be found before anything is computed."""
    raise AssertionError("a feature was built")


def test_folder_that_cannot_be_written_is_found_first(
    call: Call, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**options: object) -> None:
        raise PermissionError(13, "Permission denied", "some temporary name")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    answer = call("match", *pair, "--out", "m.png", make_feature=never)
    assert answer.code == 2
    assert one_line(answer.err) == "kornia-lift: cannot write m.png: Permission denied (folder .)"


def test_too_little_memory_ends_with_one_line(call: Call, pair: tuple[Path, Path]) -> None:
    class Greedy(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.empty(1 << 60)  # what torch says of it is what is to be recognised

    answer = call("match", *pair, make_feature=lambda args: Greedy())
    assert answer.code == 2
    assert one_line(answer.err) == "kornia-lift: out of memory: use a smaller --resize or --num-features"


class Nothing(nn.Module):
    """A feature that finds no keypoint."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros(1, 1, 2, 3), torch.zeros(1, 1), torch.zeros(1, 1, 128)


def test_picture_of_a_tall_image(call: Call, tmp_path: Path) -> None:
    """WebP holds 16383 pixels: found after all the work, if the picture is not reduced."""
    tall = save(tmp_path / "tall.png", np.zeros((17000, 16), dtype=np.uint8))
    assert call("match", tall, tall, "--out", "m.webp", make_feature=lambda args: Nothing()).code == 1
    with Image.open("m.webp") as picture:
        assert picture.height == 8000


def test_rotated_image(call: Call, tmp_path: Path) -> None:
    """The matrix that is found is the rotation that was made."""
    pixels = astronaut(192)
    first, second = save(tmp_path / "a.png", pixels), save(tmp_path / "b.png", np.ascontiguousarray(np.rot90(pixels)))
    report = json.loads(call("match", first, second, "-n", 300, "--geometry", "homography", "--json").out)
    matrix = np.array(report["matrix"])
    angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    assert angle == pytest.approx(-90, abs=1)  # counter-clockwise on screen, y down


@pytest.fixture
def filter_file(tmp_path: Path) -> Path:
    """A network that keeps every match with a small ratio, whatever its position."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    from kornia_lift.networks.correspondence import CorrespondenceNet

    network = CorrespondenceNet(channels=4, blocks=1, side=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.input.weight[0, 4] = -1.0  # of the ratio, centred at 0.9
        network.output.weight[0, 0] = 1.0
    path = tmp_path / "filter.safetensors"
    save_file({f"correspondence.{n}": t for n, t in network.state_dict().items()}, path)
    return path


def test_learned_filter_chooses_the_putative_matches(call: Call, pair: tuple[Path, Path], filter_file: Path) -> None:
    answer = call("match", *pair, "-n", 200, "--geometry", "homography", "--json", "--filter", filter_file)
    report = json.loads(answer.out)
    assert report["filter"] == str(filter_file)
    assert report["ratio"] is None
    assert report["putative"] >= report["verified"] >= 50
    rows = np.array(report["matches"]["rows"], dtype=float)
    assert (np.diff(rows[:, 4]) <= 0).all()
    text = call("match", *pair, "-n", 200, "--geometry", "homography", "--filter", filter_file)
    assert "filter keeps" in text.out


@pytest.mark.parametrize("wrong", ["nonsense", "missing.safetensors", "lift"])
def test_wrong_filter_is_said(call: Call, pair: tuple[Path, Path], wrong: str) -> None:
    answer = call("match", *pair, "-n", 50, "--filter", wrong)
    assert answer.code == 2
    assert "--filter" in one_line(answer.err)


def test_float16_on_a_cpu_is_said_to_be_slow(call: Call, tmp_path: Path) -> None:
    blank = save(tmp_path / "blank.png", np.full((40, 40, 3), 128, np.uint8))
    answer = call("match", blank, blank, "-n", 5, "--out", "m.png", "--dtype", "float16", "--device", "cpu")
    assert "float16 is slow on a CPU; take float32 or bfloat16 there" in answer.err


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine computes there")
def test_a_device_that_is_not_there_is_said_in_a_line(call: Call, tmp_path: Path) -> None:
    blank = save(tmp_path / "blank.png", np.full((40, 40, 3), 128, np.uint8))
    answer = call("match", blank, blank, "--device", "mps")
    assert answer.code == 2 and "got 'mps': " in answer.err
    assert len(answer.err) < 400  # PyTorch lists all of its backends
