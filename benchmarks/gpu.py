"""Everything that is asked of a machine with a GPU, in one command, without network, in under nine minutes.

1. the CUDA tests (``pytest -m gpu``);
2. speed: 1600x1200 pixels and 8 x VGA, 1000 keypoints, float32 and half; the stage table with both limits;
3. training: a minute of each stage of all recipes (less where the time does not last), samples per second, errors.

    python benchmarks/gpu.py --pack TRAINING_DATA --data gpu.npz        once, anywhere: one file of at most 60 MiB
    python benchmarks/gpu.py --data gpu.npz --out benchmarks/results/gpu.json

``--device cpu --quick`` runs all of it in miniature, which the test suite does. What fails is written down and does not
stop the rest. The result is rewritten after every part, so that a machine that is taken away leaves what was measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kornia
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent)]  # where this file is loaded from elsewhere

import roofline  # noqa: E402
from cases import lift_stages, picture  # noqa: E402
from gpu_page import page  # noqa: E402
from gpu_training import pack, run_training  # noqa: E402

from kornia_lift import LIFTFeature, __version__  # noqa: E402
from kornia_lift._io import atomic_write  # noqa: E402

MINUTES = 8.5  # of the whole script
TEST_SECONDS = 150


def synchronised(device: str) -> Callable[[], float]:
    """A clock that waits until the device has done what it was asked."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def run_tests(quick: bool) -> dict[str, Any]:
    """The CUDA tests; in the miniature they are only collected."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    command += ["--collect-only", "tests/feature"] if quick else ["--durations=5"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TEST_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        text = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        return {"command": command[1:], "returncode": None, "tail": text.splitlines()[-20:], "timeout_s": TEST_SECONDS}
    return {"command": command[1:], "returncode": done.returncode, "tail": done.stdout.splitlines()[-20:]}


@torch.inference_mode()
def run_speed(device: str, quick: bool) -> dict[str, Any]:
    """Median seconds per stage and images per second, and the stages beside the limits of the device."""
    now = synchronised(device)
    cases = [((160, 120), 1), ((120, 90), 2)] if quick else [((1600, 1200), 1), ((640, 480), 8)]
    dtypes = [torch.float32] if device == "cpu" else [torch.float32, torch.float16]
    rows = []
    for model in ("lift", "lift-plus"):
        for dtype in dtypes:
            feature = LIFTFeature(50 if quick else 1000, pretrained=model).to(device, dtype)
            for size, batch in cases:
                rows.append({"model": model, "dtype": str(dtype).removeprefix("torch."), "size": size, "batch": batch})
                image = (torch.from_numpy(picture(*size)).float()[None, None] / 255).expand(batch, -1, -1, -1)
                rows[-1] |= _timed(feature, image.to(device, dtype).contiguous(), now, 2 if quick else 12)
    tables = {}
    for dtype in dtypes:
        size = (160, 120) if quick else (1600, 1200)
        tables[str(dtype).removeprefix("torch.")] = roofline.measure_stages(now, 1 if quick else 5, device, dtype, size)
    return {"cases": rows, "stages": tables}


def _timed(feature: LIFTFeature, image: torch.Tensor, now: Callable[[], float], repeats: int) -> dict[str, Any]:
    if image.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        first, _ = lift_stages(feature, image, now)
        runs = [lift_stages(feature, image, now) for _ in range(repeats)]
    except RuntimeError as error:  # out of memory, or an operation that this number format lacks
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    stages = {name: statistics.median(run[0][name] for run in runs) for name in first}
    peak = torch.cuda.max_memory_allocated() / 2**20 if image.is_cuda else None
    return {
        "seconds": stages,
        "first_s": first["total"],
        "images_per_s": len(image) / stages["total"],
        "keypoints": runs[-1][1],
        "peak_mib": peak,
    }


def about(device: str) -> dict[str, Any]:
    """When, where and with what."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    cuda = device.startswith("cuda")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git.stdout.strip() or "unknown",
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "memory_mib": torch.cuda.get_device_properties(device).total_memory / 2**20 if cuda else None,
        "versions": {"kornia_lift": __version__, "torch": torch.__version__, "kornia": kornia.__version__},
        "cuda": torch.version.cuda if cuda else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, required=True, help="store of the training data, see --pack")
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER", help="write --data from a folder of training data, and end"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="result; a page lies beside it")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole script (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="all parts in miniature")
    args = parser.parse_args(argv)
    if args.pack is not None:
        store = pack(args.pack, args.data)
        print(f"{args.data}: {len(store.images)} images, {args.data.stat().st_size / 2**20:.1f} MiB")
        return 0
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --quick tries the script")
    start = time.monotonic()
    deadline = start + 60 * args.minutes
    record: dict[str, Any] = {
        "about": about(args.device),
        "command": f"python benchmarks/gpu.py {' '.join(argv or sys.argv[1:])}",
    }

    def write() -> None:
        record["minutes"] = (time.monotonic() - start) / 60
        for path, text in (
            (args.out, json.dumps(record, indent=1) + "\n"),
            (args.out.with_suffix(".md"), page(record)),
        ):
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def keep(results: Any) -> None:
        record["training"] = results
        write()

    parts: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(args.quick),
        "speed": lambda: run_speed(args.device, args.quick),
        "training": lambda: run_training(args.data, args.device, args.quick, deadline, keep),
    }
    failed = False
    for name, part in parts.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            record[name] = part()
        except Exception as error:  # the other parts are wanted all the same
            failed = True
            record[name] = {**(record.get(name) or {}), "error": str(error), "traceback": traceback.format_exc()}
        write()
    print(page(record))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
