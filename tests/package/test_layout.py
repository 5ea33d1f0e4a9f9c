"""The repository as a house: small rooms, short files, imports that only run downwards, errors in one form."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

PACKAGE = ROOT / "kornia_lift"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
MAX_FILES, MAX_LINES = 13, 300


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, in functions and by name too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in MODULES)
            if any(name not in MODULES for name in inner):
                yield node.module
        elif isinstance(node, ast.Constant) and node.value in MODULES and node.value != "kornia_lift":
            yield node.value  # for importlib


def room(module: str) -> str:
    """The folder or file of the package that a module is in."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("folder", ["kornia_lift", "tests", "benchmarks", "scripts", "docs"])
def test_rooms_are_small(folder: str) -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))
    assert counts
    assert {name: count for name, count in counts.items() if count > MAX_FILES} == {}


def test_tests_import_from_helpers_and_not_from_each_other() -> None:
    """What two tests share would otherwise be looked for in one of them, and break with it."""
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1].startswith(("test_", "conftest"))
    ]
    assert found == []


def test_files_are_short() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize("by_room", [False, True], ids=["files", "rooms"])
def test_imports_run_in_one_direction(by_room: bool) -> None:
    """No circle, also of imports inside functions. The package itself imports its rooms when they are asked for."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module == "kornia_lift":
            continue
        for target in imports(path):
            here, there = (room(module), room(target)) if by_room else (module, target)
            if there not in (here, "kornia_lift"):
                graph.setdefault(here, set()).add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def rows_of_contributing() -> dict[str, int]:
    """The row of the layout table in CONTRIBUTING.md in which each room of the package stands."""
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout")[2].partition("Outside a room")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = [re.findall(r"`([\w/.]+)`", row) for row in rows]
    return {f"kornia_lift.{name.rstrip('/').removesuffix('.py')}": n for n, row in enumerate(names) for name in row}


def test_imports_run_downwards_in_the_table_of_contributing() -> None:
    """No arrow points upwards or sideways, wherever in a file it starts."""
    row = rows_of_contributing()
    assert {room(module) for module in MODULES} - {"kornia_lift"} == set(row)
    arrows = {(room(module), room(target)) for module, path in MODULES.items() for target in imports(path)}
    between = {(here, there) for here, there in arrows if here != there and "kornia_lift" not in (here, there)}
    assert len(between) > 50
    assert {(here, there) for here, there in between if row[here] >= row[there]} == set()


def test_only_the_command_line_imports_the_package_itself() -> None:
    """A room that took a public name from the top would import what lies above it."""
    users = [module for module, path in MODULES.items() if "kornia_lift" in set(imports(path))]
    assert {room(module) for module in users} <= {"kornia_lift.cli"}


def error_messages() -> Iterator[tuple[str, str]]:
    """Where an error is raised, and the last words of its text."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = node.exc.args[0]
                last = text.values[-1] if isinstance(text, ast.JoinedStr) and text.values else text
                if isinstance(last, ast.Constant) and isinstance(last.value, str):
                    yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", last.value


def test_error_messages_end_without_a_period() -> None:
    found = list(error_messages())
    assert len(found) > 100
    assert [where for where, text in found if text.endswith(".") and not text.endswith("...")] == []
