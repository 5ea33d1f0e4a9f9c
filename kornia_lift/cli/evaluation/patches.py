"""``kornia-lift patches``: descriptors alone, by DeepDesc's protocol."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError, positive

_EPILOG = """\
examples:
  kornia-lift patches notredame/ liberty/ --descriptors sift lift CNN3_p8_n8_split3.t7
  kornia-lift patches mine.npz --points 1000
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "patches",
        help="measure descriptors alone on patches of known points",
        description="Area under precision over recall by DeepDesc's protocol: 10 000 points, one matching and 1000 "
        "non-matching\npairs each; the published figures beside it where the set is one of theirs.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "sets",
        nargs="+",
        type=Path,
        metavar="SET",
        help="folder in the layout of Brown et al. (notredame, yosemite, liberty), or .npz with patches and point_ids",
    )
    parser.add_argument(
        "-d",
        "--descriptors",
        nargs="+",
        default=["sift", "lift"],
        metavar="DESCRIPTOR",
        help="sift, rootsift, tfeat, lift, a .safetensors file of a model of its family, or a .t7 file of DeepDesc "
        "(default: sift lift)",
    )
    parser.add_argument("--points", type=positive, default=10_000, metavar="N", help="points (default: %(default)s)")
    parser.add_argument(
        "--negatives",
        type=positive,
        default=1000,
        metavar="N",
        help="non-matching pairs of each (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print a table."""
    from kornia_lift.evaluation.deepdesc_protocol import PUBLISHED, load_descriptor, run_protocol
    from kornia_lift.scenes.patch_sets import PatchSet

    rows: dict[str, dict[str, str]] = {}
    counts = {}
    try:
        descriptors = {name: load_descriptor(name) for name in args.descriptors}
        for path in args.sets:
            patches = PatchSet.from_npz(path) if path.suffix == ".npz" else PatchSet.from_brown(path, None)
            for name, descriptor in descriptors.items():
                scores = run_protocol(patches, descriptor, points=args.points, negatives=args.negatives, seed=args.seed)
                rows.setdefault(name, {})[path.stem] = f"{scores.pr_auc:.3f}"
                counts[path.stem] = f"{path.stem}: {scores.positives} matching, {scores.negatives} other pairs"
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    names = [path.stem for path in args.sets]
    for name, published in PUBLISHED.items():
        known = {n: f"{published[n]:.3f}" for n in names if n in published}
        if known:
            rows[f"{name}, published"] = known
    width = max(len(name) for name in rows)
    print(f"{'PR-AUC':{width}}  " + "  ".join(f"{n:>10}" for n in names))
    for name, found in rows.items():
        print(f"{name:{width}}  " + "  ".join(f"{found.get(n, '-'):>10}" for n in names))
    for text in counts.values():
        print(text)
    return 0
