"""``kornia-lift build-dataset``: training data from images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError

_EPILOG = """\
examples:
  kornia-lift build-dataset holiday/church/ --out dataset/          photographs of one place; runs the reconstruction
  kornia-lift build-dataset scenes/*/ --out dataset/                folders with images/ and a COLMAP model in sparse/
  kornia-lift build-dataset hpatches/*/ --out dataset/              homography sequences, images 1.. and files H_1_k
  kornia-lift build-dataset holiday/all/ --single --out dataset/    unrelated photographs; second views are synthetic

A file that exists is left as it is if made of the same photographs with the same options, else it is an error.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "build-dataset",
        help="make training data from photographs",
        description="Make one file of training data per folder of photographs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--single", action="store_true", help="the photographs show different places")
    parser.add_argument("--max-size", type=int, default=1024, help="larger side of reconstructed photographs, pixels")
    parser.add_argument("--quality", type=int, default=88, help="of the stored JPEG photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build one store per folder; a folder that fails is named, the others are built."""
    from kornia_lift._extras import MissingExtraError
    from kornia_lift.training.data.build import BuildOptions, build_store, same_names, store_path

    clash = same_names(args.photos)
    if clash:
        raise CommandError(clash)
    args.out.mkdir(parents=True, exist_ok=True)
    options = BuildOptions(args.single, args.max_size, args.quality, args.seed)
    failed = 0
    for folder in args.photos:
        path = store_path(folder, args.out)
        try:
            store = build_store(folder, args.out, options, say=lambda text: print(text, file=sys.stderr))
        except MissingExtraError:
            raise
        except (OSError, ValueError) as error:
            said = str(error)
            print(said if str(folder) in said else f"{folder}: {said}", file=sys.stderr)
            failed += 1
            continue
        if store is None:
            print(f"{path} exists, made of the same photographs; left as it is")
            continue
        points = len(set(store.places.point.tolist()))
        print(
            f"{path}: {len(store.names)} photographs, {points} points in {len(store.places)} views, "
            f"{len(store.empty)} empty regions, {path.stat().st_size / 2**20:.1f} MiB"
        )
    if failed == len(args.photos):
        raise CommandError("no data set was built")
    return 1 if failed else 0
