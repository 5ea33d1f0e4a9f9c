"""The part of ``benchmarks/gpu.py`` that measures speed: stages, streams of images, limits, and a peer beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import roofline
from benchmarks.timing.cases import Clock, Stages, build, lift_stages, picture
from kornia_lift import LIFTFeature
from kornia_lift.detector.sampling import sampling_of
from kornia_lift.detector.scale_space import plan_levels
from kornia_lift.networks._fast.response import ResponsePlan
from kornia_lift.networks.layers import exact_conv2d

MODELS = ("lift", "lift-plus")
PEER = "opencv-sift"  # runs on the CPU of the same machine; kornia's own features need weights from the network


def synchronised(device: str) -> Clock:
    """A clock that waits until the device has done what it was asked."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


@torch.inference_mode()
def run_speed(device: str, quick: bool, deadline: float, write: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Median seconds per stage and images per second, streams, and the stages beside the limits of the device.

    Args:
        device: where the feature runs.
        quick: in miniature.
        deadline: of ``time.monotonic()``, after which no measurement is begun.
        write: called with the results so far.

    """

    def attempt(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        return _attempt(function, *args) if time.monotonic() < deadline else {"error": "no time left"}

    now = synchronised(device)
    sizes = [((160, 120), 1), ((120, 90), 2)] if quick else [((1600, 1200), 1), ((640, 480), 8)]
    dtypes = [torch.float32] if device == "cpu" else [torch.float32, torch.float16]
    result: dict[str, Any] = {"cases": [], "peer": [], "streams": [], "stages": {}, "variants": []}
    for row in _peer(sizes, 2 if quick else 8):
        result["peer"].append(row)
        write(result)
    for model in MODELS:
        for dtype in dtypes:
            what = {"model": model, "dtype": str(dtype).removeprefix("torch.")}
            feature = LIFTFeature(50 if quick else 1000, pretrained=model).to(device, dtype)
            for size, batch in sizes:
                image = (torch.from_numpy(picture(*size)).float()[None, None] / 255).expand(batch, -1, -1, -1)
                timed = attempt(_timed, feature, image.to(device, dtype).contiguous(), now, 2 if quick else 12)
                result["cases"].append({**what, "size": size, "batch": batch, **timed})
                write(result)
            size, batch = sizes[1]
            streamed = attempt(_stream, feature, device, dtype, size, batch, 2 if quick else 24, now)
            result["streams"].append({**what, "size": size, "batch": batch, **streamed})
            write(result)
    size = sizes[0][0]
    for model in MODELS:
        for dtype in dtypes:
            repeats, count = (1, 50) if quick else (5, roofline.PATCHES)
            measured = attempt(roofline.measure_stages, now, repeats, device, dtype, size, model, count)
            result["stages"][f"{model}, {str(dtype).removeprefix('torch.')}"] = measured
            write(result)
    if time.monotonic() < deadline:
        result["variants"] = _variants(device, dtypes, size, now, 2 if quick else 10)
    write(result)
    return result


def _attempt(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Return what a measurement returns, or why it failed: out of memory, or an operation that a type lacks."""
    try:
        return function(*args)
    except Exception as error:  # the other measurements are wanted all the same
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def _peer(sizes: list[tuple[tuple[int, int], int]], repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of the peer for one image of each size; it takes no batches."""
    run = build(PEER, 1000)
    for size, _ in sizes:
        image = picture(*size)
        run(image, time.perf_counter)
        runs: list[tuple[Stages, int]] = [run(image, time.perf_counter) for _ in range(repeats)]
        seconds = statistics.median(stages["total"] for stages, _ in runs)
        yield {"method": f"{PEER}, CPU", "size": size, "seconds": seconds, "keypoints": runs[-1][1]}


def _timed(feature: LIFTFeature, image: Tensor, now: Clock, repeats: int) -> dict[str, Any]:
    if image.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    first, _ = lift_stages(feature, image, now)
    runs = [lift_stages(feature, image, now) for _ in range(repeats)]
    # the clock waits for the device at every stage; without it the CPU prepares the next one meanwhile
    whole = []
    for _ in range(repeats):
        start = now()
        feature(image)
        whole.append(now() - start)
    stages = {name: statistics.median(run[0][name] for run in runs) for name in first}
    return {
        "seconds": stages | {"total": statistics.median(whole)},
        "first_s": first["total"],
        "images_per_s": len(image) / statistics.median(whole),
        "keypoints": runs[-1][1],
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if image.is_cuda else None,
    }


def _stream(
    feature: LIFTFeature, device: str, dtype: torch.dtype, size: tuple[int, int], batch: int, batches: int, now: Clock
) -> dict[str, Any]:
    """Send 8-bit images to the device and get float32 features back, one batch after the other without waiting."""
    whole = torch.from_numpy(picture(size[0] + 4 * batch, size[1] + 4 * batches))
    pixels = [
        torch.stack([whole[4 * k : 4 * k + size[1], 4 * b : 4 * b + size[0]] for b in range(batch)])[:, None]
        for k in range(batches)
    ]
    start, keypoints = 0.0, 0
    for number, images in enumerate([pixels[0], *pixels]):
        if number == 1:  # the first one warms up
            start = now()
        found = feature(images.to(device).to(dtype) / 255)
        host = [t.float().cpu() for t in found]
        keypoints += int((host[1] != 0).sum()) if number else 0
    seconds = now() - start
    return {
        "images": batch * batches,
        "images_per_s": batch * batches / seconds,
        "keypoints_per_image": keypoints / (batch * batches),
    }


def _variants(
    device: str, dtypes: list[torch.dtype], size: tuple[int, int], now: Clock, repeats: int
) -> list[dict[str, Any]]:
    """Seconds of the 16 filters on all levels of an image, by ways to compute them that are not all in use."""
    feature = LIFTFeature(10, pretrained="lift").to(device)
    config, conv = feature.detector.config, feature.detector.resp.conv
    image = (torch.from_numpy(picture(*size)).float()[None, None] / 255).to(device)
    resize = sampling_of(config).resizer(image)
    levels = [resize(level) for level in plan_levels(size[1], size[0], config, feature.detector.num_features)]
    plan = ResponsePlan(conv.weight.detach(), conv.bias.detach())  # type: ignore[union-attr]

    def by_fourier(x: Tensor) -> Tensor:
        sides = [-(-side // 64) * 64 for side in x.shape[-2:]]
        spectrum, constant = plan.spectrum(*sides)
        pairs = torch.fft.fft2(x[0, 0], s=sides) * spectrum
        pairs[:, 0, 0] += constant
        return torch.fft.ifft2(pairs)

    rows = []
    for dtype in dtypes:
        weight = conv.weight.to(dtype)
        inputs = {
            "contiguous": [x.to(dtype).contiguous() for x in levels],
            "channels last": [x.to(dtype).contiguous(memory_format=torch.channels_last) for x in levels],
        }
        ways: dict[str, tuple[list[Tensor], Callable[[Tensor], Tensor]]] = {}
        for layout, given in inputs.items():
            ways[f"conv2d, {layout}"] = given, lambda x, weight=weight: F.conv2d(x, weight)  # type: ignore[misc]
            ways[f"without TF32, {layout}"] = given, lambda x, weight=weight: exact_conv2d(x, weight)  # type: ignore[misc]
        if dtype == torch.float32:
            ways["whole images by Fourier transforms"] = inputs["contiguous"], by_fourier
        for name, (given, way) in ways.items():

            def measure(given: list[Tensor] = given, way: Callable[[Tensor], Tensor] = way) -> dict[str, Any]:
                return {"seconds": roofline.best(lambda: [way(x) for x in given], now, repeats)}

            rows.append({"dtype": str(dtype).removeprefix("torch."), "way": name, **_attempt(measure)})
    return rows
