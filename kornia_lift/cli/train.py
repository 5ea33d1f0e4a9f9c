"""``kornia-lift build-dataset``, ``check-dataset``, ``train`` and ``plot-training``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kornia_lift.cli._errors import CommandError

_TRAIN_EPILOG = """\
examples:
  kornia-lift train configs/paper.toml --data dataset/ --out runs/mine
  kornia-lift train configs/paper.toml --data dataset/ --out runs/mine --max-minutes 30
  kornia-lift train configs/modern.toml --data dataset/ --out runs/modern        the same stores
  kornia-lift train configs/modern.toml --data holiday/ --out runs/modern        single images, or scenes with sparse/
  torchrun --nproc-per-node 2 -m kornia_lift.training train configs/paper.toml --data dataset/ --out runs/mine

Started again, a run that was stopped (Ctrl-C, SIGTERM) or killed goes on where it was; one that ran out of time needs
more minutes.
"""
_BUILD_EPILOG = """\
examples:
  kornia-lift build-dataset holiday/church/ --out dataset/          images of one place; runs the reconstruction
  kornia-lift build-dataset scenes/*/ --out dataset/                folders with images/ and a COLMAP model in sparse/
  kornia-lift build-dataset data/ --out dataset/                    sfm/, posed/, photos/ and illumination/ in one store
  kornia-lift build-dataset hpatches/*/ --out dataset/              homography sequences, images 1.. and files H_1_k
  kornia-lift build-dataset holiday/all/ --single --out dataset/    unrelated images; second views are synthetic

A file that exists is kept if it was made of the same images with the same options; otherwise it is an error.
"""


def add_train_parser(subparsers: Any) -> None:
    """Add ``train`` to the sub-parsers of ``kornia-lift``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train the three networks",
        description="Train detector, orientation and descriptor by a recipe; writes weights.safetensors.",
        epilog=_TRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="options, a .toml or .json file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH", help="training data instead of the config's: stores, or folders"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="held-out data; by default a part of the training data",
    )
    parser.add_argument("--max-minutes", type=float, metavar="M", help="time for all stages, all resumptions together")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="train only these")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=run_train)


def add_build_parser(subparsers: Any) -> None:
    """Add ``build-dataset`` to the sub-parsers of ``kornia-lift``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "build-dataset",
        help="make training data from images",
        description="Make one file of training data per folder of images.",
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--single", action="store_true", help="the images show different scenes")
    parser.add_argument(
        "--max-size", type=int, default=1024, help="larger side of reconstructed and single images, pixels"
    )
    parser.add_argument("--quality", type=int, default=88, help="of the stored JPEG images")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run_build)


def add_check_parser(subparsers: Any) -> None:
    """Add ``check-dataset`` to the sub-parsers of ``kornia-lift``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check-dataset",
        help="say what training data hold and what is missing",
        description="Count images, locations and pairs; say what was dropped and why, what is held out, and what is "
        "too little for which stage.",
        epilog="example:\n  kornia-lift check-dataset dataset/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data", type=Path, nargs="+", metavar="PATH", help="stores, or folders of images")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Print what the data hold."""
    from kornia_lift.training.data.load import load_data
    from kornia_lift.training.data.report import describe_data
    from kornia_lift.training.data.split import split_store

    try:
        store = load_data(args.data, say=lambda text: print(text, file=sys.stderr))
        print(*describe_data(store, *split_store(store)), sep="\n")
    except ValueError as error:
        raise CommandError(str(error)) from error
    return 0


def add_curves_parser(subparsers: Any) -> None:
    """Add ``plot-training`` to the sub-parsers of ``kornia-lift``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plot-training",
        help="draw the curves of training runs",
        description="Draw training loss, validation error and the other validation figures of every stage.",
        epilog="example:\n  kornia-lift plot-training runs/mine runs/other --out curves.svg\n\n"
        "A run that still goes on can be drawn too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, or log.jsonl files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="figure, .svg, .png or .pdf")
    parser.set_defaults(run=run_curves)


def run_curves(args: argparse.Namespace) -> int:
    """Draw the figure and print its name."""
    from kornia_lift.training.curves import plot_runs

    try:
        print(plot_runs(args.runs, args.out))
    except ValueError as error:
        raise CommandError(str(error)) from error
    return 0


def run_train(args: argparse.Namespace) -> int:
    """Train and print the results."""
    from kornia_lift.training.checkpoint import BEST, CheckpointError
    from kornia_lift.training.config import ConfigError, read_mapping
    from kornia_lift.training.data.store import StoreError
    from kornia_lift.training.distributed import WorkerLostError, process_group, rank
    from kornia_lift.training.loop import TrainingDivergedError
    from kornia_lift.training.run import WEIGHTS, read_run, train, with_budget
    from kornia_lift.training.signals import TrainingInterrupted

    overrides: dict[str, Any] = {}
    for name in ("data", "validation", "stages"):
        if getattr(args, name) is not None:
            overrides[name] = [str(v) for v in getattr(args, name)]
    if args.device is not None:
        overrides["device"] = args.device
    try:
        config = read_run(read_mapping(args.config), overrides)
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


def run_build(args: argparse.Namespace) -> int:
    """Build one store per folder; a folder that fails is named, the others are built."""
    from kornia_lift._extras import MissingExtraError
    from kornia_lift.training.data.build import BuildOptions, build_store, same_names, store_path
    from kornia_lift.training.data.report import funnel_lines

    clash = same_names(args.folders)
    if clash:
        raise CommandError(clash)
    args.out.mkdir(parents=True, exist_ok=True)
    options = BuildOptions(args.single, args.max_size, args.quality, args.seed)
    failed = 0
    for folder in args.folders:
        path = store_path(folder, args.out)
        try:
            store = build_store(folder, args.out, options, say=lambda text: print(text, file=sys.stderr))
        except MissingExtraError:
            raise
        except (OSError, ValueError) as error:
            said = str(error)
            print(said if str(folder) in said else f"{folder}: {said}", file=sys.stderr)
            failed += 1
            continue
        if store is None:
            print(f"{path} exists, made of the same images; kept")
            continue
        points = len(set(store.tracks.point.tolist()))
        print(
            f"{path}: {len(store.images)} images, {points} locations in {len(store.tracks)} views, {len(store.empty)} "
            f"empty regions, {path.stat().st_size / 2**20:.1f} MiB"
        )
        for scene, counts in store.counts.items():
            print(f"{scene}:", *funnel_lines(counts), sep="\n")
    if failed == len(args.folders):
        raise CommandError("no data set was built")
    return 1 if failed else 0
