"""The demo, the help texts, and what happens without the optional packages."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kornia.geometry.linalg import transform_points
from PIL import Image

from kornia_lift import __version__
from kornia_lift.cli import COMMANDS, build_parser
from kornia_lift.cli.demo import known_warp
from tests.helpers.cli import Call, one_line

NAMES = [command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS]


def test_demo_reports_the_precision(call: Call) -> None:
    answer = call("demo", "-n", 200, "--out", "d.png")
    assert answer.code == 0
    putative, verified = map(
        float, re.search(r"precision +([\d.]+) % of the putative matches, ([\d.]+) % of", answer.out).groups()
    )
    assert 80 < putative < verified <= 100
    with Image.open("d.png") as picture:
        assert picture.size == (1032, 512)
        greens = sum(n for n, (r, g, b) in picture.getcolors(1 << 24) if g > 200 and max(r, b) < 130)
        assert greens > 500


def test_demo_reads_no_image_files_and_has_no_options_for_them(call: Call) -> None:
    answer = call("demo", "--ignore-exif")
    assert answer.code == 2 and "unrecognized arguments: --ignore-exif" in answer.err


def test_demo_precision_falls_when_matches_are_wrong(call: Call) -> None:
    """Random descriptors match at random, and the report says so."""
    from kornia.feature import SIFTFeature

    def shuffled(args: argparse.Namespace) -> torch.nn.Module:
        feature = SIFTFeature(args.num_features)
        feature.register_forward_hook(lambda module, inputs, out: (*out[:2], torch.rand_like(out[2])))
        return feature

    answer = call("demo", "-n", 100, "--ratio", 1, make_feature=shuffled)
    precision = float(re.search(r"precision +([\d.]+) % of the putative", answer.out)[1])
    assert precision < 10


def test_known_warp_rotates_counter_clockwise_about_the_centre() -> None:
    warp = known_warp(512, 512)
    ends = transform_points(warp, torch.tensor([[[255.5, 255.5], [256.5, 255.5]]]))[0]
    torch.testing.assert_close(ends[0], torch.tensor([255.5, 255.5]), atol=1e-3, rtol=0)
    step = ends[1] - ends[0]
    assert step[1] < 0 < step[0]
    assert float(torch.rad2deg(torch.atan2(-step[1], step[0]))) == pytest.approx(30, abs=0.5)


def test_help_lists_every_command(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    for command in NAMES:
        assert re.search(rf"^    {command}\s+\w", answer.out, re.M), command
        sub = call(command, "--help")
        assert sub.code == 0
        assert f"usage: kornia-lift {command}" in sub.out


def test_help_fits_a_terminal_and_names_every_default(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for command in NAMES:
        text = call(command, "--help").out
        assert max(map(len, text.splitlines())) <= 120
        assert "%(default)" not in text


def test_version(call: Call) -> None:
    assert call("--version").out == f"kornia_lift {__version__}\n"


def test_unknown_command(call: Call) -> None:
    answer = call("fly")
    assert answer.code == 2
    assert "kornia-lift --help" in one_line(answer.err)


def test_no_command_prints_help(call: Call) -> None:
    assert call() == call("--help")


def test_shipped_models_are_in_the_help(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help is written without torch, hence without asking for their names."""
    from kornia_lift.weights import available_models

    monkeypatch.setenv("COLUMNS", "200")
    assert f"a shipped model ({', '.join(available_models())})" in call("extract", "--help").out


def test_missing_package_names_the_extra(call: Call, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    answer = call("extract", folder, "--out", "f.h5")
    assert answer.code == 2
    assert "pip install 'kornia_lift[cli]'" in one_line(answer.err)


def test_unknown_model_is_one_line(call: Call, folder: Path) -> None:
    from kornia_lift.cli._feature import make_lift_feature

    answer = call("extract", folder, "--out", "f.h5", "--model", "lyft", make_feature=make_lift_feature)
    assert answer.code == 2
    assert "lyft" in one_line(answer.err)
    assert not Path("f.h5").exists()


def test_module_runs_as_the_script_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kornia_lift", "match", "absent_a.jpg", "absent_b.jpg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert one_line(done.stderr) == "kornia-lift: absent_a.jpg does not exist"


def test_commands_need_torch_only_to_run() -> None:
    code = (
        "import sys; from kornia_lift.cli import build_parser; build_parser().parse_args(['demo'])\n"
        "print({'torch', 'kornia', 'numpy', 'h5py', 'cv2'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(("asked", "expected"), [(None, "300"), ("5000", "5000")])
def test_waiting_threads_spin_briefly_unless_the_user_says_otherwise(asked: str | None, expected: str) -> None:
    code = "import os; from kornia_lift.cli import main; main([]); print(os.environ['GOMP_SPINCOUNT'])"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {} if asked is None else {"GOMP_SPINCOUNT": asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == expected


def test_the_environment_of_a_program_that_uses_torch_stays_as_it_is(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    call()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.rpartition(".")[2])
def test_a_command_is_a_parser_and_a_run(command: ModuleType) -> None:
    name = command.__name__.rpartition(".")[2].replace("_", "-")
    parser = build_parser()._subparsers._group_actions[0].choices[name]  # type: ignore[union-attr, index]
    assert parser.get_default("run") is command.run
    assert parser.description


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_help_text(name: str) -> None:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parser = commands.choices[name]
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


def test_reconstruct_asks_for_its_packages_before_it_extracts(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    answer = call("reconstruct", tmp_path, "--out", tmp_path / "model")
    assert answer.code == 2 and "pip install 'kornia_lift[colmap]'" in one_line(answer.err)
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signals_within_a_finalizer_are_not_lost(name: str, code: int) -> None:
    program = f"""
import signal, sys, time, weakref
import kornia_lift.cli as cli
class Thing: pass
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
def command(args):
    thing = Thing()
    kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name}))
    del thing
    time.sleep(60)
    print("went on")
    return 0
cli.demo.run = command
sys.argv[1:] = ["demo"]
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code and "went on" not in done.stdout
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr
