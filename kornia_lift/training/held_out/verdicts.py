"""The record of which stages of a run are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kornia_lift._io import atomic_write, parse_json, read_text
from kornia_lift.training.config import from_mapping
from kornia_lift.training.held_out.referee import Verdict
from kornia_lift.training.loop.distributed import from_first, rank

KEPT = "kept.json"


def keep_verdicts(out: Path, verdicts: Mapping[str, Verdict]) -> None:
    """Write down what a referee decided on the stages of a run."""
    if rank() == 0:
        with atomic_write(out / KEPT) as temporary:
            content = {name: asdict(verdict) for name, verdict in verdicts.items()}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_verdicts(out: Path) -> dict[str, Verdict]:
    """Return what a referee decided on the stages of a run; empty where there was none.

    Raises:
        ValueError: if the record is damaged.

    """
    path = out / KEPT
    if not from_first(path.exists()):
        return {}
    try:
        content = from_first(parse_json(read_text(path)) if rank() == 0 else None)
        if not isinstance(content, dict) or not all(isinstance(verdict, dict) for verdict in content.values()):
            raise ValueError("expected an object for each stage")
        return {name: from_mapping(Verdict, verdict, name) for name, verdict in content.items()}
    except ValueError as error:
        raise ValueError(
            f"{path}, which says which stages are kept, is damaged ({error}); delete it to use all stages"
        ) from None


def is_kept(verdicts: Mapping[str, Verdict], stage: str) -> bool:
    """Whether the weights of a stage are used: unless a referee has undone it."""
    return stage not in verdicts or verdicts[stage].accepted
