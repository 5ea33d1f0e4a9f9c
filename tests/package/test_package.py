"""What is built from the repository is complete."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

TRACKED_BUT_LEFT_OUT = (".ci/", ".github/", "experiments/", ".gitignore", ".pre-commit-config.yaml", "MANIFEST.in")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    return [name for name in names.splitlines() if not name.startswith(TRACKED_BUT_LEFT_OUT)]


@pytest.mark.slow
def test_source_distribution_holds_the_repository(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert sorted(set(_tracked()) - held) == []


@pytest.mark.slow
def test_wheel_holds_the_package(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        held = set(file.namelist())
        (metadata,) = [name for name in held if name.endswith("METADATA")]
        text = file.read(metadata).decode()
    assert sorted({name for name in _tracked() if name.startswith("kornia_lift/")} - held) == []
    assert "Project-URL" not in text  # no public address yet: a guessed one would lead nowhere
    assert "](docs/" not in text  # relative links lead nowhere on an index


def _pins(path: Path) -> dict[str, str]:
    """Versions by the names of packages, without builds such as +cpu."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s+]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_lock_has_what_the_constraints_name_and_the_extras_need() -> None:
    lock = ROOT / ".ci" / "lock.txt"
    if not lock.exists():
        pytest.skip("needs the repository")
    locked, constrained = _pins(lock), _pins(ROOT / "constraints.txt")
    assert {name: locked.get(name) for name in constrained} == constrained
    needed = re.findall(r"^    ([a-z0-9-]+)>=", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert len(needed) > 20 and sorted(set(needed) - set(locked)) == []
    for entry in re.split(r"\n(?=\S)", lock.read_text().strip()):
        assert "--hash=sha256:" in entry, entry
