"""Keypoints and correct matches of two test pairs, drawn side by side for several features, for the documentation.

    TORCH_HOME=../shared/peers python -m benchmarks.pages.pictures --cache CACHE
    python -m benchmarks.pages.pictures --cache CACHE --features lift opencv-sift --pairs oxford_leuven:1:6

One picture per pair, docs/images/matches_SCENE.jpg: a row per feature, on the left all keypoints of the first image, on
the right the correct matches as the tables count them (mutual nearest neighbours within 3 px of the true transfer,
thinned). Features come from the cache of benchmarks/accuracy.py, or are extracted into it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor

from kornia_lift._io import atomic_write
from kornia_lift.evaluation.candidates import Candidate, candidate
from kornia_lift.evaluation.comparison import fill_cache, open_features
from kornia_lift.evaluation.measures.correct import correct_matches, mutual_matches, transfer_error
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.selection import only_pairs
from kornia_lift.features import Features
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.scene import FloatArray, Pair, Scene
from kornia_lift.viz import Picture, draw_keypoints, draw_matches

ROOT = Path(__file__).parents[2]
PAIRS = ("Herz-Jesus-P8:0002:0005", "oxford_graf:1:3")
WIDTH, BAR = 380, 22  # pixels of one image and of the line of text above it
_DOT = 9.0  # LAF scale whose circle has a radius of 3 px


def main() -> int:
    args = _parse()
    scenes = {scene.name: scene for group in load_scenes([args.data]).values() for scene in group}
    entries = [candidate(spec) for spec in args.features]
    for text in args.pairs:
        name, first, second = text.split(":")
        scene = scenes[name]
        pair = scene.names.index(first), scene.names.index(second)
        scene = only_pairs(scene, (Pair(*pair),))
        rows = []
        for entry in entries:
            fill_cache(entry, {"": [scene]}, args.cache, 1000, progress=lambda line: print(line, file=sys.stderr))
            rows.append(_row(entry, scene, pair, args.cache))
        picture = np.concatenate(rows)
        path = args.out / f"matches_{name}.jpg"
        with atomic_write(path) as temporary:
            cv2.imwrite(str(temporary), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])
        print(path)
    return 0


def _row(entry: Candidate, scene: Scene, pair: tuple[int, int], cache: Path) -> Picture:
    """One feature: keypoints of the first image, correct matches of both."""
    with open_features(entry, cache, 1000) as source:
        first, second = (source.read(scene.name, scene.names[k]) for k in pair)
    points, others = _correct(scene, pair, first, second)
    images = [_fit(scene.image(k)) for k in pair]
    zooms = [image.shape[-1] / scene.image_size(k)[0] for image, k in zip(images, pair, strict=True)]
    keypoints = draw_keypoints(images[0], _dots(first.keypoints, zooms[0]), max_keypoints=len(first))
    frames = _dots(points, zooms[0]), _dots(others, zooms[1])
    matches = draw_matches(
        images[0], images[1], frames, correct=np.ones(len(points), bool), max_lines=len(points), opacity=0.15
    )
    height = max(keypoints.shape[0], matches.shape[0])
    panels = [
        np.pad(p, ((BAR, height - p.shape[0]), (0, 8), (0, 0)), constant_values=255) for p in (keypoints, matches)
    ]
    row = np.ascontiguousarray(np.concatenate(panels, axis=1))
    for text, x in ((f"{entry.name}: {len(first)} keypoints", 4), (f"{len(points)} correct matches", WIDTH + 12)):
        cv2.putText(row, text, (x, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return row


def _correct(scene: Scene, pair: tuple[int, int], first: Features, second: Features) -> tuple[FloatArray, FloatArray]:
    """Points of the correct matches in both images."""
    index, matches = mutual_matches(first.keypoints, second.keypoints, nearest_neighbours(first, second))
    error = transfer_error(scene.transfer(*pair, first.keypoints), index, matches[1])
    kept = correct_matches(matches, error)
    return matches[0][kept], matches[1][kept]


def _fit(image: Tensor) -> Tensor:
    """The image at the width of a panel."""
    height = round(image.shape[-2] * WIDTH / image.shape[-1])
    return torch.nn.functional.interpolate(image, (height, WIDTH), mode="bilinear", antialias=True).clamp(0, 1)


def _dots(points: FloatArray, zoom: float) -> Tensor:
    """Frames of one size at points of the image as it was, in pixels of the reduced one."""
    centres = torch.from_numpy((points + 0.5) * zoom - 0.5)[None]
    scale = torch.full((1, len(points), 1, 1), _DOT, dtype=centres.dtype)
    return laf_from_center_scale_ori(centres, scale, torch.zeros_like(scale[..., 0]))[0]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", default=["lift", "lift-plus", "opencv-sift", "aliked-n16"])
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), metavar="SCENE:FIRST:SECOND")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "test")
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
