"""The API reference, which is written when the site is built, leaves out no public name."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT, load_script

PACKAGE = ROOT / "kornia_lift"

#: In a process of its own: stand-ins for other programs must not stay behind.
SCRIPT = """
import importlib, json, sys
from pathlib import Path

from tests.helpers.repository import load_script
import api_pages, programs
programs.provide()
found = []
for entry in api_pages.documented():
    module = importlib.import_module(entry.module)
    objects = [getattr(module, name) for name in entry.names]
    found += [(entry.module, o.__module__, o.__qualname__) for o in objects if hasattr(o, "__qualname__")]
api_pages.write(Path(sys.argv[1]))
print(json.dumps(found))
"""


def defined() -> set[tuple[str, str]]:
    """Module and name of every class and function that no underscore hides, read from the sources."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts) or parts[:1] == ("cli",):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found.add((".".join(("kornia_lift", *parts)), node.name))
    return found


def test_every_public_name_is_documented_once(tmp_path: Path) -> None:
    extensions = ROOT / "docs" / "_ext"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "api")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{extensions}"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    homes = [(module, name) for _, module, name in found]
    assert sorted(defined() - set(homes)) == []
    assert len(homes) == len(set(homes))
    pages = "\n".join(path.read_text() for path in (tmp_path / "api").glob("*.rst"))
    missing = {shown for shown, _, _ in found if f"automodule:: {shown}\n" not in pages}
    assert missing == {"kornia_lift"}  # whose names stand on the first page


def test_names_link_to_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))  # as conf.py does
    resolve = load_script("docs/_ext/source_links.py").resolve
    for module, name, line in (
        ("kornia_lift", "LIFTFeature", "class LIFTFeature(LocalFeature):"),
        ("kornia_lift.detector.scale_space", "ScaleSpaceConfig.lift", "    @classmethod"),
        ("kornia_lift.matching", "PairMatch.points", "    @property"),
    ):
        address = resolve("py", {"module": module, "fullname": name})
        path, _, lines = address.partition("/main/")[2].partition("#L")
        assert (ROOT / path).read_text().splitlines()[int(lines.split("-")[0]) - 1] == line
    assert resolve("py", {"module": "kornia_lift.viz", "fullname": "MAX_LINES"}) is None
    assert resolve("py", {"module": "kornia_lift", "fullname": "nothing"}) is None


def test_examples_in_the_docstrings_of_modules_are_shown_as_code() -> None:
    """An indented block is only code on the page after ``::``; otherwise its lines run together as a quotation."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
        before = ""
        for last, line in zip(["", *lines], lines, strict=False):
            is_code = line.startswith(" ") and not line.lstrip().startswith("- ")
            if is_code and not last and not before.endswith("::"):
                wrong.append(f"{path.relative_to(PACKAGE)}: {line.strip()}")
            if line and not line.startswith(" "):
                before = line
    assert wrong == []
