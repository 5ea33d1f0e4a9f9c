"""The command ``kornia-lift``: reads arguments, calls a command, turns expected faults into one line and a code.

Exit codes: 0 done; 1 done, but some inputs failed and were named; 2 the command could not start or go on;
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from kornia_lift import __version__

if TYPE_CHECKING:
    from kornia_lift.cli._options import FeatureFactory

# name, the function that adds its parser, and the line that --help of the whole shows: torch is not imported for it
COMMANDS = {
    "match": ("kornia_lift.cli.match", "add_parser", "match two photographs and draw the matches"),
    "extract": ("kornia_lift.cli.extract", "add_parser", "describe files or folders into one h5 file (hloc)"),
    "merge": ("kornia_lift.cli.merge", "add_parser", "put the feature files of several shards into one"),
    "demo": ("kornia_lift.cli.demo", "add_parser", "match a photograph with a warped copy of itself; needs no files"),
    "evaluate": ("kornia_lift.cli.evaluate", "add_evaluate_parser", "measure features on scenes with known geometry"),
    "compare": ("kornia_lift.cli.evaluate", "add_evaluate_parser", "say whether one feature beats another"),
    "build-dataset": ("kornia_lift.cli.train", "add_build_parser", "make training data from images"),
    "check-dataset": ("kornia_lift.cli.train", "add_check_parser", "say what training data hold and what is missing"),
    "train": ("kornia_lift.cli.train", "add_train_parser", "train the three networks"),
    "plot-training": ("kornia_lift.cli.train", "add_curves_parser", "draw the curves of training runs"),
}

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


class _Command(_Parser):
    """The parser of one command: gets its options when the command is called."""

    _filled = False

    def _fill(self) -> None:
        self._filled = True
        name = self.prog.rpartition(" ")[2]
        module, function, _ = COMMANDS[name]
        getattr(importlib.import_module(module), function)(_Slot(name, self))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options, then parse."""
        if not self._filled:
            self._fill()
        return super().parse_known_args(args, namespace)


class _Slot:
    """Stands for the sub-parsers where a command adds its own, of which one name is wanted."""

    def __init__(self, name: str, parser: argparse.ArgumentParser) -> None:
        self._name = name
        self._parser = parser

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Return the parser of the wanted name with its texts; one that nobody sees for any other name."""
        if name != self._name:
            return argparse.ArgumentParser()
        options.pop("help")
        for key, value in options.items():
            setattr(self._parser, key, value)
        return self._parser


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``run``, a function of the parsed arguments to an exit code."""
    parser = _Parser(
        prog="kornia-lift",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kornia_lift {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for name, (_, _, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


def main(argv: Sequence[str] | None = None, *, make_feature: FeatureFactory | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments, by default those of the process.
        make_feature: builds the local feature from the parsed options; by default LIFT.
    """
    for stream in (sys.stdout, sys.stderr):  # the name of a file need not be Unicode
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(argv)
        if make_feature is None:
            from kornia_lift.cli._options import make_lift_feature as make_feature
        args.make_feature = make_feature
        return int(args.run(args))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            return _fail("the device is out of memory: use a smaller --resize or --num-features, or --device cpu")
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # of numpy, of torch on a CPU
            return _fail("out of memory: use a smaller --resize or --num-features")
        if isinstance(error, _expected_faults()):
            return _fail(str(error))
        raise


def _expected_faults() -> tuple[type[Exception], ...]:
    """Faults of the input or of the machine: one line tells all there is to say."""
    from kornia_lift._extras import MissingExtraError
    from kornia_lift._io import ImageFileError
    from kornia_lift.cli._errors import CommandError
    from kornia_lift.files import FeatureFileError
    from kornia_lift.weights import WeightFileError

    return CommandError, FeatureFileError, ImageFileError, MissingExtraError, OSError, WeightFileError


def _fail(message: str, code: int = 2) -> int:
    print("kornia-lift:", " ".join(message.split()), file=sys.stderr)
    return code
