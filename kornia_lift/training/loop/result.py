"""The result of a training, and what to remark about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kornia_lift._words import counted
from kornia_lift.training.loop.checkpoint import BEST, LAST
from kornia_lift.training.stage import ERROR, Measure

#: Share of the steps below which a stage that ran out of time has hardly begun. In runs of ten minutes on one core,
#: the descriptor of `paper` learned nothing in 49 of 20000 steps, that of `modern` much in 42 of 2000
#: (experiments/2026-11-28/newcomer).
FEW_STEPS = 0.02


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Args:
        step: optimiser steps done.
        stopped: ``"steps"`` when all were done, ``"time"`` when ``max_minutes`` ended it.
        error: smallest validation error.
        start: validation error before the first step.
        best_step: step of that error.
        figures: all validation figures of that step.
        best: checkpoint of that step.
        last: checkpoint of the last step.
        measure: what the error is; None where the stage does not say so.
        steps: steps that the options ask for; None where it is not known.
        interval: half width of the 95 % interval of the change of the error, from the parts of the held-out samples
            before and after; None where the stage does not tell their errors.

    """

    step: int
    stopped: Literal["steps", "time"]
    error: float
    start: float
    best_step: int
    figures: dict[str, float]
    best: Path
    last: Path
    measure: Measure | None = None
    steps: int | None = None
    interval: float | None = None

    @property
    def summary(self) -> dict[str, float]:
        """What a file of weights says about its training: the step of the smallest error, and its figures."""
        return {"step": self.best_step, **self.figures}

    @property
    def remarks(self) -> list[str]:
        """What the errors of the first and of the best validation do not show by themselves."""
        said = []
        if self.stopped == "time" and self.steps is not None and self.step < FEW_STEPS * self.steps:
            said.append(
                f"only {counted(self.step, 'step')} of {self.steps} in its minutes, too few to learn much: give more "
                "minutes (--max-minutes), or train fewer stages (--stages)"
            )
        measure = self.measure
        if self.step and not self.best_step:
            said.append("nothing learned, no validation was better than the one at the start")
        elif self.interval is not None:
            if abs(self.error - self.start) <= self.interval:
                said.append(
                    f"validation set too small to tell: the error went from {self.start:.4f} to {self.error:.4f}, and "
                    f"these held-out samples leave an uncertainty of {self.interval:.4f} in that change"
                )
        elif measure is not None and not measure.is_change(self.start, self.error):
            change = f"the error went from {self.start:.4f} to {self.error:.4f}"
            net = f"about {measure.net_change(self.start, self.error):.0f} of {measure.samples} held-out samples"
            if measure.may_be_change(self.start, self.error):
                said.append(f"{change}, a net change of {net}: little, and possibly chance")
            else:
                said.append(f"validation set too small to tell: {change}, a net change of {net}, which may be chance")
        if measure is not None and not measure.beats_chance(self.error):
            said.append(f"no better than chance, which is {measure.chance:.3f}")
        return said


def make_result(
    step: int,
    stopped: Literal["steps", "time"],
    start: float,
    best: Mapping[str, Any],
    folder: Path,
    measure: Measure | None,
    steps: int,
) -> Result:
    """Return the result of a stage from what its checkpoints hold.

    Args:
        step: see :class:`Result`.
        stopped: likewise.
        start: likewise.
        best: what ``best.pt`` says of the best validation.
        folder: of the stage.
        measure: see :class:`Result`.
        steps: likewise.

    """
    figures, interval = best["figures"], best.get("interval")  # without an interval before 2026-11-28
    files = folder / BEST, folder / LAST
    return Result(step, stopped, figures[ERROR], start, best["step"], figures, *files, measure, steps, interval)
