"""``kornia-lift reconstruct``: a folder of images in, a COLMAP model out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kornia_lift._words import counted
from kornia_lift.cli import export_colmap, extract
from kornia_lift.cli._options import CommandError, add_feature_options, add_workers_option, check_folder

_DESCRIPTION = """\
Reconstruct a scene: extract LIFT features, match every pair of images (or those of a list), verify the matches by
two-view geometry, and find cameras and points by COLMAP's incremental mapping. A run that was stopped continues where
it was: features and matches are kept in the output folder, until another run there has other features or another
--ratio.
"""
_EPILOG = """\
examples:
  kornia-lift reconstruct images/ --out model
  kornia-lift reconstruct images/ --out model --camera PINHOLE,2759.48,2764.16,1520.69,1006.81
  colmap gui --import_path model/0 --database_path model/database.db --image_path images
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reconstruct",
        help="reconstruct a scene from a folder of images, with COLMAP's mapper",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of the images")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="MODEL",
        help="folder for features.h5, database.db and the models 0, 1, ...",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the robust estimators (default: %(default)s)")
    add_workers_option(parser)
    export_colmap.add_pair_options(parser)
    # COLMAP reads the stored pixels
    add_feature_options(parser, num_features=4000, resize=1600, apply_exif=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract, match, verify, map."""
    from kornia_lift._extras import require
    from kornia_lift._io import list_images
    from kornia_lift.files import colmap
    from kornia_lift.files.colmap_calls import quiet_colmap, unread_formats
    from kornia_lift.files.lock import FileLock

    pycolmap = require("pycolmap", extra="colmap")  # before the images are described, which may take hours
    if not args.images.is_dir():
        raise CommandError(f"{args.images} is not a folder of images")
    if args.apply_exif:
        raise CommandError("--apply-exif: COLMAP reads the stored pixels, features must be in them too")
    check_folder(args.out)
    images = list_images(args.images)
    export_colmap.check_pair_options(args, [path.relative_to(args.images).as_posix() for path in images])
    if args.camera is None:  # COLMAP makes the cameras from the images
        with quiet_colmap(pycolmap, args.out):
            unread = unread_formats(pycolmap, images)
        if unread:
            raise CommandError(
                f"this COLMAP does not read the format of {', '.join(map(str, unread))}: convert such images to JPEG "
                "or PNG, or give --camera"
            )
    try:
        colmap.old_models(args.out)  # before the work
    except FileExistsError as error:
        raise CommandError(f"--out: {error}") from error
    args.out.mkdir(parents=True, exist_ok=True)
    features, database = args.out / "features.h5", args.out / "database.db"
    with FileLock(database):  # also the models, and the matches that are kept
        extraction = argparse.Namespace(**{**vars(args), "inputs": [args.images], "out": features})
        extraction.overwrite, extraction.shard = False, None
        failed = extract.run(extraction)
        database.unlink(missing_ok=True)
        _, matches = export_colmap.write(args, features, database, args.out / "matches")
        print(f"{counted(sum(map(len, matches.values())), 'putative match', 'es')} in {counted(len(matches), 'pair')}")
        print(f"{counted(colmap.verify(database, seed=args.seed), 'pair')} verified")
        model = colmap.map_database(
            database, args.out, images=args.images, refine_intrinsics=args.camera is None, seed=args.seed
        )
    if model is None:
        raise CommandError("no model was found: too few images overlap, or --num-features is too small")
    print(
        f"{counted(model.num_reg_images(), 'image')} registered, {counted(model.num_points3D(), 'point')} seen "
        f"{model.compute_mean_track_length():.1f} times on average, reprojection error "
        f"{model.compute_mean_reprojection_error():.2f} px: {args.out}"
    )
    return failed
