"""A stage that an earlier call has finished: its result, without preparing its data again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.loop.checkpoint import BEST, LAST, check_same_run, load_checkpoint
from kornia_lift.training.loop.distributed import from_first, rank
from kornia_lift.training.loop.result import Result, make_result
from kornia_lift.training.stage import ERROR, Measure


def finished_result(
    config: LoopConfig, out_dir: Path, resolved: Mapping[str, Any], identity: Mapping[str, Any]
) -> Result | None:
    """Return what :func:`~kornia_lift.training.loop.fit` would return at once; None where steps are left.

    Args:
        config: options of the loop.
        out_dir: folder of the stage.
        resolved: as for ``fit``.
        identity: as for ``fit``.

    Raises:
        CheckpointError: if a checkpoint is damaged, or of other options or data.

    """
    result: Result | None = from_first(_read(config, out_dir, resolved, identity) if rank() == 0 else None)
    return result


def _read(config: LoopConfig, out_dir: Path, resolved: Mapping[str, Any], identity: Mapping[str, Any]) -> Result | None:
    last, best = out_dir / LAST, out_dir / BEST
    if not (last.is_file() and best.is_file()):
        return None
    state = load_checkpoint(last)
    check_same_run(last, state, state.get("stage", ""), to_mapping(config), resolved, identity)
    late = config.max_minutes is not None and state.get("elapsed", 0.0) > 60 * config.max_minutes
    found = load_checkpoint(best)["best"]
    if (state["step"] < config.steps and not late) or not math.isfinite(found["figures"][ERROR]):
        return None
    measure = state.get("measure")  # not in checkpoints of before 2026-11-28
    measured = Measure(**measure) if measure is not None else None
    start = state.get("start", math.nan)
    return make_result(state["step"], "time" if late else "steps", start, found, out_dir, measured, config.steps)
