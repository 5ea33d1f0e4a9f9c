"""Options that several commands have, how their values are parsed, and the error of a wrong one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

MAX_FEATURES = 1_000_000  # per image
DTYPES = ("float32", "float16", "bfloat16", "float64")


class CommandError(Exception):
    """The command cannot do what was asked; the message is one line that says how to fix it."""


def add_feature_options(
    parser: argparse.ArgumentParser, *, num_features: int, resize: int, apply_exif: bool | None = True
) -> None:
    """Add the options that choose the feature, the pixels it sees, and where it is computed.

    Args:
        parser: the parser of a command.
        num_features: default of ``--num-features``.
        resize: default of ``--resize``.
        apply_exif: whether images are rotated as their EXIF tag says, by default; ``None``: it reads no image files.
    """
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
        help="a shipped model (lift, lift-upright, lift-plus, lift-plus-upright, lift-dense, "
        "lift-dense-upright, lf-net), or your own .safetensors file (default: %(default)s)",
    )
    group.add_argument("--upright", action="store_true", help="assign no orientation: better if no image is rotated")
    group.add_argument(
        "--affine",
        action="store_true",
        help="estimate an affine shape of each keypoint: better for surfaces seen from the side",
    )
    group.add_argument(
        "--resize",
        type=natural,
        default=resize,
        metavar="PIXELS",
        help="reduce larger images to this longer side, 0 for never; results are in pixels of the original "
        "(default: %(default)s)",
    )
    if apply_exif is not None:
        _add_exif_options(group, apply_exif)
    group.add_argument(
        "--device", default="auto", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)"
    )
    group.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="number format to compute in (default: %(default)s)"
    )


def _add_exif_options(group: argparse._ArgumentGroup, apply_exif: bool) -> None:
    exif = group.add_mutually_exclusive_group()
    exif.add_argument(
        "--apply-exif",
        action="store_true",
        dest="apply_exif",
        default=apply_exif,
        help="rotate images as their EXIF tag says, as viewers do" + (" (default)" if apply_exif else ""),
    )
    exif.add_argument(
        "--ignore-exif",
        action="store_false",
        dest="apply_exif",
        help="use the pixels as stored, as hloc and COLMAP do" + ("" if apply_exif else " (default)"),
    )


def add_matching_options(parser: argparse.ArgumentParser, *, geometry: str) -> None:
    """Add the options of matching and verification."""
    group = parser.add_argument_group("matching")
    group.add_argument(
        "--ratio",
        type=real(0, 1),
        default=0.95,
        help="nearest / second-nearest distance at most, both ways; 1: no ratio test (default: %(default)s)",
    )
    group.add_argument(
        "--filter",
        default="ratio",
        metavar="ratio|learned|FILE",
        help="what chooses among the nearest neighbours: ratio, mutual ones that pass the ratio test; learned, the "
        "shipped network (CNe); or the .safetensors file of your own network (default: %(default)s)",
    )
    group.add_argument(
        "--no-refine",
        action="store_false",
        dest="refine",
        help="leave matched positions as the detector found them; by default those in B are moved to where B shows "
        "the keypoints of A, to fractions of a pixel",
    )
    group.add_argument(
        "--geometry",
        choices=("fundamental", "homography"),
        default=geometry,
        help="fundamental: any static scene; homography: a plane, or a camera that only rotates (default: %(default)s)",
    )
    group.add_argument(
        "--threshold",
        type=real(0),
        default=2.0,
        metavar="PIXELS",
        help="largest error of an inlier, in pixels of the images (default: %(default)s)",
    )


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads that read images."""
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="threads that read images ahead (default: %(default)s)",
    )


def check_folder(path: Path, option: str = "--out") -> None:
    """Check that a folder is there or can be made, before the work whose results go into it.

    Raises:
        CommandError: if the path, or one above it, is a file.

    """
    blocked = next((each for each in (path, *path.parents) if each.exists() and not each.is_dir()), None)
    if blocked is not None:
        raise CommandError(f"{option} {path}: {blocked} is not a folder; choose another {option}")


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def report_unread(given: Iterable[str | os.PathLike[str]]) -> None:
    """Print which images in the folders among ``given`` no command can read, such as HEIC, and how to convert them."""
    from kornia_lift._io import describe_unread, list_unread_images

    unread: list[Path] = []
    for path in map(Path, given):
        with suppress(OSError):  # the command itself reports what cannot be read at all
            unread += list_unread_images(path)
    if unread:
        print(f"kornia-lift: {describe_unread(unread)}", file=sys.stderr)


def natural(text: str) -> int:
    """Parse a whole number, zero included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or larger, got {text!r}")
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


def _num_features(text: str) -> int:
    """Parse a number of keypoints; bounded by the memory and the pixels of an image."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_FEATURES:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MAX_FEATURES}, got {text!r}")
    return int(text)
