"""Images unlike those of the training: held-out scenes under changes of their gray values.

    python -m benchmarks.parts.kinds

Writes benchmarks/results/parts/kinds.json and .md, and the table of docs/my_images.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.development import development_groups
from benchmarks.pages.marks import put_between
from benchmarks.parts.report import RESULTS, ROOT, write_report
from kornia_lift._gray import as_gray
from kornia_lift.evaluation import evaluate_feature
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.report.results import provenance

COUNT = 1000
ESTIMATOR = Estimator(orders=5)
MEASURES = ("epipolar_matches", "pose_auc_5", "pose_auc_10")
LOOKS = 4  # of a radar image: its speckle has the deviation of 1 / sqrt(looks)


def speckled(x: Tensor, generator: Generator) -> Tensor:
    """Multiply by noise, a mean of exponential variables, as radar images have it."""
    uniform = torch.rand(LOOKS, *x.shape, generator=generator)
    return x * -(1 - uniform).log().mean(0)


def noisy(x: Tensor, generator: Generator) -> Tensor:
    """Add noise of a deviation of .1."""
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def halftone(x: Tensor, generator: Generator) -> Tensor:
    """Print in black and white dots, as many white ones as the gray value says."""
    return (x > torch.rand(x.shape, generator=generator)).to(x)


def gradients(x: Tensor, generator: Generator) -> Tensor:
    """Show edges only: four times the length of the gradient."""
    return 4 * torch.stack(torch.gradient(x, dim=(-2, -1))).norm(dim=0)


Change = Callable[[Tensor, Generator], Tensor]
KINDS: dict[str, Change] = {
    "as they are": lambda x, generator: x,
    "negatives": lambda x, generator: 1 - x,
    "folded: black and white become white, gray black": lambda x, generator: (2 * x - 1).abs(),
    "edges only": gradients,
    "noise added, deviation 0.1": noisy,
    "speckle of radar images": speckled,
    "black and white dots": halftone,
}


def _of_changed(extract: Callable[[Tensor], Any], change: Change) -> Callable[[Tensor], Any]:
    """The features of images after a change, the same change at every call of a run."""
    generator = torch.Generator().manual_seed(0)
    return lambda image: extract(change(as_gray(image), generator).clamp(0, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=ROOT.parent / "shared" / "data" / "train")
    parser.add_argument("--features", nargs="+", default=["opencv-sift", "lift", "lift-plus"])
    args = parser.parse_args()
    scenes = development_groups(args.train)["sfm"]
    found: dict[str, dict[str, dict[str, float]]] = {}
    pairs = 0
    for spec in args.features:
        build = candidate(spec).build
        assert build is not None
        extract = build(COUNT)
        for kind, change in KINDS.items():
            scores = evaluate_feature(_of_changed(extract, change), scenes, COUNT, estimator=ESTIMATOR)
            pairs = scores["pairs"]
            found.setdefault(kind, {})[spec] = {name: round(float(scores[name]), 4) for name in MEASURES}
            print(kind, spec, found[kind][spec], file=sys.stderr, flush=True)
    content = {
        "provenance": provenance(RESULTS),
        "estimator": ESTIMATOR.label,
        "keypoints": COUNT,
        "pairs": pairs,
        "kinds": found,
    }
    write_report(RESULTS, "kinds", content, page(content))
    put_between(ROOT / "docs" / "my_images.md", "kinds", table(content))
    return 0


def table(content: dict[str, Any]) -> str:
    """Correct matches of each feature, and accuracy of its poses."""
    features: Sequence[str] = list(next(iter(content["kinds"].values())))
    head = "".join(f" {name} |" for name in features)
    lines = [f"| images |{head}", "| --- |" + " ---: |" * len(features)]
    for kind, by in content["kinds"].items():
        cells = "".join(f" {by[f]['epipolar_matches']:.0f}, {by[f]['pose_auc_10']:.2f} |" for f in features)
        lines.append(f"| {kind} |{cells}")
    return "\n".join(lines)


def page(content: dict[str, Any]) -> str:
    made = content["provenance"]
    return (
        "# Images unlike those of the training\n\n"
        f"Correct matches (within 2 px of both epipolar lines) and pose AUC@10°. {content['pairs']} pairs of the "
        f"held-out scenes; {content['keypoints']} keypoints; {content['estimator']}. Made {made['time']} at commit "
        f"{made['commit']} by `python -m benchmarks.parts.kinds`.\n\n{table(content)}\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
