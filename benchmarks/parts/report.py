"""Where the results of parts are kept: a JSON file and the page beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kornia_lift._io import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "parts"


def write_report(folder: Path, name: str, content: dict[str, Any], text: str) -> None:
    """Write results and their page, each complete or not at all, and print the page.

    Args:
        folder: is created where it does not exist.
        name: of the files, without suffix.
        content: what was measured, and with which options.
        text: the page, Markdown.

    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, written in (("json", json.dumps(content, allow_nan=False) + "\n"), ("md", text)):
        with atomic_write(folder / f"{name}.{suffix}") as path:
            path.write_text(written)
    print(text)
