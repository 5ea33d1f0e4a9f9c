"""What puts results into documentation pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import refinement
from benchmarks.pages import goals
from benchmarks.pages.costs import tables
from benchmarks.pages.marks import put_between
from benchmarks.parts import kinds, matchers, slant
from benchmarks.parts.report import RESULTS
from tests.helpers.repository import ROOT

PAGE = "head\n<!-- a: begin -->\nold\n<!-- a: end -->\nmiddle\n<!-- b: begin -->\nother\n<!-- b: end -->\ntail\n"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):
        put_between(page, "a", "new\nlines")
        assert page.read_text() == PAGE.replace("old", "new\nlines")


@pytest.mark.parametrize("lost", ["<!-- a: begin -->", "<!-- a: end -->"])
def test_a_page_without_a_mark_is_left_as_it_is(tmp_path: Path, lost: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(lost, ""))
    with pytest.raises(ValueError, match="page.md lacks the marks <!-- a: begin --> and <!-- a: end -->"):
        put_between(page, "a", "new")
    assert page.read_text() == PAGE.replace(lost, "")


def test_tables_of_time_and_memory_are_made_of_the_result_files() -> None:
    for page, name, table in tables():
        assert f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->" in (ROOT / "docs" / page).read_text(), (
            "run python -m benchmarks.pages.costs"
        )


def test_goals_are_measured_by_the_result_files() -> None:
    found = goals.Figures()
    assert (
        f"<!-- goals: begin -->\n{goals.table(found)}\n<!-- goals: end -->" in (ROOT / "docs/goals.md").read_text()
    ), "run python -m benchmarks.pages.goals"
    # what is missed is said, and nothing else is
    of_sift = next(goal for goal in goals.goals(found) if goal.what.startswith("correct matches / SIFT"))
    value = of_sift.of("lift-plus")
    for limit, cell in ((value - 0.01, f"{value:.2f}"), (value + 0.01, f"{value:.2f} **missed**")):
        assert of_sift._replace(limit=limit).cell("lift-plus") == cell
        assert of_sift._replace(limit=limit, smaller=True).cell("lift-plus") != cell


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [
        ("mixing.md", "matchers", matchers.summary),
        ("my_images.md", "kinds", kinds.table),
        ("evaluation.md", "slant", slant.table),
        ("evaluation.md", "refined", refinement.table),
    ],
)
def test_tables_of_parts_are_made_of_the_result_files(
    page: str, name: str, table: Callable[[dict[str, Any]], str]
) -> None:
    shown = table(json.loads((RESULTS / f"{name}.json").read_text()))
    assert f"<!-- {name}: begin -->\n{shown}\n<!-- {name}: end -->" in (ROOT / "docs" / page).read_text()
