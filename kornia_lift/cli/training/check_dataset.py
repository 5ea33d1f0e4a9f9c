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
        epilog="examples:\n  kornia-lift check-dataset dataset/\n"
        "  kornia-lift check-dataset dataset/church.npz --validation dataset/market.npz\n\n"
        "Exit code: 0 if something can be trained, 1 if nothing can, 2 if the data cannot be read.",
    )
    parser.add_argument("data", type=Path, nargs="+", metavar="PATH", help="stores, or folders of images")
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="held-out data, as `train --validation` takes them; a part of the data if not given",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the data hold."""
    from kornia_lift.training.data.load import load_data
    from kornia_lift.training.data.report import can_train, describe_data
    from kornia_lift.training.data.split import check_apart, split_store

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    report_unread([*args.data, *(args.validation or ())])
    try:
        store = load_data(args.data, say=say)
        if args.validation is None:
            train, held_out = split_store(store)
        else:
            train, held_out = store, load_data(args.validation, say=say)
            check_apart(train, held_out)
        print(*describe_data(store, train, held_out), sep="\n")
    except ValueError as error:
        raise CommandError(str(error)) from error
    if not can_train(train, held_out):
        print("nothing can be trained on these data, see the lines above")
        return 1
    return 0
