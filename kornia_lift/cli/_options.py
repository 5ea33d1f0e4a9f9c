"""Options that the commands share, and what they mean: feature, device, dtype."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_lift.cli._errors import CommandError
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.weights import available_models
from kornia_lift.weights._registry import MODELS

MAX_FEATURES = 1_000_000  # per image

FeatureFactory = Callable[[argparse.Namespace], nn.Module]

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def add_feature_options(parser: argparse.ArgumentParser, *, num_features: int, resize: int) -> None:
    """Add the options that choose the feature and where it is computed."""
    group = parser.add_argument_group("feature")
    group.add_argument(
        "-n",
        "--num-features",
        type=_num_features,
        default=num_features,
        metavar="N",
        help="keypoints per image (default: %(default)s)",
    )
    group.add_argument(
        "--model",
        default="lift",
        metavar="NAME|FILE",
        help=f"shipped weights by name ({', '.join(available_models()) or 'none yet'}), or your own .safetensors file "
        "(default: %(default)s)",
    )
    group.add_argument("--upright", action="store_true", help="assign no orientation: better if no camera was turned")
    group.add_argument(
        "--resize",
        type=natural,
        default=resize,
        metavar="PIXELS",
        help="reduce larger images to this longer side, 0 for never; results are in pixels of the original "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--ignore-exif", action="store_true", help="do not turn photographs as their EXIF tag says (COLMAP does not)"
    )
    group.add_argument(
        "--device", default="auto", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)"
    )
    group.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="number format to compute in (default: %(default)s)"
    )


def make_lift_feature(args: argparse.Namespace) -> nn.Module:
    """Build the feature that the options ask for."""
    from kornia_lift.feature import LIFTFeature

    try:
        # without the option the model says: lift turns, lift-upright does not
        return LIFTFeature(args.num_features, upright=args.upright or None, pretrained=args.model)
    except (ValueError, OSError) as error:
        raise CommandError(f"--model: {error}") from error


def place(feature: nn.Module, args: argparse.Namespace) -> tuple[nn.Module, torch.device, torch.dtype]:
    """Put a feature where the options say.

    Raises:
        CommandError: if there is no such device.
    """
    device = choose_device(args.device)
    dtype = DTYPES[args.dtype]
    try:
        torch.ones(1, device=device).item()  # not every device that torch can name computes: meta
        return feature.to(device).eval(), device, dtype  # the dtype follows the images
    except (RuntimeError, AssertionError, ImportError) as error:  # torch without CUDA asserts
        raise CommandError(f"--device {args.device}: cannot compute there: {str(error).splitlines()[0]}") from error


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first GPU, or that of a torchrun process, else the CPU."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise CommandError(f"--device {name}: not a device; try cpu, cuda or cuda:1") from error


def provenance(args: argparse.Namespace) -> dict[str, Any]:
    """Return what decides about a feature, for files that hold results."""
    return {
        "feature": "kornia_lift",
        "model": args.model if args.model in MODELS else Path(args.model).name,
        "weights_sha256": _digest(args.model),
        "scale_space": repr(ScaleSpaceConfig()),
        "num_features": args.num_features,
        "upright": args.upright,
        "resize": args.resize,
        "exif": not args.ignore_exif,
        "dtype": args.dtype,
    }


def _digest(model: str) -> str | None:
    """Short checksum of the weights: two files may have one name, and a shipped model may change with a release."""
    if model in MODELS:
        return MODELS[model].sha256[:16]
    path = Path(model)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _num_features(text: str) -> int:
    """Parse a number of keypoints; the memory of a computer ends somewhere, and so do the pixels of an image."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_FEATURES:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MAX_FEATURES}, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Parse a whole number, zero included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or a whole number above, got {text!r}")
    return int(text)


def real(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """Return a parser of numbers in (low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low < value <= high:
            limits = f"above {low:g}" if high == float("inf") else f"above {low:g} and at most {high:g}"
            raise argparse.ArgumentTypeError(f"expected a number {limits}, got {text!r}")
        return value

    return parse
