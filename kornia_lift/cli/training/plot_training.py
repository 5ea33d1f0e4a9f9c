"""``kornia-lift plot-training``: the curves of training runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plot-training",
        help="draw the curves of training runs",
        description="Draw training loss, validation error and the other validation figures of every stage.",
        epilog="example:\n  kornia-lift plot-training runs/mine runs/other --out curves.svg\n\n"
        "A run that still goes on can be drawn too.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, or log.jsonl files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="figure, .svg, .png or .pdf")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the figure and print its name."""
    from kornia_lift.training.curves import find_logs, plot_runs

    try:
        print(plot_runs(args.runs, args.out))
        stages = {str(run): find_logs(run) for run in args.runs}
        if len(stages) > 1 and len(set().union(*stages.values())) == sum(map(len, stages.values())):
            listed = "; ".join(f"{run}: {', '.join(found)}" for run, found in stages.items())
            print(f"no two runs have a stage in common, so nothing is compared ({listed})", file=sys.stderr)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return 0
