"""The result of ``benchmarks/gpu.py`` as a page."""

from __future__ import annotations

from typing import Any

from benchmarks.timing import roofline


def page(record: dict[str, Any]) -> str:
    """The result in Markdown."""
    info = record["about"]
    lines = [
        "# On a GPU",
        "",
        f"{info['date']}, commit {info['commit']}, {info['device']}, torch {info['versions']['torch']}, "
        f"CUDA {info['cuda']}; CPU {info['cpu']}; made by `{record['command']}` in {record['minutes']:.1f} minutes.",
        "",
    ]
    if "tests" in record:
        lines += ["## CUDA tests", "", *(f"- {line}" for line in _tests(record["tests"])), ""]
    if "speed" in record:
        lines += _speed(record["speed"])
    if "training" in record:
        lines += _training(record["training"])
    for part, value in record.items():
        if isinstance(value, dict) and "traceback" in value:
            lines += ["", f"## {part} failed", "", "```text", value["traceback"].strip(), "```"]
    return "\n".join(lines) + "\n"


def _tests(tests: dict[str, Any]) -> list[str]:
    groups = tests.get("groups", [])
    said = [f"{' '.join(group['files'])}: {group['tail'][-1] if group['tail'] else 'nothing'}" for group in groups]
    return said or tests.get("tail") or [str(tests.get("error", "not run"))]


def _speed(speed: dict[str, Any]) -> list[str]:
    lines = [
        "## Speed, 1000 keypoints",
        "",
        "Detect, orient and describe by clocks that wait for the device; total and images/s by one that waits at the "
        "end only.",
        "",
        "| model | size | images | type | detect s | orient s | describe s | total s | images/s | points | peak MiB |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in speed.get("cases", []):
        where = f"| {row['model']} | {row['size'][0]}x{row['size'][1]} | {row['batch']} | {row['dtype']} |"
        if "error" in row:
            lines.append(f"{where} {row['error']} | | | | | | |")
            continue
        stages = " | ".join(f"{row['seconds'][s]:.4f}" for s in ("detect", "orient", "describe", "total"))
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(f"{where} {stages} | {row['images_per_s']:.1f} | {row['keypoints']} | {peak} |")
    for row in speed.get("peer", []):
        seconds = row["seconds"]
        where = f"| {row['method']} | {row['size'][0]}x{row['size'][1]} | 1 | uint8 |"
        lines.append(f"{where} | | | {seconds:.4f} | {1 / seconds:.1f} | {row['keypoints']} | |")
    if speed.get("streams"):
        lines += [
            "",
            "### Streams: 8-bit images to the device, features back, batch after batch",
            "",
            "| model | size | batch | type | images | images/s | keypoints per image |",
            "|---|---|---:|---|---:|---:|---:|",
        ]
    for row in speed.get("streams", []):
        where = f"| {row['model']} | {row['size'][0]}x{row['size'][1]} | {row['batch']} | {row['dtype']} |"
        if "error" in row:
            lines.append(f"{where} {row['error']} | | |")
        else:
            lines.append(f"{where} {row['images']} | {row['images_per_s']:.1f} | {row['keypoints_per_image']:.0f} |")
    for name, table in speed.get("stages", {}).items():
        shown = table["error"] if "error" in table else roofline.table({**table, "threads": 1, "clock": "wall"})
        lines += ["", f"### Stages beside the limits, {name}", "", shown]
    if speed.get("variants"):
        lines += ["", "### The filters of the score on all levels, by ways to compute them", "", "| type | way | s |"]
        lines += ["|---|---|---:|"]
    for row in speed.get("variants", []):
        lines.append(f"| {row['dtype']} | {row['way']} | {row.get('error') or format(row['seconds'], '.5f')} |")
    return lines


def _training(training: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Training",
        "",
        "| stage | seconds | steps | samples/s | error at the start | best error | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    stages = {name: row for name, row in training.items() if isinstance(row, dict)}
    for stage, row in stages.items():
        if "steps" in row and row["samples_per_s"] is not None:
            figures = f"{row['seconds']:.0f} | {row['steps']} | {row['samples_per_s']:.0f}"
            figures += f" | {row['error_at_the_start']:.4f} | {row['error']:.4f}"
            lines.append(f"| {stage} | {figures} | {row['measure'] or ''} |")
        else:
            lines.append(f"| {stage} | | | | | | {row.get('error', 'no step was done')} |")
    return lines
