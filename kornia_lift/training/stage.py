"""What a training stage is: the network it trains, its batches, its loss, its validation figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

#: Figure of :meth:`Stage.validate` that decides which checkpoint is the best one; lower is better.
ERROR = "error"


@dataclass(frozen=True)
class Measure:
    """What the validation error of a stage is.

    Args:
        what: its description.
        chance: its value where nothing was learned: the nearest neighbour, the angle or the location is a random one.
        samples: number of held-out samples that it is the mean of; samples that depend on each other count once.

    """

    what: str
    chance: float
    samples: int

    def net_change(self, before: float, after: float) -> float:
        """Number of samples that a change of the error amounts to: those corrected less those spoilt."""
        return abs(after - before) * self.samples

    def is_change(self, before: float, after: float) -> bool:
        """Whether two errors of the same samples differ by more than chance explains, whichever samples changed.

        The samples are paired: of k samples that changed, chance turns about half into right ones, and the net change
        has a standard deviation of sqrt(k) (McNemar's test). The errors do not tell k. It is at most the number that
        two independent sets of samples give, 2 p (1 - p) of :attr:`samples`; the change has to exceed two of these
        standard deviations.
        """
        share = min(max((before + after) / 2, 0.0), 1.0)
        changed = 2 * max(share * (1 - share) * self.samples, 0.25)
        return self.net_change(before, after) > 2 * math.sqrt(changed)

    def may_be_change(self, before: float, after: float) -> bool:
        """Whether two errors of the same samples could differ by more than chance explains: if no others changed.

        A net change of k samples then exceeds two standard deviations, 2 sqrt(k), from four samples on.
        """
        return self.net_change(before, after) > 4

    def beats_chance(self, error: float) -> bool:
        """Whether an error is below the one by chance by more than two standard deviations of a share."""
        share = min(max(self.chance, 0.0), 1.0)
        deviation = math.sqrt(max(share * (1 - share), 0.25 / self.samples) / self.samples)
        return error < self.chance - 2 * deviation

    def as_text(self) -> str:
        """Return the measure in a line."""
        return f"{self.what}, of {self.samples}; by chance {self.chance:.3f}"


def measure_of(stage: Any) -> Measure | None:
    """Return what the error of a stage is, where the stage says so."""
    found = getattr(stage, "measure", None)
    return found if isinstance(found, Measure) else None


@runtime_checkable
class Stage(Protocol):
    """One step of a training recipe, all that :func:`kornia_lift.training.loop.fit` knows of it.

    Attributes:
        name: what is trained ("descriptor", "orientation", ...); the key of the stage in files and logs.
        network: the module whose parameters are trained. Everything else a stage runs is frozen inside it.

    A stage whose loss is not a mean over samples has ``divisible = False``: each of several processes then learns from
    the whole batch. One that looks for hard samples is a :class:`MiningStage`. One whose ``measure`` is a
    :class:`Measure` has its error explained, and compared with chance, in the progress and at the end. One that leaves
    the errors of three parts of its held-out samples or more in ``parts``, the same parts at every validation, has its
    change compared with theirs: the samples are paired.
    """

    name: str
    network: nn.Module

    def batch(self, generator: torch.Generator, step: int) -> dict[str, Tensor]:
        """Draw one batch, a function of the generator's state and of ``step`` only.

        Args:
            generator: CPU generator, the only source of randomness.
            step: number of optimiser steps done so far.

        Returns:
            Tensors whose first dimension is the same for all (samples), on the CPU or on the network's device.
        """
        ...

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the scalar loss of a batch and figures worth logging."""
        ...

    def validate(self) -> dict[str, float]:
        """Return figures on held-out data; the key ``"error"`` (lower is better) decides the best checkpoint."""
        ...


@runtime_checkable
class MiningStage(Stage, Protocol):
    """A stage that forwards many samples and learns from a few of them."""

    def mine(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the samples to learn from.

        Args:
            batch: the whole batch; several processes all have the same one and must return the same samples.

        """
        ...
