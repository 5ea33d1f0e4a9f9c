"""Relative poses from the same putative matches: MAGSAC with and without the learned filter, and without sampling.

    python -m benchmarks.parts.correspondences ../shared/data/test/strecha/Herz-Jesus-P8 --cache CACHE

Putative matches are all nearest neighbours of 2000 keypoints. Writes benchmarks/results/parts/correspondences.json
and .md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.parts.report import RESULTS, write_report
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.comparison import fill_cache, open_features
from kornia_lift.evaluation.filtered import putative_pair
from kornia_lift.evaluation.measures.geometry import Estimator, auc
from kornia_lift.evaluation.measures.learned_filter import (
    PutativePair,
    eight_point_ransac_error,
    filter_alone_error,
    magsac_errors,
    score_matches,
)
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.evaluation.selection import spread_pairs
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.scene import FloatArray

COUNT = 2000
ESTIMATOR = Estimator()
#: By feature, way and scene: for each pair its errors.
Errors = dict[str, dict[str, dict[str, list[list[float]]]]]
THRESHOLDS = (5, 10, 20)


def errors_of(pair: PutativePair, network: CorrespondenceNet) -> dict[str, list[float]]:
    """Errors in degrees of every way to a pose: one, or one for each order of the matches."""
    scored = score_matches(network, pair)
    kept = scored.logits > 0
    mutual: Tensor = torch.from_numpy(pair.side[:, 1]) > 0
    ways: dict[str, Callable[[], float | FloatArray]] = {
        "MAGSAC, all nearest neighbours": lambda: magsac_errors(pair, ESTIMATOR),
        "MAGSAC, mutual": lambda: magsac_errors(pair, ESTIMATOR, mutual),
        "learned filter + MAGSAC, all": lambda: magsac_errors(pair, ESTIMATOR, kept),
        "learned filter + MAGSAC, mutual": lambda: magsac_errors(pair, ESTIMATOR, kept & mutual),
        "plain eight-point RANSAC, all": lambda: eight_point_ransac_error(pair, ESTIMATOR.pose_threshold),
        "filter alone, reweighted": lambda: filter_alone_error(pair, scored),
        "filter alone, weighted eight-point": lambda: filter_alone_error(pair, scored, reweighted=False),
    }
    return {name: np.atleast_1d(way()).tolist() for name, way in ways.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--features", nargs="+", default=["opencv-sift", "lift"])
    parser.add_argument("--weights", default="learned")
    parser.add_argument("--max-pairs", type=int, default=0, help="of a scene, spread over their overlap")
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    network = CorrespondenceNet(CorrespondenceNet.name_of(args.weights))
    scenes = [scene for group in load_scenes(args.scenes).values() for scene in group]
    if args.max_pairs:
        scenes = [spread_pairs(scene, args.max_pairs) for scene in scenes]
    errors: Errors = {}
    seconds = []
    for spec in args.features:
        entry = candidate(spec)
        fill_cache(entry, {"": scenes}, args.cache, COUNT, progress=lambda line: print(line, file=sys.stderr))
        with open_features(entry, args.cache, COUNT) as source:
            for scene in scenes:
                for pair in scene.pairs:
                    features = tuple(source.read(scene.name, scene.names[k]).top(COUNT) for k in (pair.i, pair.j))
                    putative = putative_pair(scene, pair, (features[0], features[1]))
                    before = time.process_time()
                    score_matches(network, putative)
                    seconds.append(time.process_time() - before)
                    for name, found in errors_of(putative, network).items():
                        errors.setdefault(spec, {}).setdefault(name, {}).setdefault(scene.name, []).append(found)
    content = {
        "provenance": provenance(RESULTS),
        "estimator": ESTIMATOR.label,
        "keypoints": COUNT,
        "filter": args.weights,
        "median_cpu_ms_of_the_filter": round(1e3 * float(np.median(seconds)), 1),
        "degrees": {
            spec: {
                name: {
                    scene: [[round(v, 3) if np.isfinite(v) else None for v in values] for values in rows]
                    for scene, rows in by.items()
                }
                for name, by in ways.items()
            }
            for spec, ways in errors.items()
        },
    }
    write_report(RESULTS, "correspondences", content, table(errors, content))
    return 0


def table(errors: Errors, content: dict[str, object]) -> str:
    """A row per feature and way, the area under the curve at each threshold; mean over scenes."""
    lines = ["# Learned filter\n", "| feature | way to the pose |" + "".join(f" AUC@{t}° |" for t in THRESHOLDS)]
    lines.append("| --- | --- |" + " ---: |" * len(THRESHOLDS))
    pairs: dict[str, int] = {}
    for spec, found in errors.items():
        for name, by in found.items():
            pairs = {scene: len(rows) for scene, rows in by.items()}
            means = [np.mean([auc(np.concatenate(rows), t) for rows in by.values()]) for t in THRESHOLDS]
            lines.append(f"| {spec} | {name} |" + "".join(f" {v:.3f} |" for v in means))
    made = content["provenance"]
    assert isinstance(made, dict)
    lines.append(
        f"\nPairs: {', '.join(f'{scene} {n}' for scene, n in pairs.items())}; mean over scenes. {COUNT} keypoints; "
        f"{content['estimator'].replace(' on mutual nearest neighbours', '')}. "  # type: ignore[attr-defined]
        f"The filter takes {content['median_cpu_ms_of_the_filter']} ms of processor time (median). "
        f"Made {made['time']} at commit {made['commit']}.\n"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
