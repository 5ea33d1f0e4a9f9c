"""From the options of a command to the feature, its device, and what a result file records about both."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_lift._checks import check_device
from kornia_lift.cli._options import CommandError
from kornia_lift.detector.model import scale_space_of
from kornia_lift.weights import network_family
from kornia_lift.weights._registry import MODELS

FeatureFactory = Callable[[argparse.Namespace], nn.Module]


def build_feature(args: argparse.Namespace) -> tuple[nn.Module, torch.device, torch.dtype]:
    """Build the feature that the options ask for, on the device that they ask for.

    Raises:
        CommandError: if there is no such model or device.
    """
    try:
        device = check_device(args.device, "--device", auto=True)  # before the weights are read
    except ValueError as error:
        raise CommandError(str(error)) from error
    feature = (args.make_feature or make_lift_feature)(args)
    if device.type == "cpu" and args.dtype == "float16":
        print("float16 is slow on a CPU; take float32 or bfloat16 there", file=sys.stderr)
    return feature.to(device).eval(), device, getattr(torch, args.dtype)  # the dtype follows the images


def make_lift_feature(args: argparse.Namespace) -> nn.Module:
    """Build LIFT or LF-Net, as the model says."""
    from kornia_lift.feature import feature_of

    try:
        # without the option the model says: lift assigns an orientation, lift-upright does not
        return feature_of(args.model, args.num_features, args.upright or None, affine=args.affine)
    except (ValueError, OSError) as error:
        raise CommandError(f"--model: {error}") from error


def provenance(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that a feature depends on, for files that hold results."""
    return {
        "feature": "kornia_lift",
        "model": args.model if args.model in MODELS else Path(args.model).name,
        "weights_sha256": _digest(args.model),
        "scale_space": _scale_space(args.model),
        "num_features": args.num_features,
        "upright": args.upright,
        "resize": args.resize,
        "exif": args.apply_exif,
        "dtype": args.dtype,
        "affine": args.affine,
    }


def _scale_space(model: str) -> str | None:
    """Return the settings of the model's detector; ``None`` for LF-Net, which has no scale space."""
    try:
        if network_family(model) == "lfnet":
            return None
        return repr(scale_space_of(model))
    except (ValueError, OSError):  # building the feature reports what is wrong
        return None


def _digest(model: str) -> str | None:
    """Return a short checksum: two files may have the same name, and a shipped model may change with a release."""
    if model in MODELS:
        return MODELS[model].sha256[:16]
    path = Path(model)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
