"""Files appear whole or not at all, and what a killed process leaves is removed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kornia_lift._io import atomic_write
from kornia_lift._io.writing import _HOST, remove_leftovers, temporary_folder, write_npz
from kornia_lift.cli import main
from tests.io.killed import kill_while_writing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")


def test_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "store.json")
    remove_leftovers(tmp_path / "another.json")
    assert list(tmp_path.iterdir())  # of another output
    remove_leftovers(tmp_path / "store.json")
    assert not list(tmp_path.iterdir())


def test_writing_a_file_again_removes_what_killed_processes_left_of_it(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "[a].json")
    kill_while_writing(tmp_path / "b.json")
    with atomic_write(tmp_path / "[a].json") as temporary:
        temporary.write_text("{}")
    assert [p.name.split(".")[1] for p in sorted(tmp_path.iterdir())] == ["b", "json"]


def test_folders_of_an_output_are_searched(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "descriptor"
    stage.mkdir(parents=True)
    kill_while_writing(stage / "last.pt")
    remove_leftovers(tmp_path / "run")
    assert not list(stage.iterdir())


def test_files_that_are_being_written_stay(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    with atomic_write(path) as temporary:
        temporary.write_text("{}")
        remove_leftovers(path)
    assert path.read_text() == "{}"
    mine = tmp_path / ".notes.tmp.txt"  # no name of ours
    elsewhere = tmp_path / ".store.00000000-1-abcd.tmp.json"  # of another machine
    for other in (mine, elsewhere):
        other.write_text("x")
    remove_leftovers(tmp_path)
    assert mine.exists() and elsewhere.exists()


def test_a_command_cleans_up_after_its_killed_self(tmp_path: Path) -> None:
    out = tmp_path / "warp.jpg"
    pytest.importorskip("cv2")
    kill_while_writing(out)
    assert main(["demo", "--out", str(out), "--num-features", "50"]) in (0, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["warp.jpg"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_folder_for_work_is_removed_whatever_ends_it(tmp_path: Path, error: type[BaseException]) -> None:
    def work_until_stopped() -> None:
        with temporary_folder(tmp_path / "scene") as work:
            (work / "images").mkdir()
            (work / "images" / "1.jpg").touch()
            assert work.name.startswith(".scene.")
            raise error

    with pytest.raises(error):
        work_until_stopped()
    assert not list(tmp_path.iterdir())


def test_folders_that_killed_processes_left_are_removed_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, running = ended.pid, os.getpid()
    names = {f".scene.{_HOST}-{number}-abcd.tmp": number for number in (dead, running)}
    names |= {".scene.00000000-1-abcd.tmp": 0, ".scene.mine": 0, f".other.{_HOST}-{dead}-abcd.tmp": 0}
    for name in names:
        (tmp_path / name / "inside").mkdir(parents=True)
    with temporary_folder(tmp_path / "scene"):
        assert {p.name for p in tmp_path.iterdir()} >= {name for name, number in names.items() if number != dead}
        assert not (tmp_path / f".scene.{_HOST}-{dead}-abcd.tmp").exists()
    remove_leftovers(tmp_path)  # as every command does with its --out
    assert not (tmp_path / f".other.{_HOST}-{dead}-abcd.tmp").exists()
    assert (tmp_path / f".scene.{_HOST}-{running}-abcd.tmp" / "inside").exists()


def test_arrays_are_read_by_numpy(tmp_path: Path) -> None:
    arrays = {"table": np.arange(6.0).reshape(2, 3), "text": np.array("x"), "none": np.zeros((0, 2), np.int32)}
    write_npz(tmp_path / "ours.npz", arrays)
    with np.load(tmp_path / "ours.npz") as found:
        assert found.files == list(arrays)
        assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(tmp_path / "ours.npz", {"pickled": np.array([None])})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left to be closed later, which Python would answer by a traceback on stderr."""
    with pytest.raises(OSError, match="space"):
        write_npz(Path("/dev/full"), {"a": np.zeros(100_000)})
    gc.collect()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("opened", [atomic_write, temporary_folder])
def test_the_error_names_what_was_to_be_written_not_its_temporary_name(tmp_path: Path, opened: Any) -> None:
    path = tmp_path / "absent" / "model.db"
    with pytest.raises(OSError, match=r"cannot write .*absent.model.db: ") as refused, opened(path):
        pass
    assert ".tmp" not in str(refused.value)
