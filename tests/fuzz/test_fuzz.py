"""Damaged files of every kind end in documented errors: a short run always, ten thousand files with ``-m slow``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import H5
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
SHORT, LONG = 12, 230
UNCOUNTED = (H5, "matches")  # kept matches that are damaged are made again


def fuzz(out: Path, cases: int, first: int) -> dict[str, Any]:
    """Run all readers from a process without threads: forks of this one could wait for its threads forever."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--cases", str(cases), "--first", str(first), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return dict(json.loads(out.read_text())["readers"])


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fuzz(tmp_path_factory.mktemp("fuzz") / "found.json", SHORT, first=2000)


@pytest.mark.parametrize("name", [*READERS, H5])
def test_damaged_files_are_read_or_refused(short_run: dict[str, Any], name: str) -> None:
    found = short_run[name]
    assert found["failures"] == []
    assert name in UNCOUNTED or found["refused"] > 0  # the damage is felt


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    found = fuzz(tmp_path / "found.json", LONG, first=0)
    assert {name: row["failures"] for name, row in found.items() if row["failures"]} == {}


def test_the_long_run_is_long_enough() -> None:
    assert len(READERS) * LONG + 5 * LONG >= 10_000
