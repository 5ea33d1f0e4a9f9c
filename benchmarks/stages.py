"""Time per stage and peak memory of LIFTFeature, beside OpenCV SIFT and kornia's SIFTFeatureScaleSpace.

Every case runs in a process of its own, so that the peak resident memory is its own; the cases alternate over the
rounds and the fastest round counts, since other programs can only slow a round down. The load of the machine is
written beside the result. On a machine that does other work, ``--clock cpu --threads 1`` counts the processor time of
the process instead of the time on the wall.

    python benchmarks/stages.py --out benchmarks/results/stages.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from kornia.feature import SIFTFeatureScaleSpace, laf_is_filled
from skimage import data

from kornia_lift import LIFTFeature, __version__
from kornia_lift._io import atomic_write

METHODS = ("lift", "opencv-sift", "kornia-sift")
SIZES = ((640, 480), (1600, 1200))
COUNTS = (1000, 8000)


def picture(width: int, height: int) -> np.ndarray:
    """Photographs side by side, so that the detail does not get coarser with the size; uint8, (height, width)."""
    tiles = [cv2.cvtColor(image[:400, :500], cv2.COLOR_RGB2GRAY) for image in (data.astronaut(), data.coffee())]
    rows = [np.concatenate([tiles[(r + c) % 2] for c in range(-(-width // 500))], 1) for r in range(-(-height // 400))]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in this process: seconds per stage, fastest of ``repeats`` after one that warms up."""
    torch.set_num_threads(case["threads"])
    now = {"wall": time.perf_counter, "cpu": time.process_time}[case["clock"]]
    cv2.setNumThreads(case["threads"])
    image = picture(*case["size"])
    stages = {"lift": _lift, "opencv-sift": _opencv_sift, "kornia-sift": _kornia_sift}[case["method"]](image, case, now)
    best: dict[str, float] = {}
    found = 0
    for _ in range(case["repeats"] + 1):
        seconds, found = stages()
        if not best or seconds["total"] < best["total"]:
            best = seconds
    return {"seconds": best, "keypoints": found, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


Clock = Callable[[], float]
Run = Callable[[], tuple[dict[str, float], int]]


def _lift(image: np.ndarray, case: dict[str, Any], now: Clock) -> Run:
    weights: bool | str = False if case["weights"] == "random" else case["weights"]
    torch.manual_seed(0)
    feature = LIFTFeature(case["count"], pretrained=weights).eval()

    @torch.inference_mode()
    def run() -> tuple[dict[str, float], int]:
        start = now()
        tensor = torch.from_numpy(image).float()[None, None] / 255
        lafs, _ = feature.detector(tensor)
        detected = now()
        lafs = lafs[:, laf_is_filled(lafs)[0]]
        lafs = feature.orienter(lafs, tensor)
        oriented = now()
        feature.descriptor(tensor, lafs)
        end = now()
        seconds = {"detect": detected - start, "orient": oriented - detected, "describe": end - oriented}
        return {**seconds, "total": end - start}, lafs.shape[1]

    return run


def _opencv_sift(image: np.ndarray, case: dict[str, Any], now: Clock) -> Run:
    sift = cv2.SIFT_create(case["count"])

    def run() -> tuple[dict[str, float], int]:
        start = now()
        keypoints, _ = sift.detectAndCompute(image, None)
        return {"total": now() - start}, len(keypoints)

    return run


def _kornia_sift(image: np.ndarray, case: dict[str, Any], now: Clock) -> Run:
    feature = SIFTFeatureScaleSpace(case["count"], descriptor_backend="pyramid").eval()

    @torch.inference_mode()
    def run() -> tuple[dict[str, float], int]:
        start = now()
        lafs, _, _ = feature(torch.from_numpy(image).float()[None, None] / 255)
        return {"total": now() - start}, int(laf_is_filled(lafs).sum())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="lift", help="'lift', 'random' or a .safetensors file")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(json.loads(args.case))))
        return

    cases = [
        {
            "method": method,
            "size": size,
            "count": count,
            "threads": args.threads,
            "repeats": args.repeats,
            "weights": args.weights,
            "clock": args.clock,
        }
        for size in SIZES
        for count in COUNTS
        for method in METHODS
    ]
    results: list[dict[str, Any]] = [{} for _ in cases]
    for _ in range(args.rounds):
        for k, case in enumerate(cases):
            command = [sys.executable, __file__, "--case", json.dumps(case)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            new = json.loads(done.stdout.splitlines()[-1])
            if not results[k] or new["seconds"]["total"] < results[k]["seconds"]["total"]:
                results[k] = {**{key: case[key] for key in ("method", "size", "count")}, **new}
    print("| image | slots | method | keypoints | detect s | orient s | describe s | total s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in results:
        seconds = [row["seconds"].get(key) for key in ("detect", "orient", "describe", "total")]
        columns = " | ".join("" if s is None else f"{s:.3f}" for s in seconds)
        width, height = row["size"]
        print(
            f"| {width}x{height} | {row['count']} | {row['method']} | {row['keypoints']} | {columns} "
            f"| {row['peak_mb']:.0f} |"
        )
    if args.out:
        record = {
            "version": __version__,
            "torch": torch.__version__,
            "threads": args.threads,
            "clock": args.clock,
            "load_average": os.getloadavg(),
            "machine": platform.processor() or platform.machine(),
            "weights": args.weights,
            "rows": results,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(args.out) as path:
            path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
