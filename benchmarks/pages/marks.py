"""Text between two marks of a documentation page, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""

from __future__ import annotations

from pathlib import Path

from kornia_lift._io import atomic_write


def put_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a name.

    Args:
        page: Markdown file.
        name: the name in the marks.
        text: what is put there, on lines of its own.

    Raises:
        ValueError: if the page lacks one of the marks; it is then left as it is.

    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, begun, rest = page.read_text().partition(begin)
    _, ended, tail = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page} lacks the marks {begin} and {end}")
    with atomic_write(page) as temporary:
        temporary.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
