"""Docstrings as this package writes them: what Napoleon and Sphinx take for something else is put right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

RESULTS = re.compile(r"\s*(Returns|Yields):$")
ALIAS = re.compile(r"Alias for field number \d+$")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register before and after Napoleon, which has Sphinx's default priority of 500."""
    app.connect("autodoc-process-docstring", before, priority=400)
    app.connect("autodoc-process-docstring", after, priority=600)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def before(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Types of results stand in the annotations: a colon in the first line of ``Returns`` belongs to the sentence."""
    for heading, first in zip(range(len(lines) - 1), lines[1:], strict=True):
        if RESULTS.match(lines[heading]) and ":" in first:
            indent = len(first) - len(first.lstrip())
            lines[heading + 1] = f"{first[:indent]}: {first[indent:]}"


def after(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """The same for the comment above a constant, which Napoleon splits at the colon into a type and a text."""
    types = [i for i, line in enumerate(lines) if line.startswith(":type: ")]
    if what in {"attribute", "data"} and types:
        words = lines.pop(types[0]).removeprefix(":type: ")
        lines[0] = f"{words}: {lines[0]}"


def skip(app: Sphinx, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Fields of named tuples are listed with their class; Python's own text about them says nothing."""
    return True if ALIAS.match(getattr(obj, "__doc__", None) or "") else None
