"""The address of the repository is set in one place, and one command changes it everywhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT, load_script

ADDRESS = load_script("docs/_ext/address.py")
MINE = re.compile(r"(?:github|githubusercontent)\.com/([\w.-]+/kornia_lift)\b")
TEXT = {".py", ".md", ".rst", ".toml", ".cfg", ".cff", ".ipynb", ".txt", ".in", ".yml", ".yaml", ".sh"}


def texts(root: Path) -> list[Path]:
    """All files that may hold a link; results of benchmarks, caches and built pages do not count."""
    left_out = {"results", "_build", "build", "__pycache__"}
    found = []
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts
        if path.suffix in TEXT and not left_out & set(inside) and not inside[0].startswith(".") and path.is_file():
            found.append(path)
    return found


def project(folder: Path) -> Path:
    """A copy of everything that a link is written in."""
    script = load_script("scripts/set_repository.py")
    for path in (*script.files_with_links(ROOT), ROOT / "setup.cfg"):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_there_is_one_address() -> None:
    found = {(name, path.name) for path in texts(ROOT) for name in MINE.findall(path.read_text())}
    assert {name for name, _ in found} == {ADDRESS.REPOSITORY}, sorted(found)


def test_the_command_finds_every_link() -> None:
    script = load_script("scripts/set_repository.py")
    known = set(script.files_with_links(ROOT))
    assert [path for path in texts(ROOT) if MINE.search(path.read_text()) and path not in known] == []


def test_one_command_changes_it_everywhere(tmp_path: Path) -> None:
    script, root = load_script("scripts/set_repository.py"), project(tmp_path / "project")
    before = sum(len(MINE.findall(path.read_text())) for path in texts(root))
    for name in ("someone/lift.features", "other-one/kornia_lift"):  # and again
        changed = script.set_repository(name, root)
        assert script.current(root) == name
        assert root / "README.md" in changed and root / "docs/_ext/address.py" in changed
        assert f"\nurl = https://github.com/{name}\n" in (root / "setup.cfg").read_text()
        everything = "\n".join(path.read_text() for path in texts(root))
        assert everything.count(f"github.com/{name}") + everything.count(f"githubusercontent.com/{name}") == before + 1
        assert ADDRESS.REPOSITORY not in everything
    assert script.set_repository("other-one/kornia_lift", root) == [root / "setup.cfg"]


@pytest.mark.parametrize("name", ["", "kornia_lift", "https://github.com/a/b", "a/b/c", "a b/c", "-a/b"])
def test_what_is_no_name_changes_nothing(tmp_path: Path, name: str) -> None:
    script, root = load_script("scripts/set_repository.py"), project(tmp_path / "project")
    before = {path: path.read_text() for path in texts(root)}
    with pytest.raises(ValueError, match="expected OWNER/NAME of a repository on GitHub"):
        script.set_repository(name, root)
    assert {path: path.read_text() for path in texts(root)} == before
