"""Kornia's matchers and the learned filter on the development scenes, from the same features.

    python -m benchmarks.parts.matchers --cache CACHE

Of each way from features to matches: matches, correct ones, accuracy of the poses that MAGSAC finds from them, and
time. Writes benchmarks/results/parts/matchers.json and .md, and the table of docs/mixing.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.feature import match_adalam, match_fginn, match_mnn, match_nn, match_smnn
from kornia.feature.adalam import get_adalam_default_config
from torch import Tensor

from benchmarks.development import development_groups
from benchmarks.pages.marks import put_between
from benchmarks.parts.report import RESULTS, ROOT, write_report
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.comparison import fill_cache, open_features
from kornia_lift.evaluation.filtered import putative_pair
from kornia_lift.evaluation.measures.correct import correct_matches
from kornia_lift.evaluation.measures.epipolar import EPIPOLAR_THRESHOLD, scene_epipolar_distance
from kornia_lift.evaluation.measures.geometry import POSE_AUC, Estimator, auc, pose_error
from kornia_lift.evaluation.measures.learned_filter import score_matches
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.features import Features
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.scene import HasPose, Pair

COUNT = 1000
ESTIMATOR = Estimator(orders=5)
GROUPS = {"posed": "castle-P30", "sfm": "held-out scenes"}
Matcher = Callable[[HasPose, Pair, tuple[Features, Features]], Tensor]


def matchers(weights: str) -> dict[str, Matcher]:
    """Ways from the features of a pair to indices of matches (K, 2), by name."""
    network = CorrespondenceNet(CorrespondenceNet.name_of(weights))

    def by_descriptor(match: Callable[..., tuple[Tensor, Tensor]], **options: Any) -> Matcher:
        return lambda scene, pair, features: match(*_descriptors(features), **options)[1]

    def by_frames(match: Callable[..., tuple[Tensor, Tensor]], **options: Any) -> Matcher:
        return lambda scene, pair, features: match(
            *_descriptors(features), *(each.lafs[None] for each in features), **options
        )[1]

    def adalam(**options: Any) -> Matcher:
        def run(scene: HasPose, pair: Pair, features: tuple[Features, Features]) -> Tensor:
            config = get_adalam_default_config() | {"device": torch.device("cpu")} | options
            sizes = [each.image_size and each.image_size[::-1] for each in features]
            return by_frames(match_adalam, config=config, hw1=sizes[0], hw2=sizes[1])(scene, pair, features)

        return run

    def learned(scene: HasPose, pair: Pair, features: tuple[Features, Features]) -> Tensor:
        putative = putative_pair(scene, pair, features)
        kept = (score_matches(network, putative).logits > 0) & (torch.from_numpy(putative.side[:, 1]) > 0)
        return by_descriptor(match_nn)(scene, pair, features)[kept]

    return {
        "`match_mnn`": by_descriptor(match_mnn),
        "`match_smnn`, 0.95": by_descriptor(match_smnn, th=0.95),
        "`match_smnn`, 0.9": by_descriptor(match_smnn, th=0.9),
        "`match_fginn`, 0.95, mutual": by_frames(match_fginn, th=0.95, mutual=True),
        "`match_adalam`": adalam(),
        "`match_adalam`, without angles and scales": adalam(
            orientation_difference_threshold=None, scale_rate_threshold=None
        ),
        "the learned filter, mutual ones": learned,
    }


def _descriptors(features: tuple[Features, Features]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.asarray(each.descriptors, dtype=np.float32)) for each in features)
    return first, second


def measure(scene: HasPose, pair: Pair, features: tuple[Features, Features], match: Matcher) -> dict[str, Any]:
    """What a matcher finds in one pair."""
    began = time.process_time()
    index = match(scene, pair, features).numpy()
    seconds = time.process_time() - began
    first, second = (each.keypoints[index[:, k]] for k, each in enumerate(features))
    distance = scene_epipolar_distance(scene, (pair.i, pair.j), first, second)
    one, two = (d.numpy()[index[:, k]] for k, d in enumerate(_descriptors(features)))
    kept = correct_matches((first, second, np.linalg.norm(one - two, axis=1)), distance, EPIPOLAR_THRESHOLD)
    cameras, pose = (scene.intrinsics[pair.i], scene.intrinsics[pair.j]), scene.relative_pose(pair.i, pair.j)
    ideal = np.hstack([scene.undistort(pair.i, first), scene.undistort(pair.j, second)])
    errors = ESTIMATOR.errors(lambda a, b: pose_error(a, b, cameras, pose, ESTIMATOR), ideal)
    return {
        "matches": len(index),
        "correct": len(kept),
        "seconds": round(seconds, 5),
        "degrees": [round(float(e), 3) if np.isfinite(e) else None for e in errors],
    }


def main() -> int:
    shared = ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=shared / "train")
    parser.add_argument("--features", nargs="+", default=["opencv-rootsift", "lift", "lift-plus"])
    parser.add_argument("--weights", default="learned")
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    groups = {name: development_groups(args.train)[name] for name in GROUPS}
    ways = matchers(args.weights)
    found: dict[str, Any] = {}
    for spec in args.features:
        entry = candidate(spec)
        fill_cache(entry, groups, args.cache, COUNT, progress=lambda line: print(line, file=sys.stderr))
        with open_features(entry, args.cache, COUNT) as source:
            for group, scenes in groups.items():
                for scene in scenes:
                    assert isinstance(scene, HasPose)
                    for pair in scene.pairs:
                        first, second = (source.read(scene.name, scene.names[k]).top(COUNT) for k in (pair.i, pair.j))
                        for name, match in ways.items():
                            row = measure(scene, pair, (first, second), match)
                            found.setdefault(spec, {}).setdefault(name, {}).setdefault(group, []).append(row)
    content = {
        "provenance": provenance(RESULTS),
        "estimator": ESTIMATOR.label,
        "keypoints": COUNT,
        "filter": args.weights,
        "features": found,
    }
    write_report(RESULTS, "matchers", content, page(content))
    put_between(ROOT / "docs" / "mixing.md", "matchers", summary(content))
    return 0


def page(content: dict[str, Any]) -> str:
    """A table for each feature: means over the pairs of each group."""
    made = content["provenance"]
    lines = [
        "# From features to matches\n",
        f"{content['keypoints']} keypoints; development scenes; matches are correct within {EPIPOLAR_THRESHOLD:g} px "
        f"of both epipolar lines, thinned. Pose: {content['estimator'].replace(' on mutual nearest neighbours', '')}. "
        f"Processor time of one thread. Made {made['time']} at commit {made['commit']}.",
    ]
    for spec, ways in content["features"].items():
        columns = "".join(f" {GROUPS[group]}: matches | correct | AUC@5° | @10° |" for group in GROUPS)
        lines += [f"\n## {spec}\n", f"| matcher |{columns} ms |", "| --- |" + " ---: |" * (4 * len(GROUPS) + 1)]
        for name, by in ways.items():
            cells = [f"{value:{form}}" for group in GROUPS for value, form in _means(by[group])]
            seconds = np.mean([row["seconds"] for rows in by.values() for row in rows])
            lines.append(f"| {name} | {' | '.join(cells)} | {1e3 * seconds:.0f} |")
    return "\n".join(lines) + "\n"


def summary(content: dict[str, Any], spec: str = "lift-plus") -> str:
    """One feature in fewer columns."""
    groups = "".join(f" {name}: correct of all | AUC@5° |" for name in GROUPS.values())
    lines = [f"| matcher |{groups} ms |", "| --- |" + " ---: |" * (2 * len(GROUPS) + 1)]
    for name, by in content["features"][spec].items():
        means = [dict(zip(("all", "correct", "auc"), (v for v, _ in _means(by[g])), strict=False)) for g in GROUPS]
        cells = "".join(f" {m['correct']:.0f} of {m['all']:.0f} | {m['auc']:.3f} |" for m in means)
        seconds = np.mean([row["seconds"] for rows in by.values() for row in rows])
        lines.append(f"| {name} |{cells} {1e3 * seconds:.0f} |")
    return "\n".join(lines)


def _means(rows: list[dict[str, Any]]) -> list[tuple[float, str]]:
    counts = [(float(np.mean([row[key] for row in rows])), ".0f") for key in ("matches", "correct")]
    degrees = [[np.inf if e is None else e for e in row["degrees"]] for row in rows]
    areas = [(float(np.mean([auc(np.array(each), t) for each in degrees])), ".3f") for t in POSE_AUC[:2]]
    return counts + areas


if __name__ == "__main__":
    raise SystemExit(main())
