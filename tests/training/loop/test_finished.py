"""A stage that an earlier call has finished is not prepared again, and a run that is stopped says how to go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.weights import load_tensors
from tests.helpers.tiny_recipes import TINY
from tests.helpers.training import picture

STAGES = ("descriptor", "orientation", "repeatable", "refine")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("safetensors")
    (tmp_path / "mine").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "mine" / f"{k}.png"), picture(k, 200))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(data=(tmp_path / "mine").as_posix()))
    return path


def outcome(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "weights.safetensors")[0]


def test_finished_stages_are_not_prepared_again(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    command = ["train", str(config), "--out", str(out), "--stages", *STAGES]
    assert main(command) == 0
    first, before = capsys.readouterr(), outcome(out)
    made: list[str] = []
    make = ModernRecipe.make_stage

    def make_stage(self: ModernRecipe, name: str) -> Any:
        made.append(name)
        return make(self, name)

    monkeypatch.setattr(ModernRecipe, "make_stage", make_stage)
    assert main(command) == 0
    again, after = capsys.readouterr(), outcome(out)
    assert made == []
    assert again.out == first.out  # errors, measures, remarks
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    for number, name in enumerate(STAGES, 1):
        assert f"{name} ({number}/4): finished earlier (step 1), skipped" in again.err
    # what is not finished is prepared: more steps of a stage, a stage that was removed, a best.pt that was removed
    config.write_text(config.read_text().replace("[modern.repeatable]\nsteps = 1", "[modern.repeatable]\nsteps = 2"))
    (out / "descriptor" / "best.pt").unlink()
    assert main(command) == 2  # steps are an option of the run
    assert made == ["descriptor"]
    assert "repeatable/last.pt was trained with other options or data (steps was 1, is 2)" in capsys.readouterr().err


def test_a_stage_out_of_time_is_finished_until_it_gets_more(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(
        config.read_text().replace("[modern.repeatable]\nsteps = 1", "[modern.repeatable]\nsteps = 100000")
    )
    command = ["train", str(config), "--out", str(tmp_path / "run"), "--stages", "repeatable", "--max-minutes"]
    assert main([*command, "0.01"]) == 0
    said = capsys.readouterr()
    assert "not counted in the minutes, and neither is measuring" in said.err
    assert "repeatable: only " in said.out and "too few to learn much" in said.out
    assert main([*command, "0.01"]) == 0
    assert "repeatable (1/1): finished earlier (out of time at step " in capsys.readouterr().err
    assert main([*command, "0.03"]) == 0
    said = capsys.readouterr()
    assert f"repeatable (1/1): preparing, to go on from {tmp_path / 'run' / 'repeatable' / 'last.pt'}" in said.err


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["reading", "preparing the first", "preparing the second", "measuring"])
def test_a_signal_outside_the_steps_says_what_is_saved_and_how_to_go_on(
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    moment: str,
) -> None:
    out = tmp_path / "run"
    make = ModernRecipe.make_stage

    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)

    def make_stage(self: ModernRecipe, name: str) -> Any:
        if name == "repeatable":
            interrupt()
        return make(self, name)

    if moment == "reading":
        monkeypatch.setattr("kornia_lift.training.run.load_data", interrupt)
    elif moment == "measuring":
        config.write_text(config.read_text().replace("table = false", "table = true"))
        monkeypatch.setattr("kornia_lift.training.held_out.referee.Referee.measure", interrupt)
    else:
        monkeypatch.setattr(ModernRecipe, "make_stage", make_stage)
    stages = ["descriptor", "repeatable"] if moment == "preparing the second" else ["repeatable"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["train", str(config), "--out", str(out), "--stages", *stages]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, handler)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("kornia-lift: interrupted; ")
    saved = {"preparing the second": "descriptor", "measuring": "repeatable"}.get(moment)
    if saved is None:
        assert "nothing was trained yet" in said
    else:
        assert f"saved so far: {out / saved / 'last.pt'}; the same command goes on from there" in said
