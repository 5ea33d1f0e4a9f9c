"""How many keypoints ``match`` needs to see that two images overlap: the second image reduced to a few sizes.

    python -m benchmarks.parts.thumbnails ../shared/data/train

Every second pair of the held-out scenes, whose images share at least 15 % of the reconstructed points of one of them;
the defaults of ``kornia-lift match`` with ``lift-plus``. Writes benchmarks/results/parts/thumbnails.json and .md.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.development import development_groups
from benchmarks.parts.report import RESULTS, write_report
from kornia_lift import LIFTFeature
from kornia_lift._gray import as_gray
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.feature import extract_features, shrink
from kornia_lift.features import Features
from kornia_lift.matching.pairs import match_pair

MODEL = "lift-plus"
COUNT = 2000
SIDES = (48, 64, 96, 128, 192, 256)  # longer side of the second image
BINS = (0, 50, 100, 200, 500, COUNT + 1)  # keypoints of the second image


def features_of(feature: LIFTFeature, image: torch.Tensor) -> Features:
    return extract_features(feature, image, (image.shape[-1], image.shape[-2]))


@torch.inference_mode()
def measure(data: Path) -> list[dict[str, Any]]:
    """Return for every pair and size the keypoints of the second image, matches, and whether overlap is reported."""
    feature = LIFTFeature(COUNT, pretrained=MODEL)
    rows = []
    for scene in development_groups(data)["sfm"]:
        for pair in scene.pairs[::2]:
            first, second = (as_gray(scene.image(index)) for index in (pair.i, pair.j))
            whole = features_of(feature, first)
            for side in SIDES:
                small = features_of(feature, shrink(second, side))
                match = match_pair(whole, small)
                rows.append(
                    {
                        "scene": scene.name,
                        "side": side,
                        "keypoints": len(small),
                        "putative": len(match.pairs),
                        "verified": int(match.verified.sum()),
                        "overlap": match.overlap,
                    }
                )
            print(f"{scene.name}: {scene.names[pair.i]} {scene.names[pair.j]}", file=sys.stderr)
    return rows


def table(content: dict[str, Any]) -> str:
    """A row for each range of the number of keypoints."""
    lines = [
        "# How many keypoints tell that two images overlap?\n",
        "| keypoints of the smaller image | pairs and sizes | reported to overlap |",
        "| --- | ---: | ---: |",
    ]
    for low, high in pairwise(BINS):
        rows = [row for row in content["rows"] if low <= row["keypoints"] < high]
        name = f"{low} to {high - 1}" if low else f"fewer than {high}"
        lines.append(f"| {name} | {len(rows)} | {sum(row['overlap'] for row in rows)} |")
    made = content["provenance"]
    sides = ", ".join(map(str, SIDES))
    lines.append(
        f"\n{MODEL}, at most {COUNT} keypoints, the second image reduced to a longer side of {sides} pixels. Made "
        f"{made['time']} at commit {made['commit']} on {made['machine']}, by `python -m benchmarks.parts.thumbnails`.\n"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the training data")
    content = {"provenance": provenance(RESULTS), "rows": measure(parser.parse_args().data)}
    write_report(RESULTS, "thumbnails", content, table(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
