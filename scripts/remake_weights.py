"""Re-make the shipped weights from the training data: ``python scripts/remake_weights.py DATA --out RUN``.

DATA has the folders ``sfm/``, ``photos/`` and ``illumination/``. With ``--recipe paper`` the stores of the paper's
recipe are made first, below ``RUN/stores``. Stopped or killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kornia_lift.cli import main as kornia_lift
from kornia_lift.data.sources import bracket_store, photo_store, scene_store, sfm_store
from kornia_lift.data.split import find_sources
from kornia_lift.data.store import Store, join_stores, pack_stores, save_store

ROOT = Path(__file__).resolve().parents[1]
PACK_BYTES = 60 * 2**20  # what is moved to another machine in one load


def build_stores(data: Path, out: Path) -> None:
    """Write ``train-N.npz`` and ``validation.npz``; everything of the declared validation split in the latter."""
    from kornia_lift.data.posed import PosedScene

    if (out / "validation.npz").is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    for validation in (False, True):
        sources = find_sources(data, validation)
        stores: list[Store] = [sfm_store(scene) for scene in sources.sfm]
        stores += [bracket_store(folder) for folder in sources.brackets]
        stores.append(photo_store(sources.photos))
        if validation:
            save_store(out / "validation.npz", join_stores(stores))
            continue
        stores += [scene_store(PosedScene.load(scene)) for scene in sorted((data / "posed").glob("*"))]
        for number, pack in enumerate(pack_stores(stores, PACK_BYTES)):
            save_store(out / f"train-{number}.npz", join_stores(pack))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=("modern", "paper"), default="modern")
    parser.add_argument("--max-minutes")
    args = parser.parse_args()
    arguments = ["train", str(ROOT / "configs" / f"{args.recipe}.toml"), "--out", str(args.out), "--data"]
    if args.recipe == "modern":
        arguments.append(str(args.data))
    else:
        build_stores(args.data, args.out / "stores")
        arguments += [str(p) for p in sorted((args.out / "stores").glob("train-*.npz"))]
        arguments += ["--validation", str(args.out / "stores" / "validation.npz")]
    if args.max_minutes is not None:
        arguments += ["--max-minutes", args.max_minutes]
    return kornia_lift(arguments)


if __name__ == "__main__":
    sys.exit(main())
