"""The table of goals of docs/goals.md, from the result files.

    python -m benchmarks.pages.goals

Reads accuracy, development, robustness and reconstruction of benchmarks/results/accuracy, both files of speeds and
parts/refined.json. Run it after any of them has changed; a test compares the table.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pages.marks import put_between
from benchmarks.timing.results import quotient
from kornia_lift.evaluation.report.results import Results

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
DOCS = ROOT / "docs" / "goals.md"
MODELS = ("lift", "lift-plus")
PEERS = ("opencv-sift", "opencv-rootsift", "keynet-orinet-hardtfeat", "aliked-n16", "xfeat", "disk")
ROTATIONS = ("rotate15", "rotate45", "rotate90", "rotate180")
RESCALES = ("scale0.5", "scale0.7", "scale1.4", "scale2")


class Goal(NamedTuple):
    """A goal for a model.

    Attributes:
        what: what is measured.
        limit: the value to be reached.
        of: the value of a model.
        smaller: the value must not exceed the limit, otherwise reach it.

    """

    what: str
    limit: float
    of: Callable[[str], float]
    smaller: bool = False

    def cell(self, model: str) -> str:
        """Return the value of a model, and whether it reaches the limit."""
        value = round(self.of(model), 3)
        met = value <= self.limit if self.smaller else value >= self.limit
        return f"{_number(value)}{'' if met else ' **missed**'}"


class Figures:
    """What the result files say."""

    def __init__(self, results: Path = RESULTS) -> None:
        names = ("accuracy", "accuracy_development", "accuracy_robustness")
        self._accuracy = {
            name: {f.name: f for f in Results.load(results / "accuracy" / f"{name}.json").features} for name in names
        }
        self.models = json.loads((results / "accuracy" / "accuracy_sfm.json").read_text())["features"]
        self.refined = json.loads((results / "parts" / "refined.json").read_text())["features"]
        self.speed = {
            name: {
                row["method"]: row for row in json.loads((results / "speed" / f"{name}.json").read_text())["comparison"]
            }
            for name in ("speed", "speed_intel")
        }

    def value(self, feature: str, group: str, measure: str, file: str = "accuracy") -> float:
        """Return the mean of a measure of a feature."""
        estimate = self._accuracy[file][feature].estimate(group, measure)
        assert estimate is not None
        return float(estimate.value)

    def best(self, group: str, measure: str) -> float:
        """Return the best value of the other features."""
        return max(self.value(peer, group, measure) for peer in PEERS)

    def matches(self, feature: str, warp: str) -> float:
        """Return the correct matches of a feature where the second image is warped."""
        return self.value(feature, warp, "correct_matches", "accuracy_robustness")

    def reprojection(self, feature: str) -> float:
        """Return the reprojection error of a reconstruction with known intrinsics."""
        return float(next(row["reprojection_error"] for row in self.models[feature] if row["known_intrinsics"]))


def goals(found: Figures) -> list[Goal]:
    """List the goals in the order of the table."""

    def over_sift(group: str, measure: str) -> Callable[[str], float]:
        return lambda model: found.value(model, group, measure) / found.value("opencv-sift", group, measure)

    def castle(measure: str) -> Callable[[str], float]:
        file = "accuracy_development"
        return lambda model: (
            found.value(model, "posed", measure, file) - found.value("aliked-n16", "posed", measure, file)
        )

    def refined_castle(model: str) -> float:
        accuracy: float = found.refined[model]["castle-P30"]["refined"]["pose_auc_5"]
        return accuracy - found.value("aliked-n16", "posed", "pose_auc_5", "accuracy_development")

    def refined_mma(model: str) -> float:
        mine, sift = (float(found.refined[name]["Oxford"]["refined"]["mma_1"]) for name in (model, "opencv-sift"))
        return mine / sift

    def kept(model: str) -> float:
        return min(found.matches(model, warp) for warp in ROTATIONS) / found.matches(model, "identity")

    def rescaled(model: str) -> float:
        return min(found.matches(model, warp) / found.matches("opencv-sift", warp) for warp in RESCALES)

    def times_sift(file: str) -> Callable[[str], float]:
        rows = found.speed[file]
        return lambda model: quotient(rows[model]) or median_seconds(rows[model]) / median_seconds(rows["opencv-sift"])

    return [
        Goal("correct matches / SIFT's, Herz-Jesus-P8", 1.71, over_sift("posed", "correct_matches")),
        Goal("correct matches / SIFT's, Oxford", 1.8, over_sift("homography", "correct_matches")),
        Goal("pose AUC@5°, Herz-Jesus-P8", 0.87, lambda model: found.value(model, "posed", "pose_auc_5")),
        Goal("pose AUC@5° less ALIKED's, castle-P30", -0.03, castle("pose_auc_5")),
        Goal("the same, our matches refined", -0.03, refined_castle),
        Goal("pose AUC@10° less ALIKED's, castle-P30", -0.03, castle("pose_auc_10")),
        *(
            Goal(
                f"homography AUC@{pixels} px less the best other's, Oxford",
                0.0,
                lambda model, m=measure: found.value(model, "homography", m) - found.best("homography", m),  # type: ignore[misc]
            )
            for pixels, measure in ((1, "homography_auc_1"), (5, "homography_auc_5"))
        ),
        Goal("crowding, Herz-Jesus-P8", 0.01, lambda model: found.value(model, "posed", "crowding"), smaller=True),
        Goal("MMA@1 px / SIFT's, Oxford", 1.15, over_sift("homography", "mma_1")),
        Goal("the same, matches of both refined", 1.15, refined_mma),
        Goal(
            "reprojection error / RootSIFT's, Herz-Jesus-P8, 2000 keypoints",
            1.25,
            lambda model: found.reprojection(model) / found.reprojection("opencv-rootsift"),
            smaller=True,
        ),
        Goal("second image rotated by 15, 45, 90, 180°: least share of matches left", 0.93, kept),
        Goal("second image rescaled by .5, .7, 1.4, 2: least correct matches / SIFT's", 1.0, rescaled),
        Goal("time / SIFT's, AMD EPYC", 2.5, times_sift("speed"), smaller=True),
        Goal("time / SIFT's, Intel Xeon", 2.5, times_sift("speed_intel"), smaller=True),
    ]


def median_seconds(row: Mapping[str, Any]) -> float:
    """Return the median time of a call."""
    return statistics.median(call["total"] for call in row["seconds"])


def table(found: Figures) -> str:
    """One row for each goal."""
    head = "".join(f" `{model}` |" for model in MODELS)
    lines = [f"| goal | at least |{head}", "| --- | ---: |" + " ---: |" * len(MODELS)]
    for goal in goals(found):
        limit = f"at most {_number(goal.limit)}" if goal.smaller else _number(goal.limit)
        cells = "".join(f" {goal.cell(model)} |" for model in MODELS)
        lines.append(f"| {goal.what} | {limit} |{cells}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}".rstrip("0").rstrip(".") or "0"


def main() -> int:
    shown = table(Figures())
    put_between(DOCS, "goals", shown)
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
