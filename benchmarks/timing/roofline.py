"""How near each stage of LIFT comes to what the machine can do: multiplications, bytes, time, share of the limit.

Both limits are measured in the same process, before and after: the rate of a float32 matrix product, and of a copy
that does not fit the cache. Per stage:

- ``paper``: multiply-adds of the network as it is defined;
- ``done``: multiply-adds of the products and Fourier transforms that ran (5/2 N log2 N of a complex transform of N);
- ``bytes``: what every operation reads and writes, as if nothing stayed in the cache;
- ``of GEMM``: share of the product's rate that ``paper`` and ``done`` reach. More than 100 % of ``paper`` means that
  no direct implementation can be as fast.

    python -m benchmarks.timing.roofline
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing.cases import CLOCKS, Clock, picture
from kornia_lift import LIFTFeature
from kornia_lift.detector.sampling import sampling_of
from kornia_lift.detector.scale_space import plan_levels
from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks.orientation import LIFTOrientation

PATCHES = 1000
DESCRIPTOR_MACS = 58 * 58 * 32 * 49 + 24 * 24 * 64 * 32 * 36 + 4 * 4 * 128 * 64 * 25
ORIENTATION_MACS = 60**2 * 10 * 25 + 26**2 * 20 * 250 + 11**2 * 50 * 180 + 1250 * 1600 + 100 * 32
RESPONSE_MACS = 16 * 25 * 25  # per pixel


class Counter(TorchDispatchMode):
    """Counts what the operations below read and write, and the multiply-adds of the Fourier transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.fourier = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [t for t in (*_flat(args), *_flat(out)) if isinstance(t, Tensor)]
        if not func.is_view:
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        if name.startswith("_fft_c2c"):
            length = math.prod(args[0].shape[dim] for dim in args[1])
            self.fourier += 2.5 * args[0].numel() * math.log2(length)
        return out


def _flat(values: Any) -> list[Any]:
    return [v for value in values for v in _flat(value)] if isinstance(values, (tuple, list)) else [values]


def best(call: Callable[[], Any], now: Clock, repeats: int) -> float:
    """Seconds of the fastest call after one that warms up: other programs can only slow it down."""
    call()
    seconds = []
    for _ in range(repeats):
        start = now()
        call()
        seconds.append(now() - start)
    return min(seconds)


def limits(now: Clock, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """Multiply-adds per second of a product, bytes per second of a large copy."""
    side = 1536 if device == "cpu" else 8192  # a GPU is not filled by less
    a, b = torch.randn(2, side, side, device=device, dtype=dtype).unbind()
    source = torch.zeros(1 << 26, device=device)
    target = torch.zeros_like(source)
    product = side**3 / best(lambda: a @ b, now, 5)
    return product, 2 * 4 * source.numel() / best(lambda: target.copy_(source), now, 5)


def measure(threads: int, clock: str, repeats: int) -> dict[str, Any]:
    """Return the limits and a row per stage, 1600x1200 pixels, 1000 keypoints, on the CPU."""
    torch.set_num_threads(threads)
    return {"threads": threads, "clock": clock, **measure_stages(CLOCKS[clock], repeats)}


@torch.inference_mode()
def measure_stages(
    now: Clock,
    repeats: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    size: tuple[int, int] = (1600, 1200),
    model: str = "lift",
    keypoints: int = PATCHES,
) -> dict[str, Any]:
    """Return the limits and a row per stage, for a number of keypoints; ``now`` waits for the device.

    Of models with other networks than the paper's there is no count of the paper; it is 0 then.
    """
    before = limits(now, device, dtype)
    feature = LIFTFeature(keypoints, pretrained=model).eval().to(device, dtype)
    image = (torch.from_numpy(picture(*size)).float()[None, None] / 255).to(device, dtype)
    lafs, _ = feature.detector(image)

    def cut() -> torch.Tensor:
        return PatchPyramid(image).cut(lafs, 64)

    patches = cut()[0]
    config = feature.detector.config
    resize = sampling_of(config).resizer(image)
    levels = [resize(level) for level in plan_levels(size[1], size[0], config, feature.detector.num_features)]
    pixels = sum((x.shape[-2] - 24) * (x.shape[-1] - 24) for x in levels)
    stages: dict[str, tuple[Callable[[], Any], float]] = {
        "detector, all": (lambda: feature.detector(image), pixels * RESPONSE_MACS),
        f"response, {len(levels)} levels": (
            lambda: [feature.detector.resp.valid(x) for x in levels],
            pixels * RESPONSE_MACS,
        ),
    }
    if isinstance(feature.orienter.angle_detector, LIFTOrientation):
        stages |= {
            "pyramid and patches": (cut, 0),
            "orientation": (lambda: feature.orienter.angle_detector(patches), keypoints * ORIENTATION_MACS),
            "descriptor": (lambda: feature.descriptor.descriptor(patches), keypoints * DESCRIPTOR_MACS),
        }
    else:
        stages |= {
            "orientation, with patches": (lambda: feature.orienter.candidates(lafs, image), 0),
            "descriptor, with patches": (lambda: feature.descriptor(image, lafs), 0),
        }
    rows = []
    for name, (call, paper) in stages.items():
        seconds = best(call, now, repeats)
        with Counter() as counter, FlopCounterMode(display=False) as flops:
            call()
        done = flops.get_total_flops() / 2 + counter.fourier
        rows.append({"stage": name, "paper": paper, "done": done, "bytes": counter.bytes, "seconds": seconds})
    after = limits(now, device, dtype)
    gemm, copy = (max(pair) for pair in zip(before, after, strict=True))
    return {"model": model, "dtype": str(dtype).removeprefix("torch."), "gemm": gemm, "copy": copy, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    lines = [
        f"{result.get('dtype', 'float32')} product {result['gemm'] / 1e9:.0f} GMAC/s, "
        f"copy {result['copy'] / 1e9:.1f} GB/s ({result['threads']} threads, {result['clock']} clock, same run).",
        "",
        "| stage | s | GMAC, paper | GMAC, done | GB touched | of GEMM, paper | of GEMM, done | GB/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        seconds, share = row["seconds"], [row[key] / row["seconds"] / result["gemm"] for key in ("paper", "done")]
        time = f"{seconds:.3f}" if seconds > 0.02 else f"{seconds:.5f}"
        paper = (f"{row['paper'] / 1e9:.1f}", f"{share[0]:.0%}") if row["paper"] else ("", "")
        lines.append(
            f"| {row['stage']} | {time} | {paper[0]} | {row['done'] / 1e9:.1f} "
            f"| {row['bytes'] / 1e9:.2f} | {paper[1]} | {share[1]:.0%} | {row['bytes'] / seconds / 1e9:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    result = measure(args.threads, args.clock, args.repeats)
    print(json.dumps(result) if args.json else table(result))


if __name__ == "__main__":
    sys.exit(main())
