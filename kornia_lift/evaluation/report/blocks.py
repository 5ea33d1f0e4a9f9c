"""A report as a list of blocks, written as Markdown or as HTML; names in it may hold any character.

No Markdown library: a report is made of four kinds of blocks, and both forms are written from them, not one from the
other.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

# what Markdown would read as markup; underscores inside of words and dashes are left, as they are in names
_SPECIAL = re.compile(r"([\\`*|$<>\[\]])")


@dataclass(frozen=True)
class Heading:
    """A heading.

    Args:
        text: the words.
        level: 1 for the title.
    """

    text: str
    level: int = 2

    def markdown(self) -> str:
        """As Markdown."""
        return f"{'#' * self.level} {escape(self.text)}"

    def html(self) -> str:
        """As HTML."""
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str

    def markdown(self) -> str:
        """As Markdown."""
        return escape(self.text)

    def html(self) -> str:
        """As HTML."""
        return f"<p>{html.escape(self.text)}</p>"


@dataclass(frozen=True)
class Items:
    """A list with bullets."""

    texts: Sequence[str]

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {escape(text)}" for text in self.texts)

    def html(self) -> str:
        """As HTML."""
        return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in self.texts) + "</ul>"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        head: names of the columns.
        rows: texts of the cells.
        bold: rows and columns of the cells in bold.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """As a Markdown table, numbers flush right."""
        lines = [_row([escape(cell) for cell in self.head]), _row(["---", *["---:"] * (len(self.head) - 1)])]
        for r, row in enumerate(self.rows):
            cells = [escape(cell) for cell in row]
            lines.append(_row([f"**{cell}**" if (r, c) in self.bold else cell for c, cell in enumerate(cells)]))
        return "\n".join(lines)

    def html(self) -> str:
        """As an HTML table."""
        lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)]
        for r, row in enumerate(self.rows):
            cells = [html.escape(cell) for cell in row]
            marked = [f"<b>{cell}</b>" if (r, c) in self.bold else cell for c, cell in enumerate(cells)]
            lines.append("".join(f"<td>{cell}</td>" for cell in marked))
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


Block = Heading | Paragraph | Items | Table


def to_markdown(blocks: Sequence[Block]) -> str:
    """Blocks as Markdown, one empty line between two."""
    return "\n\n".join(block.markdown() for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Blocks as HTML elements, one a line."""
    return "\n".join(block.html() for block in blocks)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
