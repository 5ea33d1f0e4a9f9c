"""Resident memory of a process that extracts features of many images of different sizes.

    python benchmarks/memory.py

Crops of two images of scikit-image, each of a size of its own; every model in a process of its own, once with features
alone, once with a backward pass through every fourth image. The table gives the resident memory after each quarter, how
much it grew per image over the second half (least-squares line), and what is left after the C library's allocator has
given back what it only keeps for reuse (``malloc_trim``; glibc only). Writes
benchmarks/results/speed/memory.json and .md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from torch import Tensor

from kornia_lift import LIFTFeature
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.report.blocks import Heading, Paragraph, Table, to_markdown
from kornia_lift.evaluation.report.results import provenance

RESULTS = Path(__file__).parent / "results" / "speed"
HEIGHTS, WIDTHS = (150, 400), (150, 500)  # pixels
BACKWARD_EVERY = 4


@dataclass(frozen=True)
class Memory:
    """Resident memory of one process.

    Attributes:
        model: name of the weights.
        backward: every fourth image had a backward pass.
        loaded: MB with the model loaded, before the first image.
        after: MB after each image.
        trimmed: MB after the last one, when the allocator has given back what it only keeps; None where it cannot.
    """

    model: str
    backward: bool
    loaded: float
    after: list[float]
    trimmed: float | None

    def growth(self) -> float:
        """Least-squares slope over the second half, kB per image."""
        half = self.after[len(self.after) // 2 :]
        return float(np.polyfit(np.arange(len(half)), half, 1)[0] * 1024)


def resident() -> float:
    """Resident memory of this process, MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


def crops(count: int, seed: int = 0) -> list[Tensor]:
    """Gray crops (1, 1, H, W) of two images, each of a random size and location."""
    from skimage import data

    rng = np.random.default_rng(seed)
    sources = [
        rgb_to_grayscale(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255)
        for image in (data.astronaut(), data.coffee())
    ]
    found = []
    for k in range(count):
        source = sources[k % 2]
        height = int(rng.integers(HEIGHTS[0], min(HEIGHTS[1], source.shape[-2])))
        width = int(rng.integers(WIDTHS[0], min(WIDTHS[1], source.shape[-1])))
        y, x = (int(rng.integers(room + 1)) for room in (source.shape[-2] - height, source.shape[-1] - width))
        found.append(source[..., y : y + height, x : x + width].contiguous())
    return found


def measure(model: str, num_features: int, count: int, *, backward: bool) -> Memory:
    """Extract features of ``count`` images in this process."""
    torch.set_num_threads(1)
    images = crops(count)
    feature = LIFTFeature(num_features, pretrained=model).eval()
    loaded, after = resident(), []
    for k, image in enumerate(images):
        if backward and k % BACKWARD_EVERY == BACKWARD_EVERY - 1:
            image = image.clone().requires_grad_()
            lafs, _, descriptors = feature(image)
            (lafs.sum() + descriptors.sum()).backward()
            feature.zero_grad(set_to_none=True)
            del lafs, descriptors
        else:
            with torch.inference_mode():
                feature(image)
        after.append(resident())
    trimmed = None
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        trimmed = resident()
    return Memory(model, backward, loaded, after, trimmed)


def table(rows: list[Memory]) -> Table:
    """Give memory at each quarter, growth, and what the allocator held."""
    quarters = [len(rows[0].after) * k // 4 for k in (1, 2, 3, 4)]
    head = ["", "loaded, MB", *(f"after {k} images" for k in quarters), "growth, kB per image", "trimmed, MB"]
    cells = [
        [
            f"{m.model}{', every fourth with a backward pass' if m.backward else ''}",
            f"{m.loaded:.0f}",
            *(f"{m.after[k - 1]:.0f}" for k in quarters),
            f"{m.growth():.0f}",
            "–" if m.trimmed is None else f"{m.trimmed:.0f}",
        ]
        for m in rows
    ]
    return Table(head, cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lift", "lift-plus"])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--num-features", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", choices=("plain", "backward"), help=argparse.SUPPRESS)  # of a child process
    args = parser.parse_args()
    if args.one:
        found = measure(args.models[0], args.num_features, args.images, backward=args.one == "backward")
        print(json.dumps(asdict(found)))
        return 0
    rows = []
    for kind in ("plain", "backward"):
        for model in args.models:
            command = [sys.executable, __file__, "--one", kind, "--models", model, "--images", str(args.images)]
            command += ["--num-features", str(args.num_features)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(Memory(**json.loads(done.stdout.splitlines()[-1])))
            print(f"{model}, {kind}: {rows[-1].after[-1]:.0f} MB, {rows[-1].growth():.0f} kB per image", flush=True)
    made = provenance()
    sizes = f"{HEIGHTS[0]} to {HEIGHTS[1]} x {WIDTHS[0]} to {WIDTHS[1]} pixels"
    blocks = [
        Heading("Resident memory over many images of different sizes", 1),
        Paragraph(
            f"{args.images} crops of {sizes}, {args.num_features} keypoints, one process each, one thread. Growth: "
            "slope of the second half. Trimmed: after the allocator has given back what it keeps for reuse."
        ),
        table(rows),
        Paragraph(f"Made {made['time']} at commit {made['commit']} by python benchmarks/memory.py."),
    ]
    content = {
        "images": args.images, "num_features": args.num_features, "heights": HEIGHTS, "widths": WIDTHS,
        "backward_every": BACKWARD_EVERY, "provenance": made,
        "processes": [{**asdict(m), "growth_kb_per_image": m.growth()} for m in rows],
    }  # fmt: skip
    for name, text in (("memory.json", json.dumps(content) + "\n"), ("memory.md", to_markdown(blocks))):
        with atomic_write(args.out / name) as temporary:
            temporary.write_text(text)
    print(to_markdown(blocks))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
