"""DeepDesc's protocol on patches of held-out scenes: PR-AUC, one matching and 1000 non-matching pairs for each point.

    python -m benchmarks.parts.deepdesc --data STORE... --descriptors sift lift CNN3_p8_n8_split4_073000.t7

Brown's sets, on which the published figures are measured, go through `kornia-lift patches`. This is the same protocol
where they are not at hand: stores of held-out scenes (scripts/remake_weights.py writes one), patches in the frames that
the cameras give, two of each point. Writes benchmarks/results/parts/deepdesc.json and deepdesc.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.parts.patches import camera_frames
from benchmarks.parts.report import RESULTS, write_report
from kornia_lift.evaluation.deepdesc_protocol import NEGATIVES, POINTS, PUBLISHED, load_descriptor, run_protocol
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.scenes.patch_sets import PatchSet
from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.split import take_images


def two_of_each(patches: PatchSet, points: int, seed: int = 0) -> PatchSet:
    """Two patches, drawn at random, of up to ``points`` points that have two."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(patches.point_ids))
    order = order[np.argsort(patches.point_ids[order], kind="stable")]
    ids, start, count = np.unique(patches.point_ids[order], return_index=True, return_counts=True)
    usable = np.flatnonzero(count >= 2)
    usable = np.sort(rng.permutation(usable)[:points])
    kept = order[(start[usable][:, None] + np.arange(2)).ravel()]
    return PatchSet(patches.patches[kept], np.repeat(ids[usable], 2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--descriptors", nargs="+", default=["sift", "lift"])
    parser.add_argument("--points", type=int, default=POINTS)
    args = parser.parse_args()
    store = load_data(args.data)
    store = take_images(store, np.array([image.kind == "sfm" for image in store.images]))
    patches = two_of_each(camera_frames(store, -(-2 * args.points // len(store.scenes))), args.points)
    scores = {}
    for name in args.descriptors:
        with torch.inference_mode():
            scores[Path(name).name] = asdict(run_protocol(patches, load_descriptor(name), points=args.points))
        print(name, scores[Path(name).name], file=sys.stderr, flush=True)
    made = provenance(RESULTS)
    content = {"provenance": made, "scenes": list(store.scenes), "negatives": NEGATIVES, "results": scores}
    lines = [
        "| descriptor | held-out scenes, here | Notre Dame | Yosemite | Liberty |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {name} | {values['pr_auc']:.3f} | | | |" for name, values in scores.items()]
    for name, of_set in PUBLISHED.items():
        lines.append(f"| {name}, published | | " + " | ".join(f"{v:.3f}" for v in of_set.values()) + " |")
    first = next(iter(scores.values()))
    note = (
        f"{first['positives']} points, one matching and {NEGATIVES} non-matching pairs each; scenes: "
        f"{', '.join(store.scenes)}; frames of the cameras. Made {made['time']} at commit {made['commit']}."
    )
    text = "# DeepDesc's protocol, PR-AUC\n\n" + "\n".join(lines) + f"\n\n{note}\n"
    write_report(RESULTS, "deepdesc", content, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
