"""Re-make the shipped weights from the training data: ``python scripts/remake_weights.py DATA --out RUN``.

DATA has the folders ``sfm/``, ``photos/``, ``illumination/`` and, for the modern recipe, ``posed/``. It is read once,
into stores of at most 60 MiB: ``RUN/stores/train-*.npz`` and, apart from them, ``RUN/stores/validation/*.npz``.
Stopped or killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from kornia_lift.cli import main as kornia_lift
from kornia_lift.training.data.packing import pack_stores
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.provenance import check_record, describe_source, keep_record
from kornia_lift.training.data.prepare.read import read_sources
from kornia_lift.training.data.prepare.sources import find_sources
from kornia_lift.training.data.split import split_store, take_images
from kornia_lift.training.data.store import Store, join_stores, save_store

PACK_BYTES = 60 * 2**20  # what is moved to another machine in one load


def build_stores(data: Path, out: Path, posed: bool = False) -> Path:
    """Write ``train-N.npz``, and what is held out to a folder of its own; returns the latter file.

    Args:
        data: folder of the training data.
        out: folder of the stores. What is in it already is used, where it was made of the same data and options.
        posed: scenes with depth maps are training data too.

    """
    held_out = out / "validation" / "validation.npz"
    sources = [source for source in find_sources(data) if posed or source.kind != "posed"]
    record = describe_source(data, [path for source in sources for path in source.files], {"posed": posed})
    if held_out.is_file():
        check_record(held_out, record)
        return held_out
    for old in out.glob("train-*.npz"):
        old.unlink()
    held_out.parent.mkdir(parents=True, exist_ok=True)
    keep_record(held_out, record)
    store = join_stores(read_sources(sources, ReadOptions(), say=print))
    train, validation = split_store(store)
    for number, pack in enumerate(pack_stores(by_scene(train), PACK_BYTES)):
        save_store(out / f"train-{number}.npz", join_stores(pack))
    save_store(held_out, validation)
    return held_out


def by_scene(store: Store) -> list[Store]:
    """Parts that may lie in different files: single images by the hundred, scenes one by one."""
    single = np.flatnonzero([image.kind == "single" for image in store.images])
    groups = [np.array(part) for part in np.array_split(single, -(-len(single) // 100))] if len(single) else []
    scene = np.array([image.scene for image in store.images])
    names = dict.fromkeys(image.scene for image in store.images if image.kind != "single")
    groups += [np.flatnonzero(scene == name) for name in names]
    return [take_images(store, np.isin(np.arange(len(scene)), group)) for group in groups]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=("modern", "compact", "paper"), default="modern")
    parser.add_argument("--no-posed", action="store_true", help="leave posed/ out of the training")
    parser.add_argument("--max-minutes")
    args = parser.parse_args()
    held_out = build_stores(args.data, args.out / "stores", not args.no_posed)
    arguments = ["train", args.recipe, "--out", str(args.out), "--data"]
    arguments += [str(p) for p in sorted((args.out / "stores").glob("train-*.npz"))]
    arguments += ["--validation", str(held_out)]
    if args.max_minutes is not None:
        arguments += ["--max-minutes", args.max_minutes]
    return kornia_lift(arguments)


if __name__ == "__main__":
    sys.exit(main())
