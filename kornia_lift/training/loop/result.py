"""The result of a training, and what to remark about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kornia_lift.training.stage import Measure


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

    @property
    def summary(self) -> dict[str, float]:
        """What a file of weights says about its training: the step of the smallest error, and its figures."""
        return {"step": self.best_step, **self.figures}

    @property
    def remarks(self) -> list[str]:
        """What the errors of the first and of the best validation do not show by themselves."""
        said = []
        if self.step and not self.best_step:
            said.append("nothing learned, no validation was better than the one at the start")
        elif self.measure is not None and not self.measure.is_change(self.start, self.error):
            said.append(
                f"validation set too small to tell: with {self.measure.samples} held-out samples, a change from "
                f"{self.start:.4f} to {self.error:.4f} may be chance"
            )
        chance = math.inf if self.measure is None else self.measure.chance
        if self.measure is not None and (self.error >= chance or not self.measure.is_change(chance, self.error)):
            said.append(f"no better than chance, which is {chance:.3f}")
        return said
