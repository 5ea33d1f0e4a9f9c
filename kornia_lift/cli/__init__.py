"""The command ``kornia-lift``: one module per command, which adds the options (``add_parser``) and runs it (``run``).

``add_parser`` needs only the standard library, so that help appears at once; ``run`` imports what it computes with.

Exit codes: 0 done; 1 done, with something to look at: some inputs failed, or the images do not overlap; 2 the command
could not start or continue; 130 interrupted; 141 the reader of the output went away; 143 terminated.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from kornia_lift import __version__
from kornia_lift.cli import convert, demo, export_colmap, export_onnx, extract, match, merge, reconstruct
from kornia_lift.cli._options import CommandError
from kornia_lift.cli._parser import Parser
from kornia_lift.cli.evaluation import compare, evaluate, patches
from kornia_lift.cli.training import build_dataset, check_dataset, plot_training, train

if TYPE_CHECKING:
    from kornia_lift.cli._feature import FeatureFactory

COMMANDS = (
    *(match, extract, merge, demo, reconstruct, export_colmap, evaluate, compare, patches),
    *(build_dataset, check_dataset, train, plot_training, convert, export_onnx),
)

RESENT_AFTER = 0.05  # seconds
SPINS = "300"  # a thousandth of the default of GNU's OpenMP: some microseconds
_DESCRIPTION = "LIFT (Learned Invariant Feature Transform): match images, extract features, evaluate, train."
_EPILOG = """\
try it:
  kornia-lift demo                                  no image needed
  kornia-lift match left.jpg right.jpg              figures, and a picture of the matches
  kornia-lift extract images/ --out features.h5     for hloc and COLMAP

`kornia-lift COMMAND --help` explains a command.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``run``, a function of the parsed arguments to an exit code."""
    parser = Parser(
        prog="kornia-lift",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"kornia_lift {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None, *, make_feature: FeatureFactory | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments, by default those of the process.
        make_feature: builds the local feature from the parsed options; by default LIFT.
    """
    if "torch" not in sys.modules:  # its OpenMP reads this when it is loaded
        # Threads that spin while they wait take cores from the threads that they wait for, if other programs run too.
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for stream in (sys.stdout, sys.stderr):  # file names need not be Unicode
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser, args = build_parser(), argparse.Namespace()
    try:
        args = parser.parse_args(argv)
        if not hasattr(args, "run"):
            parser.print_help()
            return 0
        args.make_feature = make_feature
        with _terminable():
            _clean_up(args)
            return int(args.run(args))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = _message(error, args)
        if message is None:
            raise
        return _fail(message)


def _clean_up(args: argparse.Namespace) -> None:
    """Remove the temporary files that an earlier run of the command left when it was killed."""
    from kornia_lift._io.writing import remove_leftovers

    for name in ("out", "cache"):
        target = getattr(args, name, None)
        if isinstance(target, Path):
            with suppress(OSError):  # the command itself reports what is wrong with the folder
                remove_leftovers(target)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command as an exception does: temporary files are removed, finished images are kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def again(ignored: sys.UnraisableHookArgs) -> None:
        # Python drops what a signal raises within a finalizer: it is sent again when the finalizer has returned
        if isinstance(ignored.exc_value, (KeyboardInterrupt, SystemExit)):
            number = signal.SIGINT if isinstance(ignored.exc_value, KeyboardInterrupt) else signal.SIGTERM
            resent.append(threading.Timer(RESENT_AFTER, os.kill, (os.getpid(), number)))
            resent[-1].start()
        else:
            report(ignored)

    resent: list[threading.Timer] = []
    before, report = signal.signal(signal.SIGTERM, terminate), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield
    finally:
        for timer in resent:  # the command is over
            timer.cancel()
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, before)


def _less_memory(args: argparse.Namespace) -> str:
    """What makes a command take less memory."""
    sizes = [f"--{name.replace('_', '-')}" for name in ("resize", "max_size", "num_features") if hasattr(args, name)]
    if sizes:
        return f"use a smaller {' or '.join(sizes)}"
    if hasattr(args, "max_minutes"):
        return (
            "copy the recipe and lower the sizes of its batches (images_per_batch, ...), or use smaller images; "
            "finished stages are kept"
        )
    return "use smaller images, or fewer at a time"


def _message(error: Exception, args: argparse.Namespace) -> str | None:
    """Return what to print for an error of the input or the machine; ``None`` for an error of the program."""
    import torch

    from kornia_lift._extras import MissingExtraError
    from kornia_lift._io import ImageFileError
    from kornia_lift.files import FeatureFileError
    from kornia_lift.weights import WeightFileError

    if isinstance(error, torch.OutOfMemoryError):
        return f"the device is out of memory: {_less_memory(args)}, or --device cpu"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # of numpy, of torch on a CPU
        return f"out of memory: {_less_memory(args)}"
    if isinstance(error, OSError):
        said = f"{error.filename}: {error.strerror}" if error.strerror and error.filename else str(error)
        full = any(os.strerror(number) in said for number in (errno.ENOSPC, errno.EDQUOT)) and "make room" not in said
        return f"{said}; make room, and start the same command again" if full else said
    if isinstance(error, (CommandError, FeatureFileError, ImageFileError, MissingExtraError, WeightFileError)):
        return str(error)
    return None


def _fail(message: str, code: int = 2) -> int:
    print("kornia-lift:", " ".join(message.split()), file=sys.stderr)
    return code
