"""One feature on one image in a process of its own: seconds per stage, first call, peak memory.

The driver is `benchmarks/speed.py`. Every case gets a process, so that the first call is a first call and the peak of
the resident memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import kornia.feature as kf
import numpy as np
import torch
from kornia.feature import laf_is_filled
from skimage import data
from torch import Tensor, nn

from kornia_lift import LIFTFeature
from kornia_lift.feature import feature_of
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.weights import available_models

Stages = dict[str, float]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
BUDGET = 10.0  # seconds after which a case is not repeated again


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        method: see :func:`build`.
        width: of the picture, pixels.
        height: of the picture, pixels.
        count: keypoints that are asked for.
        threads: of torch and OpenCV.
        clock: see :data:`CLOCKS`.
        repeats: calls after the first one.
        beside: a method that is called after each of these in the same process, if any: machines that are shared
            change their pace within minutes.

    """

    method: str
    width: int
    height: int
    count: int
    threads: int
    clock: str
    repeats: int
    beside: str = ""

    def run(self) -> dict[str, Any]:
        """Run in a process of its own.

        Returns:
            ``first`` and ``seconds`` (a list of stages), ``beside_seconds``, ``keypoints``, and ``peak_mb``, the memory
            before the other method is called.

        """
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(asdict(self))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{self}: {done.stderr}")
        return {**asdict(self), **json.loads(done.stdout.splitlines()[-1])}


def picture(width: int, height: int) -> np.ndarray:
    """Images side by side, so that the detail does not get coarser with the size; uint8, (height, width)."""
    tiles = [cv2.cvtColor(image[:400, :500], cv2.COLOR_RGB2GRAY) for image in (data.astronaut(), data.coffee())]
    rows = [np.concatenate([tiles[(r + c) % 2] for c in range(-(-width // 500))], 1) for r in range(-(-height // 400))]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


def build(method: str, count: int) -> Callable[[np.ndarray, Clock], tuple[Stages, int]]:
    """Return the method as a function of a gray picture: seconds per stage, and the number of keypoints."""
    if method.startswith("opencv-"):
        detector = cv2.SIFT_create(count) if method == "opencv-sift" else cv2.ORB_create(count)
        return lambda image, now: _timed(lambda: len(detector.detectAndCompute(image, None)[0]), now)
    if method.startswith("lift") or method in available_models():
        feature = feature_of(method if method in available_models() else "lift", count)
        return lambda image, now: lift_stages(feature, _tensor(image), now)
    if method == "xfeat":
        xfeat = kf.XFeat.from_pretrained(top_k=count)
        return lambda image, now: _timed(lambda: len(xfeat.detectAndCompute(_tensor(image))[0]["keypoints"]), now)
    if method == "disk":
        disk = kf.DISK.from_pretrained("depth").eval()
        return lambda image, now: _timed(
            lambda: len(disk(_tensor(image).expand(-1, 3, -1, -1), n=count, pad_if_not_divisible=True)[0].keypoints),
            now,
        )
    network = _local_feature(method, count).eval()
    colour = method.startswith("aliked")

    def run(image: np.ndarray, now: Clock) -> tuple[Stages, int]:
        def call() -> int:
            x = _tensor(image)
            found = network(x.expand(-1, 3, -1, -1)) if colour else network(x)
            return len(found[0].keypoints) if colour else int(laf_is_filled(found[0]).sum())

        return _timed(call, now)

    return run


def _local_feature(method: str, count: int) -> nn.Module:
    if method.startswith("aliked"):
        return kf.ALIKED.from_pretrained(method, max_num_keypoints=count, detection_threshold=0.0)
    if method == "kornia-sift":
        return kf.SIFTFeature(count)
    if method == "kornia-sift-scale-space":
        return kf.SIFTFeatureScaleSpace(count, descriptor_backend="pyramid")
    # the time of a network does not depend on its weights: HardNet's are not at hand
    detector = kf.KeyNetDetector(True, count, ori_module=kf.LAFOrienter(angle_detector=kf.OriNet(True)))
    descriptor = kf.HardNet(False) if method.endswith("hardnet") else kf.TFeat(False)
    return kf.LocalFeature(detector, kf.LAFDescriptor(descriptor, patch_size=32))


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).float()[None, None] / 255


def _timed(call: Callable[[], int], now: Clock) -> tuple[Stages, int]:
    start = now()
    found = call()
    return {"total": now() - start}, found


def _outermost(
    call: Callable[..., Any], open_calls: list[str], spent: dict[str, float], name: str, now: Clock
) -> Callable[..., Any]:
    """Add the time of a call to that of its stage, unless it runs within another call of the stage."""

    def timed(*args: Any) -> Any:
        open_calls.append(name)
        begin = now()
        try:
            return call(*args)
        finally:
            open_calls.pop()
            spent[name] += 0.0 if open_calls else now() - begin

    return timed


def lift_stages(feature: LIFTFeature, image: Tensor, now: Clock) -> tuple[Stages, int]:
    """Time the stages inside one ordinary call on images (B, 1, H, W); also the number of keypoints."""
    spent = {"detector": 0.0, "orienter": 0.0, "descriptor": 0.0}
    with ExitStack() as undo:
        for name in spent:
            part: Any = getattr(feature, name)
            open_calls: list[str] = []  # of this part: `average` calls `forward`, which must not count twice
            for method in ("forward", "candidates", "average"):
                if not hasattr(part, method):
                    continue

                timed = _outermost(getattr(part, method), open_calls, spent, name, now)
                setattr(part, method, timed)
                undo.callback(delattr, part, method)
        start = now()
        lafs, _, _ = feature(image)
        total = now() - start
    stages = {"detect": spent["detector"], "orient": spent["orienter"], "describe": spent["descriptor"], "total": total}
    return stages, int(laf_is_filled(lafs).sum())


@torch.inference_mode()
def measure(case: Case) -> dict[str, Any]:
    """Run one case in this process."""
    torch.set_num_threads(case.threads)
    cv2.setNumThreads(case.threads)
    image, run, now = picture(case.width, case.height), build(case.method, case.count), CLOCKS[case.clock]
    other = build(case.beside, case.count) if case.beside else None
    seconds: list[Stages] = []
    beside: list[float] = []
    with fast_paths(case.method != "lift-direct"):
        first, found = run(image, now)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if other is not None:
            other(image, now)  # its first call takes longer
        start = time.perf_counter()
        while len(seconds) < case.repeats and time.perf_counter() - start < BUDGET:
            seconds.append(run(image, now)[0])
            if other is not None:
                beside.append(other(image, now)[0]["total"])
    return {"first": first, "seconds": seconds, "beside_seconds": beside, "keypoints": found, "peak_mb": peak}


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
