"""``kornia-lift train``: train the three networks by a recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError

_EPILOG = """\
examples:
  kornia-lift train paper --data dataset/ --out runs/mine
  kornia-lift train paper --data dataset/ --out runs/mine --max-minutes 30
  kornia-lift train modern --data dataset/ --out runs/modern        the same stores
  kornia-lift train modern --data holiday/ --out runs/modern        single images, or scenes with sparse/
  torchrun --nproc-per-node 2 -m kornia_lift train paper --data dataset/ --out runs/mine

Started again, a run that was stopped (Ctrl-C, SIGTERM) or killed goes on where it was; one that ran out of time needs
more minutes.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train the three networks",
        description="Train detector, orientation and descriptor by a recipe; writes weights.safetensors.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="RECIPE", help="paper, modern, or your own .toml or .json file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH", help="stores, or folders of images; instead of the config's"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="held-out data; a part of the training data if not given",
    )
    parser.add_argument("--max-minutes", type=float, metavar="M", help="time for all stages, all resumptions together")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="train only these")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print the results."""
    from kornia_lift.training.config import ConfigError, read_mapping
    from kornia_lift.training.data.store import StoreError
    from kornia_lift.training.loop import TrainingDivergedError
    from kornia_lift.training.loop.checkpoint import BEST, CheckpointError
    from kornia_lift.training.loop.distributed import WorkerLostError, process_group, rank
    from kornia_lift.training.loop.signals import TrainingInterrupted
    from kornia_lift.training.recipes import recipe_path
    from kornia_lift.training.run import WEIGHTS, read_run, train, with_budget

    overrides: dict[str, Any] = {}
    for name in ("data", "validation", "stages"):
        if getattr(args, name) is not None:
            overrides[name] = [str(v) for v in getattr(args, name)]
    if args.device is not None:
        overrides["device"] = args.device
    try:
        config = read_run(read_mapping(recipe_path(args.config)), overrides)
        if args.max_minutes is not None:
            if args.max_minutes <= 0:
                raise ConfigError(f"--max-minutes must be positive, got {args.max_minutes}")
            config = with_budget(config, args.max_minutes)
        with process_group():
            first = rank() == 0
            results = train(config, args.out, say=lambda text: print(text, file=sys.stderr) if first else None)
    except TrainingInterrupted as stopped:
        print(f"kornia-lift: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except (CheckpointError, ConfigError, StoreError, TrainingDivergedError, ValueError, WorkerLostError) as error:
        raise CommandError(str(error)) from error
    if first:
        for name, result in results.items():
            more = " (out of time)" if result.stopped == "time" else ""
            print(
                f"{name}: validation error {result.error:.4f} at step {result.best_step} of {result.step}, "
                f"at the start {result.start:.4f}{more}"
            )
            if result.step and not result.best_step:
                print(f"{name}: nothing learned, no validation was better than the one at the start")
        print(f"weights: {args.out / WEIGHTS}")
        late = [name for name, result in results.items() if result.stopped == "time"]
        if late:
            print(f"out of time: {', '.join(late)}; the same command with a larger --max-minutes goes on there")
        missing = [name for name in config.recipe_stages if not (args.out / name / BEST).is_file()]
        if missing:
            print(f"not trained yet, random numbers in the weights: {', '.join(missing)}")
    return 0
