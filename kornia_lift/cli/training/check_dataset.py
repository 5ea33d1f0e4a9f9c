"""``kornia-lift check-dataset``: what training data hold and what is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError, report_unread


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check-dataset",
        help="say what training data hold and what is missing",
        description="Count images, locations and pairs; say what was dropped and why, what is held out, what is "
        "too little for which stage.",
        epilog="example:\n  kornia-lift check-dataset dataset/",
    )
    parser.add_argument("data", type=Path, nargs="+", metavar="PATH", help="stores, or folders of images")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the data hold."""
    from kornia_lift.training.data.load import load_data
    from kornia_lift.training.data.report import describe_data
    from kornia_lift.training.data.split import split_store

    report_unread(args.data)
    try:
        store = load_data(args.data, say=lambda text: print(text, file=sys.stderr))
        print(*describe_data(store, *split_store(store)), sep="\n")
    except ValueError as error:
        raise CommandError(str(error)) from error
    return 0
