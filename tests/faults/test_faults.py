"""Commands that are disturbed end cleanly, and give the undisturbed result when started again.

Nothing here depends on time: moments are counted in operations on files and in processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

QUICK = ("extract", "merge", "evaluate", "build-dataset", "match")
SLOW = ("reconstruct", "train paper", "train modern", "train compact", "train lfnet",
        "train correspondences", "train tilde")  # fmt: skip
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


FULL_DISK = """
import sys
from pathlib import Path
import torch
from kornia_lift.training.loop.checkpoint import save_checkpoint
from tests.faults.traps import small_disk
folder = Path(sys.argv[1])
if not small_disk(folder, 4):
    sys.exit(3)
try:
    save_checkpoint(folder / "last.pt", {"network": torch.zeros(10_000)})
except OSError as error:
    print(error, [path.name for path in folder.iterdir()])
"""


def test_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        pytest.skip("no file system can be mounted here")
    assert done.stdout == f"cannot write {tmp_path / 'last.pt'}: No space left on device []\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_commands_many_times(name: str) -> None:
    disturb(20, (name,), "--first", "100")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_long_commands(name: str) -> None:
    disturb(3, (name,), "--kinds", "kill", "disk", "removed")
