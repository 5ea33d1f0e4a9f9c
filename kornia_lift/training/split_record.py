"""What a run was trained on and measured on, kept in its folder: errors of other data cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from kornia_lift._io import DamagedFileError, atomic_write, parse_json, read_text

SPLIT = "split.json"
Sides = tuple[Sequence[str], Sequence[str]]


def keep_split(out: Path, recipe: str, sides: Sides) -> None:
    """Write the record of a run.

    Args:
        out: folder of the run.
        recipe: name of the recipe.
        sides: names of what is trained on and of what is held out.

    """
    record = {"recipe": recipe, "training": list(sides[0]), "held_out": list(sides[1])}
    with atomic_write(out / SPLIT) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def check_split(out: Path, recipe: str, sides: Sides) -> None:
    """Check that a run that goes on has the recipe and the data it was started with; training data may be added.

    Args:
        out: folder of the run, which need not exist.
        recipe: see :func:`keep_split`.
        sides: likewise.

    Raises:
        ValueError: if something changed sides, is missing or is held out too, if the recipe is another one, or if the
            record is damaged.

    """
    path = out / SPLIT
    if not path.exists():
        return
    try:
        before = parse_json(read_text(path))
        training, held_out = (_names(before[key]) for key in ("training", "held_out"))
        started = before.get("recipe", recipe)  # runs of before 2026-11-28 do not say
    except (DamagedFileError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}, which says what is held out, is damaged ({error}); choose another --out") from None
    if started != recipe:
        raise ValueError(f"the run in {out} is of the recipe {started!r}, not of {recipe!r}; choose another --out")
    now = tuple(map(set, sides))
    crossed = (now[1] - now[0]) & (training - held_out) | (now[0] - now[1]) & (held_out - training)
    if crossed:
        raise ValueError(
            f"{_some(crossed)} changed between training and held-out data since {out} was started (other data, "
            "or other options of the split); choose another --out, or name the held-out data in split.held_out as in "
            f"{path}"
        )
    gone, held_back = (training | held_out) - now[0] - now[1], now[1] - held_out
    if gone or held_back:
        what = f"without {_some(gone)}" if gone else f"with {_some(held_back)} held out too"
        raise ValueError(
            f"the data differ from those that the run in {out} was started with ({what}): its errors cannot be "
            "compared with new ones; choose another --out"
        )


def _names(value: Any) -> set[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"expected lists of names, got {str(value)[:80]}")
    return set(value)


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
