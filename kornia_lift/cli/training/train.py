"""``kornia-lift train``: train the three networks by a recipe."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError, check_folder, real, report_unread

_EPILOG = """\
examples:
  kornia-lift train modern --data dataset/ --init lift               minutes, little data: fine-tune the shipped weights
  kornia-lift train compact --data dataset/ --init lift-plus
  kornia-lift train modern --data dataset/ --init runs/a/weights.safetensors --stages refine --out runs/b
  kornia-lift train paper --data dataset/ --out runs/mine            from scratch, hours
  kornia-lift train paper --data dataset/ --out runs/mine --max-minutes 30
  kornia-lift train modern --data dataset/ --out runs/modern         likewise, as the shipped weights were
  kornia-lift train modern --data holiday/ --out runs/modern         single images, or scenes with sparse/
  kornia-lift train correspondences --data DATA --features opencv-sift lift   which matches to believe
  kornia-lift train tilde --data DATA                                         keypoints of aligned stacks
  torchrun --nproc-per-node 2 -m kornia_lift train paper --data dataset/ --out runs/mine

With --init, a stage after which the held-out pairs match worse is undone: a run never ends worse than it began on them.
At the end a table compares the weights before and after, the shipped ones and SIFT on the held-out pairs.
Started again, a run that was stopped (Ctrl-C, SIGTERM) or killed continues where it was; one that ran out of time needs
more minutes.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train the networks",
        description="Train the networks of a recipe: LIFT (paper, modern, compact), LF-Net, the correspondence\n"
        "network, or TILDE's filters. Writes them as .safetensors into the folder of the run.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "config",
        type=Path,
        metavar="RECIPE",
        help="paper, modern, compact (LIFT), lfnet, correspondences, tilde, or your own .toml or .json file",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/RECIPE)")
    parser.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from the weights of a shipped model (lift, lift-plus) or of a .safetensors file, with a "
        "recipe for minutes and little data",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="stores of build-dataset, or folders of images (default: what the recipe names)",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="held-out data; a part of the training data if not given",
    )
    parser.add_argument(
        "--features",
        nargs="+",
        metavar="FEATURE",
        help="what finds keypoints for the recipes correspondences and tilde: opencv-sift, lift, a .safetensors file",
    )
    parser.add_argument(
        "--max-minutes",
        type=real(0),
        metavar="M",
        help="time for the training steps of all stages, all resumptions together; preparing the stages and measuring "
        "the held-out pairs come on top, usually some minutes",
    )
    parser.add_argument(
        "--stages", nargs="+", metavar="STAGE", help="train only these; a wrong name lists those of the recipe"
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--no-table",
        action="store_true",
        help="do not measure the held-out pairs at the end; with --init they always are",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print the results."""
    from kornia_lift.training.config import ConfigError, read_mapping
    from kornia_lift.training.data.store import StoreError
    from kornia_lift.training.folder_run import FOLDER_RECIPES
    from kornia_lift.training.held_out.report import PICTURE, REPORT
    from kornia_lift.training.loop import TrainingDivergedError
    from kornia_lift.training.loop.checkpoint import BEST, CheckpointError
    from kornia_lift.training.loop.distributed import WorkerLostError, process_group, rank
    from kornia_lift.training.recipes import recipe_path
    from kornia_lift.training.run import WEIGHTS, read_run, train, with_budget

    overrides: dict[str, Any] = {}
    for name in ("data", "validation", "stages", "features"):
        if getattr(args, name) is not None:
            overrides[name] = [str(v) for v in getattr(args, name)]
    overrides |= {name: getattr(args, name) for name in ("device", "init") if getattr(args, name) is not None}
    if args.no_table:
        overrides["table"] = False
    out: Path = args.out or Path("runs") / args.config.stem
    check_folder(out)
    try:
        mapping = read_mapping(recipe_path(args.config, args.init is not None))
        _check_flags(args, mapping.get("recipe") in FOLDER_RECIPES, str(mapping.get("recipe")))
        if args.data is None:
            _check_own_data(mapping, args.config)
        if mapping.get("recipe") in FOLDER_RECIPES:
            return _train_from_folders(mapping, overrides, args.max_minutes, out)
        config = read_run(mapping, overrides)
        if args.max_minutes is not None:
            config = with_budget(config, args.max_minutes)
        with process_group():
            first = rank() == 0
            if first:
                report_unread(config.data)
            outcome = train(config, out, say=lambda text: print(text, file=sys.stderr) if first else None)
    except (KeyboardInterrupt, SystemExit) as stopped:
        return _stopped(stopped, out)
    except (CheckpointError, ConfigError, StoreError, TrainingDivergedError, ValueError, WorkerLostError) as error:
        raise CommandError(str(error)) from error
    if first:
        for name, result in outcome.stages.items():
            more = " (out of time)" if result.stopped == "time" else ""
            what = f" ({result.measure.as_text()})" if result.measure is not None else ""
            print(
                f"{name}: validation error {result.error:.4f} at step {result.best_step} of {result.step}, "
                f"at the start {result.start:.4f}{more}{what}"
            )
            for remark in result.remarks:
                print(f"{name}: {remark}")
        if outcome.report is not None:
            print(f"\n{outcome.report.as_text()}")
            print(f"table: {out / REPORT}")
        if outcome.picture is not None:
            print(f"picture: {out / PICTURE}, matches of {outcome.picture}")
        print(*outcome.remarks, sep="\n", end="\n" if outcome.remarks else "")
        print(f"weights: {out / WEIGHTS}")
        late = [name for name, result in outcome.stages.items() if result.stopped == "time"]
        if late and config.init is None:
            print(f"out of time: {', '.join(late)}; the same command with a larger --max-minutes goes on there")
        missing = [name for name in config.recipe_stages if not (out / name / BEST).is_file()]
        if missing and config.init is None:
            print(f"not trained yet, random numbers in the weights: {', '.join(missing)}")
    return 0


def _stopped(stopped: KeyboardInterrupt | SystemExit, out: Path) -> int:
    """Say what is saved and how to go on after a signal, in the steps of a stage or outside; return the exit code."""
    from kornia_lift.training.loop.checkpoint import LAST
    from kornia_lift.training.loop.signals import TrainingInterrupted

    if isinstance(stopped, TrainingInterrupted):
        print(f"kornia-lift: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    if isinstance(stopped, SystemExit) and stopped.code != 128 + signal.SIGTERM:
        raise stopped
    # oldest first: the order of the stages
    saved = sorted((*out.glob(LAST), *out.glob(f"*/{LAST}")), key=lambda path: path.stat().st_mtime)
    names = ", ".join(str(path) for path in saved)
    kept = f"saved so far: {names}; the same command goes on from there" if saved else "nothing was trained yet"
    print(f"kornia-lift: interrupted; {kept}", file=sys.stderr)
    return 128 + (signal.SIGTERM if isinstance(stopped, SystemExit) else signal.SIGINT)


def _check_flags(args: argparse.Namespace, from_folders: bool, recipe: str) -> None:
    """Name the flag that a recipe does not have."""
    foreign = ("stages", "validation", "init") if from_folders else ("features",)
    for name in foreign:
        if getattr(args, name) is not None:
            raise CommandError(f"--{name} is not for the recipe {recipe!r}; leave it out")


def _check_own_data(mapping: dict[str, Any], config: Path) -> None:
    """Check that the data that a recipe names itself exist."""
    data = mapping.get("data")
    names = [name for name in data if isinstance(name, str)] if isinstance(data, list) else []
    absent = [name for name in names if not Path(name).exists()]
    if absent:
        raise CommandError(f"{config} reads {absent[0]!r}, which does not exist here; name your data: --data PATH")


def _train_from_folders(
    mapping: dict[str, Any], overrides: dict[str, Any], max_minutes: float | None, out: Path
) -> int:
    """Train what learns from folders instead of stores, and print the result."""
    from kornia_lift.training.folder_run import read_folder_run, train_from_folders

    run = read_folder_run(mapping, overrides, max_minutes)
    result, weights = train_from_folders(run, out, say=lambda text: print(text, file=sys.stderr))
    print(
        f"{run.recipe}: validation error {result.error:.4f} at step {result.best_step} of {result.step}, "
        f"at the start {result.start:.4f}{' (out of time)' if result.stopped == 'time' else ''}"
    )
    print(*(f"{run.recipe}: {remark}" for remark in result.remarks), sep="\n", end="\n" if result.remarks else "")
    print(f"weights: {weights}")
    return 0
