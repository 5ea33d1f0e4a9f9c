"""Whether the validation error changed by more than chance explains: the parts of the held-out samples, compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Quantiles .975 of Student's distribution by the degrees of freedom; 2 for more.
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}


class PairedParts:
    """Compares the errors of the parts of a stage's held-out samples with those before the first step.

    Attributes:
        first: errors of the parts before the first step; None where the stage does not tell them.

    """

    def __init__(self) -> None:
        self.first: list[float] | None = None

    def interval(self, stage: Any, step: int) -> float | None:
        """Return the half width of the 95 % interval of the change of the error, from paired differences.

        Args:
            stage: has just been validated; see ``parts`` of :class:`~kornia_lift.training.stage.Stage`.
            step: steps done.

        Returns:
            None where there are no errors of parts to compare.

        """
        parts: Sequence[float] | None = getattr(stage, "parts", None)
        if not step:
            self.first = None if parts is None else [float(value) for value in parts]
        if parts is None or self.first is None or len(parts) != len(self.first) or len(parts) < 3:
            return None
        change = np.subtract(parts, self.first)
        return float(_STUDENT.get(len(change) - 1, 2.0) * change.std(ddof=1) / math.sqrt(len(change)))
