"""``kornia-lift merge``: the feature files of several processes in, one file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift._words import counted
from kornia_lift.cli._options import CommandError

_EPILOG = """\
example:
  torchrun --nproc-per-node 4 -m kornia_lift extract images/ --out features.h5
  kornia-lift merge features.shard-*.h5 --out features.h5
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "merge",
        help="merge the feature files of several shards into one",
        description="Merge the feature files that shards of `kornia-lift extract` wrote into one.",
        epilog=_EPILOG,
    )
    parser.add_argument("parts", type=Path, nargs="+", metavar="SHARD", help="feature files to merge")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="the file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge and report."""
    from kornia_lift._io import check_writable
    from kornia_lift.files import merge_feature_files

    for part in args.parts:
        if not part.exists():
            raise CommandError(f"{part} does not exist")
        if args.out.exists() and part.samefile(args.out):
            raise CommandError(f"--out {args.out}: one of the files to merge, choose another name")
    check_writable(args.out)
    merged = merge_feature_files(args.parts, args.out)
    print(f"{counted(merged.images, 'image')} from {counted(len(args.parts), 'file')} in {args.out}")
    if merged.missing:
        print(
            f"kornia-lift: {counted(merged.missing, 'image')} missing: failed, or a shard was stopped before its end",
            file=sys.stderr,
        )
    return 1 if merged.missing else 0
