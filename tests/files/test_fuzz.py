"""h5 files of strangers end in documented errors: a short run always, ten thousand files with ``-m slow``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fuzz(first: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.files.fuzz", str(first), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1:] or ["nothing"]
    assert (done.returncode, last) == (0, ["done"]), f"{last[0]}\n{done.stderr[-3000:]}"


def test_damaged_files() -> None:
    fuzz(0, 150)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 11_500, 500))
def test_ten_thousand_damaged_files(first: int) -> None:
    fuzz(first, 500)
