r"""Which scale space serves LIFT better: its own, or kornia's ScaleSpaceDetector with LIFTResponse inside.

Repeatability (3 px, both directions, as in docs/evaluation.md) and time of detection, on scenes of the training
data: posed images with depth, and images rotated and rescaled by known warps. Writes JSON and prints a
Markdown table. OpenCV's SIFT detector runs on the same images for comparison.

    python -m benchmarks.parts.scale_space --posed ../shared/data/train/posed/castle-P30 \\
        --photos ../shared/data/train/photos --out benchmarks/results/speed/scale_space.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from kornia.feature import ScaleSpaceDetector, get_laf_center, laf_is_filled
from kornia.geometry.transform import ScalePyramid
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTResponse, ScaleSpaceConfig, __version__
from kornia_lift._gray import as_gray
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.warps import ImageWarp
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import VISIBLE, inside

Detect = Callable[[Tensor], np.ndarray]
WARPS = (ImageWarp(angle_deg=30), ImageWarp(factor=0.7), ImageWarp(factor=0.5), ImageWarp(factor=1.5))
THRESHOLD = 3.0


def candidates(count: int, weights: str) -> dict[str, Detect]:
    """Name and detector, ``(1, 1, H, W) -> positions (N, 2)``."""
    response = LIFTResponse(weights)
    tuned = ScaleSpaceConfig()
    configs = {
        "default": tuned,
        "default with LIFT's edge test": replace(tuned, edge_threshold=10.0),
        "default with NMS of 7x7 pixels": replace(tuned, nms_radius=3),
        "default with NMS over 3 levels": replace(tuned, scale_nms=1),
        "default with 5 levels/octave, NMS over 5": replace(tuned, levels_per_octave=5, scale_nms=2),
        "default from sigma 1.2": replace(tuned, min_sigma=1.2),
        "LIFT's release (21 levels)": ScaleSpaceConfig.lift(),
        "LIFT's release, positions corrected": replace(ScaleSpaceConfig.lift(), faithful=False),
    }
    found: dict[str, Detect] = {
        name: _positions(LIFTDetector(count, config, resp_module=response)) for name, config in configs.items()
    }
    for double in (True, False):
        pyramid = ScalePyramid(3, 1.6, 16, double_image=double)
        mr_size = response.sigma_ratio * LAF_SCALE_PER_SIGMA
        detector = ScaleSpaceDetector(count, mr_size=mr_size, scale_pyr_module=pyramid, resp_module=response)
        found[f"kornia ScaleSpaceDetector, {'doubled' if double else 'original'} image"] = _positions(detector)
    sift = cv2.SIFT_create(count)

    def detect_sift(image: Tensor) -> np.ndarray:
        keypoints = sift.detect((image[0, 0].numpy() * 255).round().astype(np.uint8), None)
        best = sorted(keypoints, key=lambda k: -k.response)[:count]
        return np.array([k.pt for k in best]).reshape(-1, 2)

    found["OpenCV SIFT"] = detect_sift
    return found


def _positions(detector: torch.nn.Module) -> Detect:
    detector.eval()

    def detect(image: Tensor) -> np.ndarray:
        lafs, _ = detector(image)
        return get_laf_center(lafs)[0, laf_is_filled(lafs)[0]].double().numpy()

    return detect


def repeatability(moved: np.ndarray, visible: np.ndarray, targets: np.ndarray) -> float:
    """Share of the visible points that have a target within the threshold."""
    if not visible.any() or not len(targets):
        return 0.0
    distance = np.linalg.norm(moved[visible][:, None] - targets[None], axis=2).min(axis=1)
    return float((distance <= THRESHOLD).mean())


class Timer:
    """Runs one detector; keeps the seconds per megapixel and the number of keypoints of every call."""

    def __init__(self, detect: Detect, clock: Callable[[], float]) -> None:
        self._detect = detect
        self._clock = clock
        self.rates: list[float] = []
        self.counts: list[int] = []

    def __call__(self, image: Tensor) -> np.ndarray:
        start = self._clock()
        points = self._detect(image)
        self.counts.append(len(points))
        self.rates.append((self._clock() - start) / (image.shape[-1] * image.shape[-2] / 1e6))
        return points


def on_posed(detect: Detect, scene: PosedScene, pairs: list[tuple[int, int]]) -> list[float]:
    cache = {k: detect(as_gray(scene.image(k))) for k in sorted({k for pair in pairs for k in pair})}
    scores = []
    for i, j in pairs:
        for a, b in ((i, j), (j, i)):
            moved = scene.transfer(a, b, cache[a])
            scores.append(repeatability(moved.points, moved.status == VISIBLE, cache[b]))
    return scores


def on_photos(detect: Detect, photos: list[Tensor]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {warp.label: [] for warp in WARPS}
    for photo in photos:
        size = (photo.shape[-1], photo.shape[-2])
        first = detect(photo)
        for warp in WARPS:
            second = detect(warp(photo))
            there = warp.matrix(size)
            for matrix, points, targets, bounds in (
                (there, first, second, warp.output_size(size)),
                (np.linalg.inv(there), second, first, size),
            ):
                moved = apply_homography(matrix, points)
                scores[warp.label].append(repeatability(moved, inside(moved, bounds), targets))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posed", type=Path, required=True, help="folder of a posed scene")
    parser.add_argument("--photos", type=Path, required=True, help="folder of images")
    parser.add_argument("--pairs", type=int, default=10, help="posed pairs, spread over the scene")
    parser.add_argument("--num-photos", type=int, default=4)
    parser.add_argument("--num-features", type=int, default=1000)
    parser.add_argument("--weights", default="lift")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that is busy")
    parser.add_argument("--only", help="candidates whose name contains this text")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    scene = PosedScene.load(args.posed)
    usable = [pair for pair in scene.pairs if pair.overlap is None or pair.overlap >= 0.5]
    chosen = [(p.i, p.j) for p in usable[:: max(1, len(usable) // args.pairs)][: args.pairs]]
    files = sorted(args.photos.glob("kodak__*.jpg"))
    photos = []
    for path in files[:: max(1, len(files) // args.num_photos)][: args.num_photos]:
        photos.append(torch.from_numpy(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)).float()[None, None] / 255)

    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for name, detect in candidates(args.num_features, args.weights).items():
            if args.only and args.only not in name:
                continue
            timer = Timer(detect, {"wall": time.perf_counter, "cpu": time.process_time}[args.clock])
            posed = on_posed(timer, scene, chosen)
            warped = on_photos(timer, photos)
            rows.append(
                {
                    "detector": name,
                    "posed": float(np.mean(posed)),
                    **{label: float(np.mean(values)) for label, values in warped.items()},
                    "keypoints": float(np.mean(timer.counts)),
                    "seconds_per_megapixel": float(np.median(timer.rates)),
                    "fastest_seconds_per_megapixel": float(np.min(timer.rates)),
                }
            )
            print(rows[-1], flush=True)
    columns = [key for key in rows[0] if key not in ("detector", "fastest_seconds_per_megapixel")]
    print("| detector | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in rows:
        print(f"| {row['detector']} | " + " | ".join(f"{row[key]:.4g}" for key in columns) + " |")
    if args.out:
        record = {
            "version": __version__,
            "weights": args.weights,
            "num_features": args.num_features,
            "posed": {"scene": scene.name, "pairs": chosen},
            "photos": len(photos),
            "clock": args.clock,
            "threads": torch.get_num_threads(),
            "load_average": os.getloadavg(),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "rows": rows,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(args.out) as path:
            path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
