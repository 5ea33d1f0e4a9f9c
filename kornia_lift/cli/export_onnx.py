"""``kornia-lift export-onnx``: a model in, its networks, or the whole feature, as ONNX files out."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift.cli._options import CommandError, check_folder, positive

if TYPE_CHECKING:
    import torch

_DESCRIPTION = """\
Write the networks of a model as ONNX files, for images of any size and any number of patches:

  response.onnx      (B, 1, H, W) -> (B, 1, H, W)
  localization.onnx  lift-plus only: (B, 1, 32, 32) -> (B, 4), x and y in half sides of the patch, logarithm of the
                     factor of the scale, logarithm of the expected error
  shape.onnx         with --affine only: (B, 1, 32, 32) -> (B, 2), the stretch that makes the keypoint's shape
  orientation.onnx   (B, 1, 64, 64), lift-plus (B, 1, 32, 32) -> (B,) radians, counter-clockwise; not for upright models
  descriptor.onnx    (B, 1, 64, 64), lift-plus (B, 3, 32, 32): the region, twice and four times as large
                     -> (B, 128)

Values of images and patches lie in [0, 1].

With --image-size, write the whole feature instead: feature.onnx, (1, 1, H, W) -> LAFs (1, N, 2, 3), responses (1, N),
descriptors (1, N, 128). It takes a minute. The model lf-net cannot be exported.

Where onnxruntime is installed, the files are run and compared with torch.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export-onnx",
        help="write the networks of a model, or the whole feature, as ONNX files",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files; made if needed")
    parser.add_argument(
        "--model",
        default="lift",
        metavar="NAME|FILE",
        help="a shipped model or your own .safetensors file (default: %(default)s)",
    )
    parser.add_argument("--affine", action="store_true", help="with the affine shapes of keypoints")
    parser.add_argument(
        "--image-size",
        type=positive,
        nargs=2,
        metavar=("H", "W"),
        help="write the whole feature, for gray images of this many rows and columns",
    )
    parser.add_argument(
        "-n",
        "--num-features",
        type=positive,
        default=1000,
        metavar="N",
        help="keypoints of the whole feature (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and compare where that is possible."""
    import warnings

    import torch

    from kornia_lift import LIFTFeature
    from kornia_lift.integrations.onnx import example_input, export_onnx, networks_of, run_onnx
    from kornia_lift.networks._fast.plan import fast_paths
    from kornia_lift.weights import network_family

    check_folder(args.out)
    size = None if args.image_size is None else tuple(args.image_size)
    try:
        if network_family(args.model) == "lfnet":
            raise CommandError(
                f"--model expects weights of LIFT's or the compact networks, got LF-Net's ({args.model}), which cannot "
                "be exported; choose lift, lift-plus or lift-dense"
            )
        feature = LIFTFeature(args.num_features, pretrained=args.model, precision="float32", affine=args.affine)
        parts = networks_of(feature)
    except (TypeError, ValueError, OSError) as error:
        raise CommandError(f"--model: {error}") from error
    modules: dict[str, torch.nn.Module] = parts if size is None else {"feature": feature}
    compare = importlib.util.find_spec("onnxruntime") is not None
    for name, network in modules.items():
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns about its own code
            export_onnx(network, path, size)
        line = f"{path}  {path.stat().st_size / 2**20:.1f} MiB"
        if compare:
            x = example_input(network, size)
            with torch.no_grad(), fast_paths(False):  # in float32, like the file
                expected = network(x)
            found = tuple(map(torch.from_numpy, run_onnx(path, x)))
            if size is None:
                line += f", differs from torch by at most {float((expected - found[0]).abs().max()):.1e}"
            else:
                line += f", {found_again(expected[0], found[0]):.1%} of the keypoints of torch within 0.1 px"
        print(line)
    return 0


def found_again(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the share of the centres of some LAFs (1, N, 2, 3) that others have too, within 0.1 pixels.

    The order does not count: rounding decides it for keypoints with nearly equal responses.
    """
    distances = (expected[0, :, None, :, 2] - found[0, None, :, :, 2]).norm(dim=-1)
    return float((distances.amin(1) < 0.1).double().mean())
