"""What is built from the repository is complete."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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
