"""What refining the positions of matches brings to features, on development and test scenes.

    python benchmarks/refinement.py

Writes benchmarks/results/parts/refined.json and .md, and the table of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]  # Python looks beside this file only

from benchmarks.development import development_groups  # noqa: E402
from benchmarks.pages.marks import put_between  # noqa: E402
from benchmarks.parts.report import RESULTS, write_report  # noqa: E402
from kornia_lift.evaluation import evaluate_feature  # noqa: E402
from kornia_lift.evaluation.candidates import candidate  # noqa: E402
from kornia_lift.evaluation.features.extraction import to_features  # noqa: E402
from kornia_lift.evaluation.measures.geometry import Estimator  # noqa: E402
from kornia_lift.evaluation.report.results import provenance  # noqa: E402
from kornia_lift.features import Features  # noqa: E402
from kornia_lift.matching.descriptors import match_descriptors  # noqa: E402
from kornia_lift.matching.refinement import refined_positions  # noqa: E402
from kornia_lift.scenes.folders import load_scenes  # noqa: E402
from kornia_lift.scenes.scene import Scene  # noqa: E402

COUNT = 1000
ESTIMATOR = Estimator(orders=5)
FEATURES = ("opencv-sift", "lift", "lift-plus")
#: Of the groups: number of correct matches, error, and accuracy of what is estimated from them.
MEASURES = {
    "Herz-Jesus-P8": ("correct_matches", "median_error", "pose_auc_5"),
    "Oxford": ("correct_matches", "median_error", "homography_auc_1"),
    "castle-P30": ("correct_matches", "median_error", "pose_auc_5"),
    "held-out scenes": ("epipolar_matches", "median_epipolar_error", "pose_auc_5"),
    "warped images": ("correct_matches", "median_error", "homography_auc_1"),
    "warped, degraded": ("correct_matches", "median_error", "homography_auc_1"),
}


def scenes(data: Path) -> dict[str, list[Scene]]:
    """Return the test scenes, then the development scenes, by the names of the table."""
    test = load_scenes([data / "test"])
    development = development_groups(data / "train")
    chosen = (development[name] for name in ("posed", "sfm", "images", "degraded images"))
    return dict(zip(MEASURES, (test["posed"], test["homography"], *chosen), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--features", nargs="+", default=FEATURES)
    parser.add_argument("--groups", nargs="+", default=list(MEASURES))
    args = parser.parse_args()
    groups = scenes(args.data)
    found: dict[str, dict[str, Any]] = {}
    times: dict[str, dict[str, float]] = {}
    for spec in args.features:
        build = candidate(spec).build
        assert build is not None
        extract = build(COUNT)
        for group in args.groups:
            found.setdefault(spec, {})[group] = measure(extract, group, groups[group])
            print(spec, group, found[spec][group], file=sys.stderr, flush=True)
        times[spec] = seconds(extract, groups["Herz-Jesus-P8"][0])
    content = {
        "provenance": provenance(RESULTS),
        "estimator": ESTIMATOR.label,
        "keypoints": COUNT,
        "features": found,
        "seconds": times,
        "threads": torch.get_num_threads(),
    }
    write_report(RESULTS, "refined", content, page(content))
    put_between(ROOT / "docs" / "evaluation.md", "refined", table(content))
    return 0


@torch.inference_mode()
def measure(extract: Any, group: str, chosen: list[Scene]) -> dict[str, Any]:
    """Measures of a group with matches as they are found and refined."""
    rows: dict[str, Any] = {}
    cache: dict[tuple[str, str], Features] = {}
    for how in ("as found", "refined"):
        scores = evaluate_feature(extract, chosen, COUNT, estimator=ESTIMATOR, refine=how == "refined", cache=cache)
        rows[how] = {name: round(float(scores[name]), 4) for name in MEASURES[group]}
        if scores.get("mma"):
            rows[how]["mma_1"] = round(float(scores["mma"][0]), 4)
    return rows | {"pairs": scores["pairs"]}


@torch.inference_mode()
def seconds(extract: Any, scene: Scene, pairs: int = 8) -> dict[str, float]:
    """Median seconds of what a pair takes: the features of both images, and the refinement of the mutual matches."""
    taken: dict[str, list[float]] = {"features": [], "refinement": []}
    for pair in scene.pairs[:pairs]:
        images = scene.image(pair.i), scene.image(pair.j)
        start = time.perf_counter()
        first, second = (to_features(extract(image), (image.shape[-1], image.shape[-2])) for image in images)
        taken["features"].append(time.perf_counter() - start)
        matches, _ = match_descriptors(torch.from_numpy(first.descriptors), torch.from_numpy(second.descriptors), 1.0)
        start = time.perf_counter()
        refined_positions(images, (first, second), matches)
        taken["refinement"].append(time.perf_counter() - start)
    return {name: round(statistics.median(values), 3) for name, values in taken.items()}


def table(content: Mapping[str, Any]) -> str:
    """One row for each feature, as found and refined: for each group matches, error and area under the curve."""
    features = content["features"]
    groups = list(next(iter(features.values())))
    lines = ["| matches of | " + " | ".join(groups) + " |", "| --- |" + " --- |" * len(groups)]
    for name, by in features.items():
        for how in ("as found", "refined"):
            cells = []
            for group in groups:
                count, error, accuracy = (by[group][how][measure] for measure in MEASURES[group])
                cells.append(f"{count:.0f}, {error:.2f}, {accuracy:.3f}")
            lines.append(f"| {name}{', refined' * (how == 'refined')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(content: Mapping[str, Any]) -> str:
    made = content["provenance"]
    times = "; ".join(
        f"{name}: features of both images {by['features']:.2f}, refinement {by['refinement']:.2f}"
        for name, by in content["seconds"].items()
    )
    return (
        "# Refined matches\n\n"
        "Correct matches, their median error in pixels (held-out scenes: from the epipolar lines), and AUC@5 degrees "
        f"of the poses or AUC@1 px of the homographies. {content['keypoints']} keypoints; {content['estimator']}. Made "
        f"{made['time']} at commit {made['commit']} by `python benchmarks/refinement.py`.\n\n{table(content)}\n\n"
        f"Seconds of a pair of Herz-Jesus-P8, {content['threads']} threads: {times}.\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
