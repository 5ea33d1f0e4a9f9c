"""How often ``match`` says that two images overlap: pairs of different scenes, and pairs that share a view.

    python -m benchmarks.parts.overlap ../shared/data/train --cache CACHE

The rule is that of :mod:`kornia_lift.matching.overlap`, with the defaults of ``kornia-lift match`` (the settings named
"refined"), and without refinement with other settings and with ``--filter learned``. Writes
benchmarks/results/parts/overlap.json and .md; ``--resume`` measures what they lack.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.development import development_groups
from benchmarks.parts.report import RESULTS, write_report
from kornia_lift._gray import as_gray, to_bytes
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.comparison import fill_cache, open_features
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.features import Features
from kornia_lift.matching.filtering import CorrespondenceFilter
from kornia_lift.matching.pairs import match_pair
from kornia_lift.matching.verification import Geometry
from kornia_lift.networks.correspondence import CorrespondenceNet

GROUPS = ("sfm", "sfm, trained on")
COUNT = 2000
View = tuple[Features, Tensor]  # and the image, (1, 1, H, W), gray, uint8
Views = tuple[View, View]


@dataclass(frozen=True)
class Setting:
    """Options of ``kornia-lift match``."""

    keypoints: int = COUNT
    ratio: float = 0.95
    threshold: float = 2.0
    geometry: Geometry = "fundamental"
    learned: bool = False  # --filter learned, in place of the ratio test
    refine: bool = False  # --no-refine where false

    @property
    def label(self) -> str:
        chosen = "learned filter" if self.learned else f"ratio {self.ratio:g}"
        refined = ", refined" if self.refine else ""
        return f"{self.keypoints} keypoints, {chosen}, {self.threshold:g} px, {self.geometry}{refined}"


SETTINGS = (
    Setting(),
    Setting(keypoints=500),
    Setting(ratio=1.0),
    Setting(threshold=0.5),
    Setting(threshold=5.0),
    Setting(geometry="homography"),
    Setting(ratio=1.0, geometry="homography"),
    Setting(learned=True),
    Setting(learned=True, keypoints=500),
    Setting(learned=True, geometry="homography"),
    Setting(refine=True),
    Setting(refine=True, geometry="homography"),
)


def measure(pairs: Sequence[Views], setting: Setting) -> dict[str, Any]:
    """Match pairs; return how many are said to overlap, and the putative and verified matches of each."""
    keep = CorrespondenceFilter(CorrespondenceNet(pretrained=True)) if setting.learned else None
    found = [
        match_pair(
            first[0].top(setting.keypoints),
            second[0].top(setting.keypoints),
            ratio=setting.ratio,
            geometry=setting.geometry,
            threshold=setting.threshold,
            keep=keep,
            images=(first[1] / 255, second[1] / 255) if setting.refine else None,
        )
        for first, second in pairs
    ]
    return {
        "pairs": len(found),
        "overlap": sum(match.overlap for match in found),
        "putative": [len(match.pairs) for match in found],
        "verified": [int(match.verified.sum()) for match in found],
    }


def unrelated(scenes: Sequence[Sequence[View]], count: int) -> list[Views]:
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
    parser.add_argument("--resume", action="store_true", help="measure only what the result file lacks")
    args = parser.parse_args()
    groups = development_groups(args.data)
    scenes = [scene for name in GROUPS for scene in groups[name]]
    before = json.loads((RESULTS / "overlap.json").read_text()) if args.resume else {"models": {}}
    measured: dict[str, dict[str, dict[str, Any]]] = dict(before["models"])
    for model in args.models:
        entry = candidate(model)
        fill_cache(entry, {"": scenes}, args.cache, COUNT, progress=lambda line: print(line, file=sys.stderr))
        views: list[list[View]] = []
        related: list[Views] = []
        with open_features(entry, args.cache, COUNT) as source:
            for scene in scenes:
                used = sorted({index for pair in scene.pairs for index in (pair.i, pair.j)})
                features = {
                    index: (source.read(scene.name, scene.names[index]), to_bytes(as_gray(scene.image(index))))
                    for index in used
                }
                views.append(list(features.values()))
                related += [(features[pair.i], features[pair.j]) for pair in scene.pairs]
        apart = unrelated(views, args.unrelated)
        measured.setdefault(model, {})
        for setting in SETTINGS:
            if setting.label in measured[model]:
                continue
            print(f"{model}: {setting.label}", file=sys.stderr)
            measured[model][setting.label] = {
                "different scenes": measure(apart, setting),
                "one scene": measure(related, setting),
            }
    earlier = [*before.get("earlier", ()), before["provenance"]] if args.resume else []
    content = {"provenance": provenance(RESULTS), "earlier": earlier, "models": measured}
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
    made = [
        f"{run['time']} at commit {run['commit']} on {run['machine']}"
        for run in (*content["earlier"], content["provenance"])
    ]
    lines.append(
        "\nPairs of one scene share at least 15 % of the reconstructed points that one of the images observes. "
        f"Made {', and '.join(made)}, by `python -m benchmarks.parts.overlap`.\n"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
