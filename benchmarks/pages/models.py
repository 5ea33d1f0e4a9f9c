"""The table of models in the documentation, and the bars of its first page, from the result files.

    python -m benchmarks.pages.models

Reads accuracy/accuracy.json, accuracy/accuracy_robustness.json and speed/speed.json of benchmarks/results and the sizes
of the weight files, and puts the table between the marks of docs/models.md and the bars into
docs/images/at_a_glance.svg. Run it after any of them has changed; a test compares the table.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.pages.marks import put_between
from benchmarks.timing.results import quotient
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.report.results import FeatureResults, Results
from kornia_lift.scenes.folders import HOMOGRAPHY, POSED
from kornia_lift.weights._registry import FOLDER, MODELS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
DOCS = ROOT / "docs" / "models.md"
OTHERS = ("opencv-sift", "keynet-orinet-hardtfeat", "xfeat", "aliked-n16", "disk")
#: The same feature by the name of the file of speeds: the time does not depend on the descriptor's weights.
SPEED_NAME = {"keynet-orinet-hardtfeat": "keynet-orinet-hardnet"}
#: The same network by the name of the robustness file: ALIKED's variant for rotated images.
ROTATED_NAME = {"aliked-n16": "aliked-n16rot"}
SHORT = {
    "opencv-sift": "SIFT",
    "keynet-orinet-hardtfeat": "Key.Net + HardTFeat",
    "xfeat": "XFeat",
    "aliked-n16": "ALIKED",
    "disk": "DISK",
}
HEAD = (
    "| model | file, MB | seconds | times SIFT | memory, MB | correct, posed | pose AUC@5° | correct, homographies | "
    "AUC@5 px | rotated by 45° | reduced to a half |"
)


def main() -> int:
    put_between(DOCS, "models", table())
    bars(ROOT / "docs" / "images" / "at_a_glance.svg")
    print(table())
    return 0


def table() -> str:
    """One row per shipped model and rival, in Markdown."""
    accuracy = _features(RESULTS / "accuracy" / "accuracy.json")
    robustness = _features(RESULTS / "accuracy" / "accuracy_robustness.json")
    speed = {row["method"]: row for row in json.loads((RESULTS / "speed" / "speed.json").read_text())["comparison"]}
    sift = _seconds(speed["opencv-sift"])
    lines = [HEAD, "| --- |" + " ---: |" * (HEAD.count("|") - 2)]
    for name in (*MODELS, *OTHERS):
        size = f"{(FOLDER / MODELS[name].file).stat().st_size / 1e6:.1f}" if name in MODELS else "–"
        timed = speed.get(SPEED_NAME.get(name, name))
        rotated = robustness.get(ROTATED_NAME.get(name, name))
        cells = [
            f"`{name}`" if name in MODELS else name,
            size,
            *(("–",) * 3 if timed is None else _timed(timed, sift)),
            *(
                _value(accuracy.get(name), group, measure, digits)
                for group, measure, digits in (
                    (POSED, "correct_matches", 0),
                    (POSED, "pose_auc_5", 3),
                    (HOMOGRAPHY, "correct_matches", 0),
                    (HOMOGRAPHY, "homography_auc_5", 3),
                )
            ),
            *(_value(rotated, warp, "correct_matches", 0) for warp in ("rotate45", "scale0.5")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bars(path: Path) -> None:
    """Draw correct matches of ours and of others, most first."""
    accuracy = _features(RESULTS / "accuracy" / "accuracy.json")
    figure = Figure(figsize=(9, 3.1), layout="constrained", facecolor="white")
    figure.suptitle("correct matches per pair", fontsize=10)
    panels = (POSED, "Herz-Jesus-P8: posed"), (HOMOGRAPHY, "Oxford: homographies")
    for axes, (group, title) in zip(figure.subplots(1, 2), panels, strict=True):
        found = {
            name: estimate.value
            for name in ("lift", "lift-plus", *OTHERS)
            if (estimate := accuracy[name].estimate(group, "correct_matches"))
        }
        names = sorted(found, key=found.__getitem__)
        colours = ["#d55e00" if name in MODELS else "#9aa5b1" for name in names]
        shown = axes.barh([SHORT.get(name, name) for name in names], [found[name] for name in names], color=colours)
        axes.bar_label(shown, fmt="%.0f", fontsize=8, padding=3)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8, length=0)
        axes.set_xticks([])
        axes.margins(x=0.12)
        for spine in axes.spines.values():
            spine.set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _timed(row: dict[str, Any], sift: float) -> tuple[str, str, str]:
    seconds = _seconds(row)
    return f"{seconds:.2f}", f"{quotient(row) or seconds / sift:.1f}", f"{row['peak_mb']:.0f}"


def _seconds(row: dict[str, Any]) -> float:
    return statistics.median(s["total"] for s in row["seconds"]) if row["seconds"] else float(row["first"]["total"])


def _features(path: Path) -> dict[str, FeatureResults]:
    return {feature.name: feature for feature in Results.load(path).features}


def _value(feature: FeatureResults | None, group: str, measure: str, digits: int) -> str:
    estimate = None if feature is None else feature.estimate(group, measure)
    return "–" if estimate is None else f"{estimate.value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
