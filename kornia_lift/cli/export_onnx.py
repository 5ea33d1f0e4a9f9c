"""``kornia-lift export-onnx``: a model in, its three networks as ONNX files out."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError

_DESCRIPTION = """\
Write the three networks of a model as ONNX files: response.onnx for images of any size, (B, 1, H, W) -> (B, 1, H, W);
orientation.onnx, (B, 1, 64, 64) -> (B,) radians, counter-clockwise; descriptor.onnx, (B, 1, 64, 64) -> (B, 128). Values
of images and patches lie in [0, 1]. Where onnxruntime is installed, the files are run and compared with torch.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export-onnx",
        help="write the networks of a model as ONNX files",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files; made if needed")
    parser.add_argument(
        "--model",
        default="lift",
        metavar="NAME|FILE",
        help="a shipped model or your own .safetensors file (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and compare where that is possible."""
    import warnings

    import torch

    from kornia_lift import LIFTDescriptor, LIFTOrientation, LIFTResponse
    from kornia_lift.integrations.onnx import example_input, export_onnx, run_onnx

    networks = {"response": LIFTResponse, "orientation": LIFTOrientation, "descriptor": LIFTDescriptor}
    compare = importlib.util.find_spec("onnxruntime") is not None
    for name, kind in networks.items():
        try:
            network = kind(args.model)
        except (ValueError, OSError) as error:
            raise CommandError(f"--model: {error}") from error
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter of torch warns of its own code
            export_onnx(network, path)
        line = f"{path}  {path.stat().st_size / 2**20:.1f} MiB"
        if compare:
            x = example_input(network)
            with torch.no_grad():
                difference = float((network(x) - torch.from_numpy(run_onnx(path, x))).abs().max())
            line += f", differs from torch by at most {difference:.1e}"
        print(line)
    return 0
