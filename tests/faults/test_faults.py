"""Commands that are disturbed end cleanly, and give the undisturbed result when started again.

Nothing here depends on time: moments are counted in operations on files and in processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("extract", "merge", "evaluate", "build-dataset", "match")
SLOW = ("reconstruct", "train paper", "train modern")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked, disks are mounted")


def disturb(trials: int, names: tuple[str, ...], *more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.run", "--trials", str(trials), "--only", *names, *more],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = [
        line.partition(": ") for line in done.stdout.splitlines() if line.startswith(tuple(f"{n}: " for n in names))
    ]
    assert len(rows) == len(names), done.stdout[-2000:] + done.stderr[-2000:]
    for name, _, text in rows:
        for kind, row in json.loads(text).items():
            assert row["failures"] == [], f"{name}, {kind}"
            assert row["trials"] + row["skipped"] > 0


def test_quick_commands() -> None:
    disturb(1, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_commands_many_times(name: str) -> None:
    disturb(20, (name,), "--first", "100")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_long_commands(name: str) -> None:
    disturb(3, (name,), "--kinds", "kill", "disk", "removed")
