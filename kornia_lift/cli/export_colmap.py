"""``kornia-lift export-colmap``: a feature file in, a COLMAP database with features and matches out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift._words import counted
from kornia_lift.cli._options import CommandError, real, report_unread

if TYPE_CHECKING:
    from kornia_lift.reconstruction import Matches

_DESCRIPTION = """\
Write a COLMAP database: images and cameras, keypoints, descriptors as bytes, putative matches, and, unless --no-verify
is given, the matches that agree with one two-view geometry. Extract the features with the pixels as stored, which is
the default of `kornia-lift extract`: COLMAP does not rotate images.
"""
_EPILOG = """\
examples:
  kornia-lift extract images/ --out features.h5
  kornia-lift export-colmap features.h5 --images images/ --out database.db
  colmap mapper --database_path database.db --image_path images --output_path models
"""
CAMERA_MODES = ("AUTO", "SINGLE", "PER_FOLDER", "PER_IMAGE")


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export-colmap",
        help="write a COLMAP database from a feature file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("features", type=Path, metavar="FEATURES.h5", help="file of `kornia-lift extract`, or of hloc")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, metavar="DATABASE.db", help="the database; must not exist")
    add_pair_options(parser)
    parser.add_argument("--no-verify", action="store_true", help="write putative matches only")
    parser.set_defaults(run=run)


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which images are matched, how, and with which cameras."""
    group = parser.add_argument_group("matching and cameras")
    group.add_argument(
        "--pairs", type=Path, metavar="FILE", help="pairs to match, two image names per line (default: every pair)"
    )
    group.add_argument(
        "--ratio",
        type=real(0, 1),
        default=0.9,
        help="nearest / second-nearest distance at most, both ways; 1: no ratio test (default: %(default)s)",
    )
    group.add_argument(
        "--camera-mode",
        choices=CAMERA_MODES,
        default="AUTO",
        help="which images share a camera of unknown intrinsics; AUTO: those of one size and EXIF focal length "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--camera",
        metavar="MODEL,PARAMS",
        help="known intrinsics, the same for all images: a COLMAP model and its parameters, as PINHOLE,fx,fy,cx,cy",
    )


def check_pair_options(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Check the list of pairs and the camera, before features are extracted, which may take hours.

    Raises:
        CommandError: if one of them is wrong.

    """
    from kornia_lift import reconstruction

    try:
        if args.pairs is not None:
            reconstruction.read_pairs(args.pairs, names)
        if args.camera is not None:
            reconstruction.parse_camera(args.camera, (1, 1))
    except ValueError as error:
        raise CommandError(str(error)) from error


def run(args: argparse.Namespace) -> int:
    """Match, write, verify."""
    if args.out.exists():
        raise CommandError(f"--out {args.out} exists: remove it or choose another name")
    if not args.out.parent.is_dir():
        raise CommandError(f"--out {args.out}: its folder does not exist")
    if not args.images.is_dir():
        raise CommandError(f"--images {args.images} is not a folder")
    report_unread([args.images])
    names, matches = write(args, args.features, args.out, None)
    count = sum(map(len, matches.values()))
    print(f"{counted(names, 'image')}, {count} putative matches in {counted(len(matches), 'pair')}: {args.out}")
    if not args.no_verify:
        from kornia_lift.files import colmap

        print(f"{counted(colmap.verify(args.out), 'pair')} verified")
    return 0


def write(args: argparse.Namespace, features: Path, database: Path, parts: Path | None) -> tuple[int, Matches]:
    """Match the images of a feature file and write the database; returns the number of images and the matches.

    Finished matches are kept in ``parts``, in a folder for these features and this ratio; those of others are removed
    once the database is there.
    """
    from kornia_lift import reconstruction
    from kornia_lift._extras import require
    from kornia_lift.files import colmap
    from kornia_lift.files.reader import FeatureReader

    with FeatureReader(features) as reader:
        found = {name: reader.read(name) for name in reader.names()}
        if reader.options.get("exif"):
            _check_stored(features, args.images, found)
    if len(found) < 2:
        raise CommandError(f"{features} holds {counted(len(found), 'image')}, at least 2 are needed")
    if parts is None:  # the database is what is wanted, not a step on the way to a model
        left_out = sum(len(each) > 0 and colmap.descriptor_bytes(each.descriptors) is None for each in found.values())
        if left_out:
            print(
                f"descriptors of {counted(left_out, 'image')} are not stored: COLMAP holds 128 numbers that are not "
                "negative, as those of lift; use the matches stored here, COLMAP's own matcher would find none",
                file=sys.stderr,
            )
    try:
        pairs = (
            reconstruction.exhaustive_pairs(found)
            if args.pairs is None
            else reconstruction.read_pairs(args.pairs, found)
        )
        camera = None
        if args.camera is not None:
            camera = reconstruction.parse_camera(args.camera, reconstruction.one_size(found.items()))
        if parts is not None:
            parts /= reconstruction.matching_key(found, args.ratio)
        with require("tqdm", extra="cli").tqdm(total=len(pairs), unit="pair", disable=None, desc="matching") as bar:
            matches = reconstruction.match_pairs(found.__getitem__, pairs, args.ratio, parts=parts, progress=bar.update)
        colmap.write_database(
            database, found, matches, images=args.images, cameras=camera, camera_mode=args.camera_mode
        )
        if parts is not None:
            reconstruction.remove_superseded(parts.parent, parts.name)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return len(found), matches


def _check_stored(features: Path, images: Path, names: Iterable[str]) -> None:
    """Refuse keypoints that are not in the stored pixels, which COLMAP reads: the sizes of many images do not tell."""
    from kornia_lift._io.images import load_image_and_orientation

    files = ((name, images / name) for name in names)
    rotated = [
        name
        for name, path in files
        if path.is_file() and load_image_and_orientation(path, gray=True, apply_exif=False)[1] != 1
    ]
    if rotated:
        raise CommandError(
            f"{features} was made with --apply-exif, and {counted(len(rotated), 'image')} with an orientation tag "
            f"({rotated[0]}{', ...' if len(rotated) > 1 else ''}): COLMAP reads the pixels as stored; extract again "
            "without --apply-exif"
        )
