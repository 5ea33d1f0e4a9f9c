"""Peak memory of a process that runs LIFTFeature with gradients, forward and backward, on two images in one graph.

    python -m benchmarks.timing.gradients --out benchmarks/results/speed/gradients.json

Every case has a process of its own, with one thread. The cases "kept" do what torch does by default: they keep all
activations for the backward pass instead of computing them again (kornia_lift/_memory.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.timing.results import write_result
from kornia_lift import LIFTFeature, _memory

ROOT = Path(__file__).parents[2]
COMMAND = "python -m benchmarks.timing.gradients"


@dataclass(frozen=True)
class Case:
    """What runs in one process.

    Args:
        model: name of the weights.
        keypoints: per image.
        kept: keep the activations instead of computing them again.

    """

    model: str
    keypoints: int
    kept: bool = False


CASES = (
    Case("lift", 2000),
    Case("lift-plus", 2000),
    Case("lift", 500),
    Case("lift", 500, kept=True),
)


def peak() -> float:
    """Largest resident memory of this process so far, MB.

    ``ru_maxrss`` of a process begins with that of the process that started it, this one does not.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def measure(case: Case, images: Path) -> dict[str, Any]:
    """Run one case in this process: MB with the model loaded, after the forward and after the backward pass."""
    torch.set_num_threads(1)
    image = torch.from_numpy(np.load(images)).requires_grad_()
    feature = LIFTFeature(case.keypoints, pretrained=case.model).eval()
    found: dict[str, Any] = {"loaded_mb": peak()}
    kept = mock.patch.object(_memory, "checkpoint", lambda function, *tensors, use_reentrant: function(*tensors))
    with kept if case.kept else nullcontext():
        start = time.process_time()
        lafs, responses, descriptors = feature(image)
        found |= {"forward_mb": peak(), "forward_s": time.process_time() - start}
        start = time.process_time()
        (lafs.sum() + responses.sum() + descriptors.sum()).backward()
        found |= {"backward_mb": peak(), "backward_s": time.process_time() - start}
    missing = [name for name, parameter in feature.named_parameters() if parameter.grad is None]
    if image.grad is None or missing:
        raise RuntimeError(f"no gradient reached {missing or 'the image'}")
    return found


def run(case: Case, images: Path) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.timing.gradients", "--one", json.dumps(asdict(case)), str(images)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr}")
    return {**asdict(case), **json.loads(done.stdout.splitlines()[-1])}


def main(arguments: list[str] | None = None, cases: tuple[Case, ...] = CASES) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 682), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # of a child process
    args = parser.parse_args(arguments)
    if args.one:
        print(json.dumps(measure(Case(**json.loads(args.one[0])), Path(args.one[1]))))
        return 0
    from benchmarks.timing.cases import picture  # not in the children, where OpenCV would count

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        gray = picture(*args.size).astype(np.float32) / 255
        np.save(Path(folder) / "images.npy", np.stack([gray, gray[:, ::-1]])[:, None])
        for case in cases:
            rows.append(run(case, Path(folder) / "images.npy"))
            print({k: round(v, 1) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    if args.out is not None:
        content = {
            "images": 2,
            "size": list(args.size),
            "threads": 1,
            "cases": rows,
        }
        write_result(args.out, COMMAND, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
