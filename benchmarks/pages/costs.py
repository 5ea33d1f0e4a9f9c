"""The tables of time and memory of docs/performance.md and docs/differentiable.md, from the result files.

    python -m benchmarks.pages.costs

Reads speed.json, inference_paths.json, compiled.json and gradients.json of benchmarks/results/speed and puts the tables
between the marks of the pages. Run it after any of them has changed; a test compares the tables.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages.marks import put_between

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "speed"
STAGED = {
    "lift-direct": "networks as defined, kornia's patches (`lift-direct`)",
    "lift": "inference paths (`lift`)",
    "lift-plus": "`lift-plus`",
}
STAGES = ("detect", "orient", "describe", "total")
FORMATS = ("as defined", "float32", "bfloat16", "int8")
COMPILED = ("eager, no gradient", "compiled, no gradient", "eager, gradient", "compiled, gradient")


def main() -> int:
    for page, name, table in tables():
        put_between(ROOT / "docs" / page, name, table)
        print(table, end="\n\n")
    return 0


def tables() -> Iterable[tuple[str, str, str]]:
    """Page, name of the marks, and table in Markdown."""
    yield "performance.md", "stages", stages(_read("speed.json"))
    yield "performance.md", "inference paths", inference_paths(_read("inference_paths.json"))
    yield "performance.md", "cosines", cosines(_read("inference_paths.json"))
    yield "performance.md", "compiled", compiled(_read("compiled.json"))
    yield "differentiable.md", "memory", memory(_read("gradients.json"))


def stages(content: dict[str, Any]) -> str:
    """Seconds of every stage of our models, and the memory of the process."""
    rows = {row["method"]: row for row in content["comparison"]}
    lines = []
    for name, label in STAGED.items():
        calls = rows[name]["seconds"] or [rows[name]["first"]]
        seconds = [f"{statistics.median(call[stage] for call in calls):.2f}" for stage in STAGES]
        lines.append([label, *seconds, f"{rows[name]['peak_mb']:.0f}"])
    return _table(["", *STAGES, "peak MB"], lines)


def inference_paths(content: dict[str, Any]) -> str:
    """Time of every network as defined and on its inference path, by number format."""
    lines = []
    for row in content["rows"]:
        times = [row["time"].get(name) for name in FORMATS]
        lines.append([f"{row['name']}, {row['unit']}", *("" if t is None else _digits(t) for t in times)])
    return _table(["", *FORMATS], lines)


def cosines(content: dict[str, Any]) -> str:
    """Cosines of descriptors to those in float32: the mean, and the smallest of all."""
    lines = []
    for row in content["rows"]:
        found = [row.get("cosine", {}).get(name) for name in FORMATS[2:]]
        if any(found):
            cells = ("" if c is None else f"{c['mean']:.5f} (at least {c['smallest']:.5f})" for c in found)
            lines.append([row["name"], *cells])
    return _table(["", *FORMATS[2:]], lines)


def compiled(content: dict[str, Any]) -> str:
    """Seconds of a call of the networks and of the feature, and of the two calls that compile."""
    lines = [
        [
            f"feature, {content['keypoints']} keypoints" if name == "feature" else name,
            *(_digits(row[column]) for column in COMPILED),
            " and ".join(f"{row[f'first, {column}']:.0f}" for column in COMPILED[1::2]),
        ]
        for name, row in content["seconds"].items()
    ]
    return _table(["", *COMPILED, "first calls, compiled"], lines)


def memory(content: dict[str, Any]) -> str:
    """Peak memory of a process after the passes of each case."""
    lines = [
        [
            f"`{case['model']}`, {case['keypoints']} keypoints per image{', activations kept' if case['kept'] else ''}",
            *(f"{case[f'{name}_mb']:.0f}" for name in ("loaded", "forward", "backward")),
        ]
        for case in content["cases"]
    ]
    return _table(["peak MB", "model loaded", "after forward", "after backward"], lines)


def _digits(value: float) -> str:
    """Two significant digits without an exponent."""
    return f"{float(f'{value:.2g}'):g}" if value < 100 else f"{value:.0f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([_line(head), rule, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


if __name__ == "__main__":
    sys.exit(main())
