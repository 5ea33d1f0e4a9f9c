"""All tests and measurements on a machine with a GPU, in one command, without network, in under nine minutes.

1. ``tests``: the CUDA tests (``pytest -m gpu``), several processes at once;
2. ``speed``: 1600x1200 pixels and 8 x VGA, 1000 keypoints, float32 and half; streams of images; the stages beside the
   limits; OpenCV's SIFT on the CPU of the same machine;
3. ``training``: a minute of each stage of all recipes (less where the time does not last), samples per second, errors.

    python benchmarks/gpu.py --pack TRAINING_DATA --data gpu.npz        once, anywhere: one file of at most 60 MiB
    python benchmarks/gpu.py --data gpu.npz --out benchmarks/results/gpu/gpu.json
    python benchmarks/gpu.py --parts tests,speed --minutes 3 --commit 1a2b3c4       where there is neither data nor git

``--device cpu --quick`` runs all of it in miniature, as the test suite does. Failures are recorded and do not stop the
rest. The result is rewritten after every measurement, so that nothing is lost if the machine is taken away.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kornia
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # Python looks beside this file only

from benchmarks.gpu_parts.page import page  # noqa: E402
from benchmarks.gpu_parts.speed import run_speed  # noqa: E402
from benchmarks.gpu_parts.training import pack, run_training  # noqa: E402
from kornia_lift import __version__  # noqa: E402
from kornia_lift._io import atomic_write  # noqa: E402
from kornia_lift.evaluation.report.results import processor_name  # noqa: E402

MINUTES = 8.5  # of the whole script
PARTS = ("tests", "speed", "training")
TEST_SECONDS = 150
SPEED_SECONDS = 75  # that the tests leave to the parts after them
#: Where CUDA tests are, in groups that run side by side.
TESTS = (
    ("tests/devices/test_gpu_networks.py",),
    ("tests/devices/test_gpu_features.py",),
    ("tests/devices/test_gpu_training.py", "tests/training/loop/test_loop.py"),
    ("tests/training/lfnet/test_lfnet_device.py",),
    ("tests/training/loop/test_interruptions.py",),
)


def run_tests(quick: bool, seconds: float = TEST_SECONDS) -> dict[str, Any]:
    """The CUDA tests; in the miniature they are only collected, by two processes."""
    # warnings of an untested torch version are shown, not errors
    command = ["-m", "pytest", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if quick else ["--durations=5"]
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(TESTS))),
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    start = time.monotonic()
    tests = (TESTS[0], sum(TESTS[1:], ())) if quick else TESTS
    groups: list[dict[str, Any]] = []
    with ExitStack() as opened:
        # files, since a full pipe would block the process that writes to it
        outputs = [opened.enter_context(tempfile.TemporaryFile("w+")) for _ in tests]
        running = [
            subprocess.Popen(
                [sys.executable, *command, *files], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            for files, output in zip(tests, outputs, strict=True)
        ]
        for files, process, output in zip(tests, running, outputs, strict=True):
            end = ""
            try:
                process.wait(max(1.0, seconds - (time.monotonic() - start)))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                end = f"\nstopped after {seconds:.0f} s"
            output.seek(0)
            code, lines = process.returncode, (output.read() + end).splitlines()
            failed = code not in (0, 5)
            groups.append({"files": files, "returncode": code, "tail": lines[-150 if failed else -20 :]})
    codes = [group["returncode"] for group in groups]
    return {
        "command": [*command, *sum(TESTS, ())],
        "returncode": max(codes, key=abs),
        "seconds": time.monotonic() - start,
        "tail": [group["tail"][-1] for group in groups if group["tail"]],
        "groups": groups,
    }


def commit_here() -> str:
    """Return the commit of the working tree; "unknown" in a copy without git."""
    try:
        git = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:  # no such program
        return "unknown"
    return git.stdout.strip() or "unknown"


def about(device: str, commit: str | None = None) -> dict[str, Any]:
    """When, where and with what."""
    cuda = device.startswith("cuda")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or commit_here(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "memory_mib": torch.cuda.get_device_properties(device).total_memory / 2**20 if cuda else None,
        "cpu": f"{processor_name()}, {os.cpu_count()} cores",
        "versions": {
            "kornia_lift": __version__,
            "torch": torch.__version__,
            "kornia": kornia.__version__,
            "python": platform.python_version(),
        },
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "tf32": "convolutions but those of the score, as torch has it" if cuda else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s, in this order")
    parser.add_argument("--data", type=Path, help="store of the training data, see --pack; for the part training")
    parser.add_argument("--commit", help="commit of this working tree, where git is missing")
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER", help="write --data from a folder of training data, and exit"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="result; a page lies beside it")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for the whole script (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="all parts in miniature")
    args = parser.parse_args(argv)
    chosen = args.parts.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser.error(f"--parts expects some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    if args.data is None and (args.pack is not None or "training" in chosen):
        parser.error("--data is needed to train; --parts tests,speed does without")
    if args.pack is not None:
        store = pack(args.pack, args.data)
        print(f"{args.data}: {len(store.images)} images, {args.data.stat().st_size / 2**20:.1f} MiB")
        return 0
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --quick tries the script")
    start = time.monotonic()
    # the miniature tries the script and spends no device time: nothing in it depends on a clock
    deadline = start + (3600.0 if args.quick else 60 * args.minutes)
    record: dict[str, Any] = {
        "about": about(args.device, args.commit),
        # folders are those of one machine
        "command": f"python benchmarks/gpu.py {' '.join(argv or sys.argv[1:])}".replace(str(args.out), args.out.name),
    }

    def write() -> None:
        record["minutes"] = (time.monotonic() - start) / 60
        for path, text in (
            (args.out, json.dumps(record, indent=1) + "\n"),
            (args.out.with_suffix(".md"), page(record)),
        ):
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def keep(part: str) -> Callable[[Any], None]:
        def keep_part(results: Any) -> None:
            record[part] = results
            write()

        return keep_part

    parts: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(
            args.quick, min(3600.0 if args.quick else TEST_SECONDS, deadline - time.monotonic() - SPEED_SECONDS)
        ),
        "speed": lambda: run_speed(args.device, args.quick, deadline, keep("speed")),
        "training": lambda: run_training(args.data, args.device, args.quick, deadline, keep("training")),
    }
    failed = False
    for name in (name for name in PARTS if name in chosen):
        part = parts[name]
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
