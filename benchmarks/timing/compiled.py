"""What torch.compile brings on a CPU: the networks, the whole feature, and the number of graphs of a feature.

    python -m benchmarks.timing.compiled --out benchmarks/results/speed/compiled.json

Processor time of one thread, medians of calls in turn; with gradient a call is a forward and a backward pass. The first
call, which compiles, is given in seconds on the wall, since the C++ compiler is another process; nothing that an
earlier run compiled is used again. Graphs are counted on an image and on the same image with padding.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing.cases import picture
from benchmarks.timing.results import write_result
from benchmarks.timing.turns import medians, one_thread
from kornia_lift import LIFTDescriptor, LIFTFeature, LIFTOrientation, LIFTResponse

COMMAND = "python -m benchmarks.timing.compiled"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "descriptor": LIFTDescriptor,
    "orientation": LIFTOrientation,
    "detector": LIFTResponse,
}


def image_of(width: int, height: int) -> Tensor:
    """The picture of the speed benchmark, (1, 1, H, W)."""
    return torch.from_numpy(picture(width, height)).float()[None, None] / 255


def forward(module: Callable[[Tensor], Any], x: Tensor) -> None:
    """One call without gradient."""
    with torch.no_grad():
        module(x)


def both(module: nn.Module, x: Tensor) -> None:
    """A forward and a backward pass to the weights and the input."""
    out = module(x.clone().requires_grad_())
    sum(part.sum() for part in (out if isinstance(out, tuple) else (out,))).backward()
    module.zero_grad(set_to_none=True)


def compare(eager: nn.Module, compiled: nn.Module, x: Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of both modules with and without gradient, and of the calls that compile."""
    row: dict[str, Any] = {}
    for name, call in (("no gradient", forward), ("gradient", both)):
        start = time.perf_counter()
        call(compiled, x)
        row[f"first, compiled, {name}"] = time.perf_counter() - start
        calls = {f"eager, {name}": partial(call, eager, x), f"compiled, {name}": partial(call, compiled, x)}
        row |= medians(calls, rounds)
    return row


def count_graphs(model: str, size: tuple[int, int], keypoints: int) -> int:
    """Return how many graphs ``torch.compile`` makes of a feature, for an image with and without padding."""
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(LIFTFeature(keypoints, pretrained=model), backend=count)
    image = image_of(*size)
    padded = torch.zeros_like(image)
    padded[..., 8:-8, 16:-16] = image[..., 8:-8, 16:-16]
    for each in (image, padded):
        forward(compiled, each)
    return graphs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(600, 500), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--keypoints", type=int, default=300, help="of the whole feature")
    parser.add_argument("--models", nargs="+", default=["lift", "lift-plus"], help="whose graphs to count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    size, rows, graphs = tuple(args.size), {}, {}
    with tempfile.TemporaryDirectory() as cache, one_thread():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for name, make in NETWORKS.items():
            x = image_of(*size) if name == "detector" else torch.rand(args.patches, 1, 64, 64)
            compiled = make().eval()
            compiled.compile(backend=args.backend)
            rows[name] = compare(make().eval(), compiled, x, args.rounds)
            print(name, rows[name], flush=True)
        # compiled by torch's default backend, whatever `--backend` says
        feature = LIFTFeature(args.keypoints, compile=args.backend == "inductor")
        rows["feature"] = compare(LIFTFeature(args.keypoints), feature, image_of(*size), args.rounds)
        print("feature", rows["feature"], flush=True)
        for model in args.models:
            graphs[model] = count_graphs(model, (160, 120), 30)
            print(f"{model}: {graphs[model]} graphs", flush=True)
    if args.out is not None:
        content = {
            "patches": args.patches, "size": list(size), "keypoints": args.keypoints,
            "rounds": args.rounds, "clock": "processor time of one thread", "seconds": rows, "graphs": graphs,
        }  # fmt: skip
        write_result(args.out, COMMAND, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
