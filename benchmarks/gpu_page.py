"""The result of ``benchmarks/gpu.py`` as a page."""

from __future__ import annotations

from typing import Any

import roofline


def page(record: dict[str, Any]) -> str:
    """The result in Markdown."""
    info = record["about"]
    lines = [
        "# On a GPU",
        "",
        f"{info['date']}, commit {info['commit']}, {info['device']}, torch {info['versions']['torch']}, "
        f"CUDA {info['cuda']}; made by `{record['command']}` in {record['minutes']:.1f} minutes.",
        "",
    ]
    tests = record.get("tests", {})
    lines += ["## CUDA tests", "", tests["tail"][-1] if tests.get("tail") else str(tests.get("error", "not run")), ""]
    speed = record.get("speed", {})
    lines += [
        "## Speed, 1000 keypoints",
        "",
        "| model | size | images | type | detect s | orient s | describe s | total s | images/s | peak MiB |",
    ]
    lines += ["|---|---|---:|---|---:|---:|---:|---:|---:|---:|"]
    for row in speed.get("cases", []):
        where = f"| {row['model']} | {row['size'][0]}x{row['size'][1]} | {row['batch']} | {row['dtype']} |"
        if "error" in row:
            lines.append(f"{where} {row['error']} | | | | | |")
            continue
        stages = " | ".join(f"{row['seconds'][s]:.4f}" for s in ("detect", "orient", "describe", "total"))
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(f"{where} {stages} | {row['images_per_s']:.1f} | {peak} |")
    for dtype, table in speed.get("stages", {}).items():
        lines += [
            "",
            f"### Stages beside the limits, {dtype}",
            "",
            roofline.table({**table, "threads": 1, "clock": "wall"}),
        ]
    lines += [
        "",
        "## Training",
        "",
        "| stage | seconds | steps | samples/s | error at the start | best error | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    stages = {name: row for name, row in record.get("training", {}).items() if isinstance(row, dict)}
    for stage, row in stages.items():
        if "steps" in row and row["samples_per_s"] is not None:
            figures = f"{row['seconds']:.0f} | {row['steps']} | {row['samples_per_s']:.0f}"
            figures += f" | {row['error_at_the_start']:.4f} | {row['error']:.4f}"
            lines.append(f"| {stage} | {figures} | {row['measure'] or ''} |")
        else:
            lines.append(f"| {stage} | | | | | | {row.get('error', 'no step was done')} |")
    for part, value in record.items():
        if isinstance(value, dict) and "traceback" in value:
            lines += ["", f"## {part} failed", "", "```text", value["traceback"].strip(), "```"]
    return "\n".join(lines) + "\n"
