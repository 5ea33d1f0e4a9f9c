"""The demo, the help texts, and what happens without the optional packages."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kornia.geometry.linalg import transform_points
from PIL import Image

from kornia_lift import __version__
from kornia_lift.cli import COMMANDS as TABLE
from kornia_lift.cli.demo import known_warp

from .conftest import Answer, one_line

Call = Callable[..., Answer]
COMMANDS = ["match", "extract", "merge", "demo"]


def test_demo_tells_the_true_precision(call: Call) -> None:
    answer = call("demo", "-n", 200, "--out", "d.png")
    assert answer.code == 0
    tentative, verified = map(
        float, re.search(r"true precision +([\d.]+) % of the tentative matches, ([\d.]+) % of", answer.out).groups()
    )
    assert 80 < tentative < verified <= 100
    with Image.open("d.png") as picture:
        assert picture.size == (1032, 512)
        greens = sum(n for n, (r, g, b) in picture.getcolors(1 << 24) if g > 200 and max(r, b) < 130)
        assert greens > 500


def test_demo_precision_falls_when_matches_are_wrong(call: Call) -> None:
    """Random descriptors match at random, and the report says so."""
    from kornia.feature import SIFTFeature

    def shuffled(args: argparse.Namespace) -> torch.nn.Module:
        feature = SIFTFeature(args.num_features)
        feature.register_forward_hook(lambda module, inputs, out: (*out[:2], torch.rand_like(out[2])))
        return feature

    answer = call("demo", "-n", 100, "--ratio", 1, make_feature=shuffled)
    precision = float(re.search(r"true precision +([\d.]+) % of the tentative", answer.out)[1])
    assert precision < 10


def test_known_warp_turns_counter_clockwise_about_the_centre() -> None:
    warp = known_warp(512, 512)
    ends = transform_points(warp, torch.tensor([[[255.5, 255.5], [256.5, 255.5]]]))[0]
    torch.testing.assert_close(ends[0], torch.tensor([255.5, 255.5]), atol=1e-3, rtol=0)
    step = ends[1] - ends[0]
    assert step[1] < 0 < step[0]
    assert float(torch.rad2deg(torch.atan2(-step[1], step[0]))) == pytest.approx(30, abs=0.5)


def test_help_lists_every_command(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command} +\w", answer.out, re.M), command
        sub = call(command, "--help")
        assert sub.code == 0
        assert f"usage: kornia-lift {command}" in sub.out


def test_help_fits_a_terminal_and_names_every_default(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for command in COMMANDS:
        text = call(command, "--help").out
        assert max(map(len, text.splitlines())) <= 120
        assert "%(default)" not in text


def test_version(call: Call) -> None:
    assert call("--version").out == f"kornia_lift {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["fly"]])
def test_no_or_unknown_command(call: Call, argv: list[str]) -> None:
    answer = call(*argv)
    assert answer.code == 2
    assert "kornia-lift --help" in one_line(answer.err)


def test_missing_package_names_the_extra(call: Call, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    answer = call("extract", folder, "--out", "f.h5")
    assert answer.code == 2
    assert "pip install 'kornia_lift[cli]'" in one_line(answer.err)


def test_unknown_model_is_one_line(call: Call, folder: Path) -> None:
    from kornia_lift.cli._options import make_lift_feature

    answer = call("extract", folder, "--out", "f.h5", "--model", "lyft", make_feature=make_lift_feature)
    assert answer.code == 2
    assert "lyft" in one_line(answer.err)
    assert not Path("f.h5").exists()


def test_module_runs_as_the_script_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kornia_lift.cli", "match", "absent_a.jpg", "absent_b.jpg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert one_line(done.stderr) == "kornia-lift: absent_a.jpg does not exist"


@pytest.mark.parametrize("name", TABLE)
def test_help_of_the_whole_says_what_the_command_says(name: str) -> None:
    module, function, summary = TABLE[name]
    parser = argparse.ArgumentParser()
    getattr(importlib.import_module(module), function)(commands := parser.add_subparsers())
    assert summary in {action.help for action in commands._choices_actions if action.dest == name}
