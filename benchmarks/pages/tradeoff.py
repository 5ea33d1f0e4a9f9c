"""Time against correct matches and against pose AUC: all models and peers in one plot.

    python -m benchmarks.pages.tradeoff

Reads speed/speed.json (1600x1200 pixels, 1000 keypoints) and accuracy/accuracy.json of benchmarks/results, writes
speed/tradeoff.svg and shows it in docs/evaluation.md. A method that one of the two files lacks is left out and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.pages.marks import put_between
from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.report.plots import line_style
from kornia_lift.evaluation.report.results import Results

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
LINK = "![time against correct matches and pose AUC](../benchmarks/results/speed/tradeoff.svg)"
#: Names of the same method in the two files.
ACCURACY_NAME = {"keynet-orinet-hardnet": "keynet-orinet-hardtfeat"}
PANELS = (
    ("posed", "correct_matches", "correct matches, Herz-Jesus-P8"),
    ("homography", "correct_matches", "correct matches, Oxford"),
    ("posed", "pose_auc_5", "pose AUC@5°, Herz-Jesus-P8"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--no-docs", action="store_true", help="do not show it in docs/evaluation.md")
    args = parser.parse_args()
    folder = args.results
    rows = json.loads((folder / "speed" / "speed.json").read_text())["comparison"]
    seconds = {
        ACCURACY_NAME.get(r["method"], r["method"]): statistics.median(s["total"] for s in r["seconds"] or [r["first"]])
        for r in rows
    }
    results = Results.load(folder / "accuracy" / "accuracy.json")
    measured = {f.name: f for f in results.features}
    both = [name for name in seconds if name in measured]
    lacking = sorted({*seconds, *measured} - set(both))
    if lacking:
        print(f"left out, since time or accuracy was not measured: {', '.join(lacking)}", file=sys.stderr)
    figure = require("matplotlib.figure", extra="eval").Figure(figsize=(13, 4.4), layout="constrained")
    for axes, (group, measure, label) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for k, name in enumerate(sorted(both, key=seconds.__getitem__)):
            estimate = measured[name].estimate(group, measure)
            if estimate is None:
                continue
            style = {**line_style(k), "linestyle": "none", "markersize": 9}
            filled = "full" if name.startswith("lift") else "none"
            axes.plot(seconds[name], estimate.value, fillstyle=filled, label=name, markeredgewidth=2, **style)
        axes.set_xscale("log")
        axes.set_xlabel("seconds per image, 1600x1200, 1000 keypoints")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=9, frameon=False)
    with atomic_write(folder / "speed" / "tradeoff.svg") as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    if not args.no_docs:
        put_between(DOCS, "tradeoff", LINK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
