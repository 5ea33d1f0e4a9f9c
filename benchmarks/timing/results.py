"""Result files of measurements of time and memory: what was run, where, and what came out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_lift._io import atomic_write
from kornia_lift.evaluation.report.results import provenance

ROOT = Path(__file__).parents[2]


def write_result(path: Path, command: str, content: dict[str, Any]) -> None:
    """Write a result file, complete or not at all.

    Args:
        path: the file.
        command: what made it.
        content: what was measured, and with which options.

    """
    whole = {"command": command, "provenance": provenance(ROOT), **content}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n")


def quotient(row: Mapping[str, Any]) -> float | None:
    """Median of the quotients of each call and the call of the other method right after it; ``None`` without any."""
    pairs = zip(row["seconds"], row.get("beside_seconds", ()), strict=False)
    quotients = [mine["total"] / other for mine, other in pairs]
    return statistics.median(quotients) if quotients else None
