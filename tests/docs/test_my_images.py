"""The page "My images, my weights", executed on the images that it makes."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path

import pytest

from kornia_lift.cli import main
from tests.helpers.pages import blocks
from tests.helpers.repository import ROOT

PAGE = ROOT / "docs" / "my_images.md"


def commands() -> list[list[str]]:
    """Commands of the page; those that make the images come first, training from scratch takes hours."""
    text = PAGE.read_text().partition("## From scratch")[0]
    lines = [line for code in blocks(PAGE, "bash") for line in code.splitlines() if line in text]
    return sorted((shlex.split(line) for line in lines), key=lambda words: words[0] != "python")


def test_the_page_has_commands_of_every_step() -> None:
    words = {line[1] for line in commands() if line[0] == "kornia-lift"}
    assert words == {"match", "build-dataset", "check-dataset", "train", "plot-training"}
    assert commands()[0][:2] == ["python", "docs/examples/corner.py"]


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As typed, but for the minutes."""
    for package in ("skimage", "cv2", "pycolmap", "safetensors", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for program, *words in commands():
        if program == "python":
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", words)
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            continue
        assert program == "kornia-lift"
        minutes = ["--max-minutes", "0.5"] if words[0] == "train" else []
        assert main([*words, *minutes]) == 0, (words, capsys.readouterr().err)
        if words[0] == "train":
            said = capsys.readouterr().out
            assert "| shipped lift |" in said and "| SIFT |" in said
    assert (tmp_path / "runs/mine/matches.jpg").is_file() and (tmp_path / "curves.svg").is_file()
