"""Surfaces seen from the side: held-out images compressed along one direction.

    TORCH_HOME=../shared/peers python -m benchmarks.parts.slant

Writes benchmarks/results/parts/slant.json and .md, and the table of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.development import LARGEST, SINGLE
from benchmarks.pages.marks import put_between
from benchmarks.parts.report import RESULTS, ROOT, write_report
from kornia_lift._gray import to_bytes
from kornia_lift._io import load_image
from kornia_lift.evaluation import evaluate_feature
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.scenes.scene import Pair
from kornia_lift.training.data.images import scale_down, to_float
from kornia_lift.training.held_out.scenes import StoredPlanes

COUNT = 1000
ESTIMATOR = Estimator(orders=5)
MEASURES = ("correct_matches", "median_error", "homography_auc_3")
ANGLES = (60.0, 70.0)  # degrees between the view and the normal of the surface
FEATURES = ("opencv-sift", "lift-plus", "lift-plus+affine", "aliked-n16")


def compressed(image: Tensor, angle: float, dim: int) -> tuple[Tensor, np.ndarray]:
    """Return an image as a far camera sees it at an angle, and the homography to it.

    Args:
        image: shape (1, 1, H, W), values in [0, 1].
        angle: degrees between the view and the normal of the image; its cosine is the compression.
        dim: 0 compresses x, 1 compresses y.

    """
    size = [image.shape[-1], image.shape[-2]]
    size[dim] = max(1, round(size[dim] * math.cos(math.radians(angle))))
    copy = F.interpolate(image, (size[1], size[0]), mode="bilinear", antialias=True, align_corners=False)
    sx, sy = size[0] / image.shape[-1], size[1] / image.shape[-2]
    return copy.clamp(0, 1), np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def slanted(folder: Path, angle: float) -> StoredPlanes:
    """Every second held-out single image, with copies compressed along x and along y."""
    names: list[str] = []
    images: list[Tensor] = []
    maps: list[np.ndarray] = []
    pairs: list[Pair] = []
    for path in sorted(p for p in folder.glob("*.jpg") if p.name.startswith(SINGLE))[::2]:
        original = to_float(scale_down(to_bytes(load_image(path, gray=True))[0, 0], LARGEST))
        first = len(images)
        views = [(original, np.eye(3)), *(compressed(original, angle, dim) for dim in range(2))]
        for number, (view, matrix) in enumerate(views):
            names.append(f"{path.stem}@{number}")
            images.append(view)
            maps.append(matrix)
        pairs += [Pair(first, first + 1), Pair(first, first + 2)]
    return StoredPlanes("slanted", names, images, maps, pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=ROOT.parent / "shared" / "data" / "train")
    parser.add_argument("--features", nargs="+", default=FEATURES)
    args = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    pairs = 0
    for spec in args.features:
        build = candidate(spec).build
        assert build is not None
        extract = build(COUNT)
        for angle in ANGLES:
            with torch.inference_mode():
                scores = evaluate_feature(extract, [slanted(args.train / "photos", angle)], COUNT, estimator=ESTIMATOR)
            pairs = scores["pairs"]
            found.setdefault(spec, {})[f"{angle:g}"] = {name: round(float(scores[name]), 4) for name in MEASURES}
            print(spec, angle, found[spec][f"{angle:g}"], file=sys.stderr, flush=True)
    content = {
        "provenance": provenance(RESULTS),
        "estimator": ESTIMATOR.label,
        "keypoints": COUNT,
        "pairs": pairs,
        "features": found,
    }
    write_report(RESULTS, "slant", content, page(content))
    put_between(ROOT / "docs" / "evaluation.md", "slant", table(content))
    return 0


def table(content: dict[str, Any]) -> str:
    """Correct matches of each feature by angle."""
    angles = list(next(iter(content["features"].values())))
    head = "".join(f" {angle}° |" for angle in angles)
    lines = [f"| feature |{head}", "| --- |" + " ---: |" * len(angles)]
    for name, by in content["features"].items():
        cells = "".join(f" {by[angle]['correct_matches']:.0f} |" for angle in angles)
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines)


def page(content: dict[str, Any]) -> str:
    made = content["provenance"]
    return (
        "# Surfaces seen from the side\n\n"
        f"Correct matches by the angle between the view and the normal of the surface. {content['pairs']} pairs: "
        f"held-out images and copies compressed along x or y; {content['keypoints']} keypoints; "
        f"{content['estimator']}. Made {made['time']} at commit {made['commit']} by `python -m benchmarks.parts.slant`."
        f"\n\n{table(content)}\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
