"""What the inference paths save: every network as it is defined, and as it runs without gradient on this CPU.

    python -m benchmarks.timing.inference_paths --out benchmarks/results/speed/inference_paths.json

Processor time of one thread, medians of calls in turn. Patches are those of keypoints of an image; the descriptors of
every number format are compared with those in float32. kornia's patches are compared with those of PatchPyramid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from kornia.feature import extract_patches_from_pyramid, laf_is_filled, scale_laf
from torch import Tensor, nn

from benchmarks.timing.cases import picture
from benchmarks.timing.results import write_result
from benchmarks.timing.turns import medians, one_thread
from kornia_lift import LIFTDescriptor, LIFTFeature, LIFTOrientation, LIFTResponse
from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks._fast.folded import IntegerPrecision, Precision
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_integers
from kornia_lift.networks.compact_descriptor import REGIONS, CompactDescriptor
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.polar_orientation import PolarOrientation

COMMAND = "python -m benchmarks.timing.inference_paths"
DEFINED = "as defined"
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Paths:
    """Different ways to the same result.

    Args:
        name: what is computed.
        calls: the ways by name; that of :data:`DEFINED` comes first.
        unit: what the time is divided by.
        count: how many units a call has.
        describes: the results are descriptors, to be compared.

    """

    name: str
    calls: dict[str, Call]
    unit: str
    count: int
    describes: bool = False


@dataclass(frozen=True)
class Inputs:
    """An image (1, 1, H, W), and frames of its keypoints (1, N, 2, 3)."""

    image: Tensor
    lafs: Tensor

    @classmethod
    def of(cls, model: str, size: tuple[int, int], count: int) -> Inputs:
        """The picture of the speed benchmark, and the frames in which a model describes its best keypoints."""
        image = torch.from_numpy(picture(*size)).float()[None, None] / 255
        lafs, _, _ = LIFTFeature(count, pretrained=model)(image)
        return cls(image, lafs[:, laf_is_filled(lafs)[0]])

    @property
    def pixels(self) -> int:
        """Number of pixels of the image."""
        return self.image.shape[-2] * self.image.shape[-1]

    def patches(self, size: int, regions: tuple[float, ...] = (1.0,)) -> Tensor:
        """Patches of one or several regions around each frame, (N, regions, size, size)."""
        pyramid = PatchPyramid(self.image)
        return torch.cat([pyramid.cut(scale_laf(self.lafs, region), size) for region in regions], 2)[0]


def without(call: Call) -> Call:
    """Return the function that calls without inference paths."""

    def plain() -> Tensor:
        with fast_paths(False):
            return call()

    return plain


def of_network(make: Callable[[Any], nn.Module], x: Tensor, precisions: tuple[str, ...]) -> dict[str, Call]:
    """A network as defined, and its inference path in several number formats."""
    networks = {precision: make(precision).eval() for precision in precisions}
    calls: dict[str, Call] = {DEFINED: without(partial(networks["float32"], x))}
    for precision, network in networks.items():
        calls[precision] = partial(network, x)
    return calls


def paths_of_lift(inputs: Inputs) -> Iterator[Paths]:
    """The networks of the paper, and the patches that they see."""
    x = inputs.patches(64)
    precisions = tuple(p for p in get_args(Precision) if p != "auto")
    describe = of_network(lambda p: LIFTDescriptor(precision=p), x, precisions)
    yield Paths("lift: descriptor", describe, "ms per patch", len(x), describes=True)
    yield Paths("lift: orientation", of_network(lambda _: LIFTOrientation(), x, ("float32",)), "ms per patch", len(x))
    response = LIFTResponse().eval()
    calls: dict[str, Call] = {
        DEFINED: lambda: response.valid(inputs.image, direct=True),
        "float32": lambda: response.valid(inputs.image),
    }
    yield Paths("lift: response", calls, "ns per pixel", inputs.pixels)
    patches: dict[str, Call] = {
        DEFINED: lambda: extract_patches_from_pyramid(inputs.image, inputs.lafs, 64),
        "float32": lambda: PatchPyramid(inputs.image).cut(inputs.lafs, 64),
    }
    yield Paths("patches, with their pyramid", patches, "ms per patch", len(x))


def _with_precision(kind: Callable[..., nn.Module], model: str, precision: str) -> nn.Module:
    return kind(model, precision=precision)


def paths_of_compact(model: str, inputs: Inputs) -> Iterator[Paths]:
    """The networks of ``lift-plus``; its response is that of ``lift``."""
    x = inputs.patches(32, REGIONS)
    floats = tuple(p for p in get_args(Precision) if p != "auto")
    every = tuple(p for p in get_args(IntegerPrecision) if p != "auto" and (p != "int8" or has_integers()))
    describe = of_network(partial(_with_precision, CompactDescriptor, model), x, every)
    yield Paths(f"{model}: descriptor", describe, "ms per patch", len(x), describes=True)
    one = x[:, :1].contiguous()
    for name, kind, formats in (
        ("orientation", PolarOrientation, every),
        ("localization", KeypointLocalization, floats),
    ):
        calls = of_network(partial(_with_precision, kind, model), one, formats)
        yield Paths(f"{model}: {name}", calls, "ms per patch", len(x))


def measure(paths: Paths, rounds: int) -> dict[str, Any]:
    """Time all ways of one result; of descriptors also the cosines to those in float32."""
    factor = {"ms per patch": 1e3, "ns per pixel": 1e9}[paths.unit] / paths.count
    row: dict[str, Any] = {"name": paths.name, "unit": paths.unit, "count": paths.count}
    row["time"] = {name: seconds * factor for name, seconds in medians(paths.calls, rounds).items()}
    if paths.describes:
        exact = paths.calls["float32"]()
        row["cosine"] = {}
        for name, call in paths.calls.items():
            cosine = F.cosine_similarity(call(), exact, dim=1)
            row["cosine"][name] = {"mean": float(cosine.mean()), "smallest": float(cosine.min())}
    return row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args(arguments)
    rows = []
    with one_thread(), torch.inference_mode():
        for model in ("lift", "lift-plus"):
            inputs = Inputs.of(model, tuple(args.size), args.patches)
            for paths in paths_of_lift(inputs) if model == "lift" else paths_of_compact(model, inputs):
                rows.append(measure(paths, args.rounds))
                times = ", ".join(f"{name} {value:.3g}" for name, value in rows[-1]["time"].items())
                print(f"{paths.name}, {paths.unit}: {times} {rows[-1].get('cosine', '')}", flush=True)
    if args.out is not None:
        content = {
            "size": list(args.size), "patches": args.patches, "rounds": args.rounds,
            "clock": "processor time of one thread", "rows": rows,
        }  # fmt: skip
        write_result(args.out, COMMAND, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
