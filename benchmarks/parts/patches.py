"""Descriptors alone, on patches of scenes that were never trained on: PR-AUC and FPR@95.

    TORCH_HOME=../shared/peers python -m benchmarks.parts.patches --data ../shared/data/train

Patches of the validation scenes, in two sets. "cameras": observations of 3-D points with the scale and angle that the
cameras give, the same in all views. "SIFT": the frames that SIFT found in every view by itself, with the errors of
position, scale and angle that a descriptor meets at run time (of several angles the one that the cameras confirm).
Writes benchmarks/results/parts/patches.json and patches.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kornia.feature import SIFTDescriptor, TFeat, extract_patches_from_pyramid
from torch import Tensor

from benchmarks.parts.report import RESULTS, write_report
from kornia_lift import LIFTDescriptor
from kornia_lift._gray import to_bytes
from kornia_lift.evaluation.features.peers import HardTFeat
from kornia_lift.evaluation.measures.patch_retrieval import evaluate_descriptor
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.scenes.patch_sets import PatchSet
from kornia_lift.training.data.images import to_float
from kornia_lift.training.data.load import load_data
from kornia_lift.training.data.split import DECLARED_SPLIT
from kornia_lift.training.data.store import Store
from kornia_lift.training.modern.tracks import STORED_SIZE, CutConfig, cut_tracks

NEGATIVES = 100
PATCH = 64


def resized(descriptor: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """Feed a descriptor the patch size it was made for, of the same support region."""
    return lambda patch: descriptor(F.interpolate(patch, size=(size, size), mode="bilinear", antialias=True))


def camera_frames(store: Store, points: int) -> PatchSet:
    """Patches in the frames that the cameras give."""
    tracks = cut_tracks(store, CutConfig(points_per_scene=points))
    margin = (STORED_SIZE - PATCH) // 2
    return PatchSet(tracks.pixels[:, margin:-margin, margin:-margin].numpy(), tracks.track.numpy())


def sift_frames(store: Store, points: int) -> PatchSet:
    """Patches in the frames that SIFT found; ``points`` per scene at most."""
    patches, names, rng = [], [], np.random.default_rng(0)
    table = store.with_sift_frames()
    scene_of = store.scene_numbers[table.image]
    chosen = np.concatenate(
        [rng.permutation(np.unique(table.point[scene_of == k]))[:points] for k in range(len(store.scenes))]
    )
    for k in range(len(store.images)):
        mine = table.take((table.image == k) & np.isin(table.point, chosen))
        if len(mine):
            xy, sigma, theta = (torch.from_numpy(v)[None] for v in (mine.xy, mine.sigma, mine.theta))
            cut = extract_patches_from_pyramid(to_float(store.decode(k)), lafs_from_lift(xy, sigma, theta), PATCH)
            patches.append(to_bytes(cut[0, :, 0]).numpy())
            names.append(mine.point.astype(np.int64))
    return PatchSet(np.concatenate(patches), np.concatenate(names))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--points", type=int, default=1500, help="3-D points per scene")
    args = parser.parse_args()
    folders = [args.data / "sfm" / name for name in DECLARED_SPLIT]
    store = load_data([folder for folder in folders if folder.is_dir()])
    sets = {"cameras": camera_frames(store, args.points), "SIFT": sift_frames(store, args.points)}
    descriptors: dict[str, Callable[[Tensor], Tensor]] = {
        "lift": LIFTDescriptor().eval(),
        "sift": resized(SIFTDescriptor(41, rootsift=False), 41),
        "rootsift": resized(SIFTDescriptor(41, rootsift=True), 41),
        "tfeat": resized(TFeat(True).eval(), 32),
        "hardtfeat": resized(HardTFeat().eval(), 32),
    }
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, descriptor in descriptors.items():
        scores[name] = {k: asdict(evaluate_descriptor(descriptor, s, negatives=NEGATIVES)) for k, s in sets.items()}
        print(name, scores[name], file=sys.stderr)
    made = provenance(RESULTS)
    content = {
        "provenance": made,
        "scenes": list(store.scenes),
        "patches": {k: len(s.patches) for k, s in sets.items()},
        "negatives_per_positive": NEGATIVES,
        "results": scores,
    }
    lines = ["| descriptor |" + "".join(f" {k} frames, PR-AUC | FPR@95 |" for k in sets)]
    lines.append("| --- |" + " ---: |" * (2 * len(sets)))
    for name, of_set in scores.items():
        cells = "".join(f" {of_set[k]['pr_auc']:.3f} | {of_set[k]['fpr95']:.4f} |" for k in sets)
        lines.append(f"| {name} |{cells}")
    table = "\n".join(lines)
    counts = ", ".join(f"{scores['lift'][k]['positives']} ({k})" for k in sets)
    note = (
        f"Matching pairs: {counts}; {NEGATIVES} non-matching ones each; scenes "
        f"{', '.join(store.scenes)}. Made {made['time']} at commit {made['commit']}."
    )
    write_report(RESULTS, "patches", content, f"# Descriptors on held-out patches\n\n{table}\n\n{note}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
