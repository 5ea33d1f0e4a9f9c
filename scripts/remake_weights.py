"""Re-make the shipped weights from the training data: ``python scripts/remake_weights.py DATA --out RUN``.

DATA has the folders ``sfm/``, ``photos/`` and ``illumination/``. With ``--recipe paper`` the stores of the paper's
recipe are made first: ``RUN/stores/train-*.npz`` and, apart from them, ``RUN/stores/validation/validation.npz``.
Stopped or killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kornia_lift.cli import main as kornia_lift
from kornia_lift.training.data.images import LAYOUT
from kornia_lift.training.data.provenance import check_record, describe_source, keep_record
from kornia_lift.training.data.sources import bracket_store, photo_store, scene_store, sfm_store
from kornia_lift.training.data.split import find_sources
from kornia_lift.training.data.store import Store, join_stores, pack_stores, save_store

ROOT = Path(__file__).resolve().parents[1]
PACK_BYTES = 60 * 2**20  # what is moved to another machine in one load


def build_stores(data: Path, out: Path, posed: bool = False) -> Path:
    """Write ``train-N.npz``, and what is held out to a folder of its own; returns the latter file.

    Args:
        data: folder of the training data.
        out: folder of the stores. What is in it already is used, where it was made of the same data and options.
        posed: scenes with measured depth are training data too.

    """
    from kornia_lift.scenes.posed import PosedScene

    held_out = out / "validation" / "validation.npz"
    kinds = (*LAYOUT, "posed") if posed else LAYOUT
    files = [path for kind in kinds for path in (data / kind).rglob("*") if path.is_file()]
    record = describe_source(data, files, {"posed": posed})
    if held_out.is_file():
        check_record(held_out, record)
        return held_out
    for old in (*out.glob("train-*.npz"), out / "validation.npz"):
        old.unlink(missing_ok=True)
    held_out.parent.mkdir(parents=True, exist_ok=True)
    keep_record(held_out, record)
    for validation in (False, True):
        sources = find_sources(data, validation, posed)
        stores: list[Store] = [sfm_store(scene) for scene in sources.sfm]
        stores += [bracket_store(folder) for folder in sources.brackets]
        if sources.photos:
            stores.append(photo_store(sources.photos))
        if validation:
            save_store(held_out, join_stores(stores))
            continue
        stores += [scene_store(PosedScene.load(scene)) for scene in sources.posed]
        for number, pack in enumerate(pack_stores(stores, PACK_BYTES)):
            save_store(out / f"train-{number}.npz", join_stores(pack))
    return held_out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=("modern", "compact", "paper"), default="modern")
    parser.add_argument(
        "--posed", action="store_true", help="paper: train on posed/ too (it is the set by which models were chosen)"
    )
    parser.add_argument("--max-minutes")
    args = parser.parse_args()
    if args.posed and args.recipe != "paper":
        parser.error("--posed is for --recipe paper; the modern recipe has the option modern.use_posed")
    arguments = ["train", args.recipe, "--out", str(args.out), "--data"]
    if args.recipe != "paper":
        arguments.append(str(args.data))
    else:
        held_out = build_stores(args.data, args.out / "stores", args.posed)
        arguments += [str(p) for p in sorted((args.out / "stores").glob("train-*.npz"))]
        arguments += ["--validation", str(held_out)]
    if args.max_minutes is not None:
        arguments += ["--max-minutes", args.max_minutes]
    return kornia_lift(arguments)


if __name__ == "__main__":
    sys.exit(main())
