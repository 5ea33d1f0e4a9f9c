"""``kornia-lift build-dataset``: training data from images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift._words import counted
from kornia_lift.cli._options import CommandError, check_folder, report_unread

_EPILOG = """\
examples:
  kornia-lift build-dataset holiday/church/ --out dataset/          images of one scene; runs the reconstruction
  kornia-lift build-dataset scenes/*/ --out dataset/                folders with images/ and a COLMAP model in sparse/
  kornia-lift build-dataset data/ --out dataset/                    sfm/, posed/, photos/ and illumination/ in one store
  kornia-lift build-dataset hpatches/*/ --out dataset/              homography sequences, images 1.. and files H_1_k
  kornia-lift build-dataset holiday/all/ --single --out dataset/    unrelated images; second views are synthetic

A file that exists is kept if it was made of the same images with the same options; otherwise it is an error.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "build-dataset",
        help="make training data from images",
        description="Make one file of training data per folder of images.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="images, scenes, or a whole data set, see below"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--single", action="store_true", help="the images show different scenes")
    parser.add_argument(
        "--max-size",
        type=int,
        default=1024,
        metavar="PIXELS",
        help="reduce images of reconstructed and single scenes to this longer side (default: %(default)s)",
    )
    parser.add_argument(
        "--quality", type=int, default=88, metavar="Q", help="of the stored JPEG images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the reconstruction and of the locations chosen (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build one store per folder; a folder that fails is named, the others are built."""
    from kornia_lift._extras import MissingExtraError
    from kornia_lift.training.data.prepare.build import BuildOptions, build_store, same_names, store_path
    from kornia_lift.training.data.report import funnel_lines

    clash = same_names(args.folders)
    if clash:
        raise CommandError(clash)
    report_unread(args.folders)
    check_folder(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    options = BuildOptions(args.single, args.max_size, args.quality, args.seed)
    failed = 0
    for folder in args.folders:
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
            print(f"{path} exists, made of the same images; kept")
            continue
        points = len(set(store.tracks.point.tolist()))
        size = f"{counted(len(store.images), 'image')}, {counted(points, 'location')}"
        print(
            f"{path}: {size} in {counted(len(store.tracks), 'view')}, {counted(len(store.empty), 'empty region')}, "
            f"{path.stat().st_size / 2**20:.1f} MiB"
        )
        for scene, counts in store.counts.items():
            print(f"{scene}:", *funnel_lines(counts), sep="\n")
    if failed == len(args.folders):
        raise CommandError("no data set was built")
    return 1 if failed else 0
