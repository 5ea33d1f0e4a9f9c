"""The code blocks of a page in Markdown."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """Blocks of one language, such as "python"."""
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]
