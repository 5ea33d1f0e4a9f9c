"""The command ``kornia-lift``: reads arguments, calls a command, turns expected faults into one line and a code.

Exit codes: 0 done; 1 done, but some inputs failed and were named; 2 the command could not start or go on;
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from kornia_lift import __version__
from kornia_lift._extras import MissingExtraError
from kornia_lift._io import ImageFileError
from kornia_lift.cli._errors import CommandError
from kornia_lift.cli._options import FeatureFactory, make_lift_feature
from kornia_lift.export import FeatureFileError
from kornia_lift.weights._safetensors import WeightFileError

_DESCRIPTION = "LIFT (Learned Invariant Feature Transform) on photographs: match two, describe many, measure, train."
_EPILOG = """\
try it:
  kornia-lift demo                                  no photograph needed
  kornia-lift match left.jpg right.jpg              numbers, and a picture of the matches
  kornia-lift extract photos/ --out features.h5     for hloc and COLMAP

`kornia-lift COMMAND --help` tells all about a command.
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to read more."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``run``, a function of the parsed arguments to an exit code."""
    from kornia_lift.cli import demo, extract, match, merge
    from kornia_lift.evaluation.cli import add_evaluate_parser
    from kornia_lift.training.cli import add_build_parser, add_train_parser

    parser = _Parser(
        prog="kornia-lift",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kornia_lift {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (match, extract, merge, demo):
        command.add_parser(commands)
    add_evaluate_parser(commands)
    add_build_parser(commands)
    add_train_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None, *, make_feature: FeatureFactory = make_lift_feature) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments, by default those of the process.
        make_feature: builds the local feature from the parsed options.
    """
    args = build_parser().parse_args(argv, argparse.Namespace(make_feature=make_feature))
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except torch.OutOfMemoryError:
        return _fail("the device is out of memory: use a smaller --resize or --num-features, or --device cpu")
    except (CommandError, FeatureFileError, ImageFileError, MissingExtraError, OSError, WeightFileError) as error:
        return _fail(str(error))


def _fail(message: str, code: int = 2) -> int:
    print("kornia-lift:", " ".join(message.split()), file=sys.stderr)
    return code
