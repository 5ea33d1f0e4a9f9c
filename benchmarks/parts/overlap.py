"""How often ``match`` says that two images overlap: pairs of different scenes, and pairs that share a view.

    python -m benchmarks.parts.overlap ../shared/data/train --cache CACHE

The rule is that of :mod:`kornia_lift.matching.overlap`, with the defaults of ``kornia-lift match`` and with other
settings. Writes benchmarks/results/parts/overlap.json and .md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.development import development_groups
from benchmarks.parts.report import RESULTS, write_report
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.comparison import fill_cache, open_features
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.features import Features
from kornia_lift.matching.pairs import match_pair
from kornia_lift.matching.verification import Geometry

GROUPS = ("sfm", "sfm, trained on")
COUNT = 2000
Views = tuple[Features, Features]


@dataclass(frozen=True)
class Setting:
    """Options of ``kornia-lift match``."""

    keypoints: int = COUNT
    ratio: float = 0.95
    threshold: float = 2.0
    geometry: Geometry = "fundamental"

    @property
    def label(self) -> str:
        return f"{self.keypoints} keypoints, ratio {self.ratio:g}, {self.threshold:g} px, {self.geometry}"


SETTINGS = (
    Setting(),
    Setting(keypoints=500),
    Setting(ratio=1.0),
    Setting(threshold=0.5),
    Setting(threshold=5.0),
    Setting(geometry="homography"),
    Setting(ratio=1.0, geometry="homography"),
)


def measure(pairs: Sequence[Views], setting: Setting) -> dict[str, Any]:
    """Match pairs; return how many are said to overlap, and the putative and verified matches of each."""
    found = [
        match_pair(
            first.top(setting.keypoints),
            second.top(setting.keypoints),
            ratio=setting.ratio,
            geometry=setting.geometry,
            threshold=setting.threshold,
        )
        for first, second in pairs
    ]
    return {
        "pairs": len(found),
        "overlap": sum(match.overlap for match in found),
        "putative": [len(match.pairs) for match in found],
        "verified": [int(match.verified.sum()) for match in found],
    }


def unrelated(scenes: Sequence[Sequence[Features]], count: int) -> list[Views]:
    """Draw pairs of images of different scenes, each pair once."""
    sizes = [len(images) for images in scenes]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    if count > possible:
        raise ValueError(f"these scenes have {possible} pairs of images of different scenes, got {count} to draw")
    random = np.random.default_rng(0)
    drawn: dict[tuple[int, int, int, int], Views] = {}
    while len(drawn) < count:
        a, b = sorted(random.choice(len(scenes), 2, replace=False).tolist())
        i, j = int(random.integers(len(scenes[a]))), int(random.integers(len(scenes[b])))
        drawn[a, i, b, j] = scenes[a][i], scenes[b][j]
    return list(drawn.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the training data")
    parser.add_argument("--models", nargs="+", default=["lift", "lift-plus"])
    parser.add_argument("--unrelated", type=int, default=500)
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    groups = development_groups(args.data)
    scenes = [scene for name in GROUPS for scene in groups[name]]
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for model in args.models:
        entry = candidate(model)
        fill_cache(entry, {"": scenes}, args.cache, COUNT, progress=lambda line: print(line, file=sys.stderr))
        views: list[list[Features]] = []
        related: list[Views] = []
        with open_features(entry, args.cache, COUNT) as source:
            for scene in scenes:
                used = sorted({index for pair in scene.pairs for index in (pair.i, pair.j)})
                features = {index: source.read(scene.name, scene.names[index]) for index in used}
                views.append(list(features.values()))
                related += [(features[pair.i], features[pair.j]) for pair in scene.pairs]
        apart = unrelated(views, args.unrelated)
        measured[model] = {}
        for setting in SETTINGS:
            print(f"{model}: {setting.label}", file=sys.stderr)
            measured[model][setting.label] = {
                "different scenes": measure(apart, setting),
                "one scene": measure(related, setting),
            }
    content = {"provenance": provenance(RESULTS), "models": measured}
    write_report(RESULTS, "overlap", content, table(content))
    return 0


def table(content: dict[str, Any]) -> str:
    """A row for each model and setting."""
    lines = [
        "# Do two images overlap?\n",
        "| model | setting | different scenes: said to overlap | most verified matches | one scene: said to overlap | "
        "median of verified matches |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for model, by in content["models"].items():
        for setting, row in by.items():
            apart, one = row["different scenes"], row["one scene"]
            lines.append(
                f"| {model} | {setting} | {apart['overlap']} of {apart['pairs']} | {max(apart['verified'])} | "
                f"{one['overlap']} of {one['pairs']} | {np.median(one['verified']):.0f} |"
            )
    made = content["provenance"]
    lines.append(
        "\nPairs of one scene share at least 15 % of the reconstructed points that one of the images observes. "
        f"Made {made['time']} at commit {made['commit']} on {made['machine']}, "
        "by `python -m benchmarks.parts.overlap`.\n"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
