"""Images that no command reads are counted and named by every command that reads folders of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from kornia_lift.cli import main

SAID = "left out 2 .heic, 1 .nef (a.heic, ...): convert with"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nothing but images that are not read."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.heic", "b.HEIC", "c.nef"):
        (images / name).touch()
    return images


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    """One call of each such command."""
    (out / "features.h5").touch()
    return {
        "extract": ["extract", str(folder), "--out", str(out / "new.h5")],
        "reconstruct": ["reconstruct", str(folder), "--out", str(out / "model")],
        "export-colmap": [
            "export-colmap",
            str(out / "features.h5"),
            "--images",
            str(folder),
            "--out",
            str(out / "a.db"),
        ],
        "build-dataset": ["build-dataset", str(folder), "--out", str(out / "stores")],
        "check-dataset": ["check-dataset", str(folder)],
        "train": ["train", "modern", "--data", str(folder), "--out", str(out / "run")],
        "evaluate": ["evaluate", str(folder), "--out", str(out / "report")],
    }


@pytest.mark.parametrize(
    "command",
    ["extract", "reconstruct", "export-colmap", "build-dataset", "check-dataset", "train", "evaluate"],
)
def test_commands_name_what_they_leave_out(
    folder: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("h5py")
    if command == "reconstruct":
        pytest.importorskip("pycolmap")
    assert main(commands(folder, tmp_path)[command]) != 0  # there is nothing else in the folder
    assert SAID in capsys.readouterr().err
