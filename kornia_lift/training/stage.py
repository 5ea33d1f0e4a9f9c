"""What a training stage is: the network it trains, its batches, its loss, its validation figures."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

#: Figure of :meth:`Stage.validate` that decides which checkpoint is the best one; lower is better.
ERROR = "error"


@runtime_checkable
class Stage(Protocol):
    """One step of a training recipe, all that :func:`kornia_lift.training.loop.fit` knows of it.

    Attributes:
        name: what is trained ("descriptor", "orientation", ...); the key of the stage in files and logs.
        network: the module whose parameters are trained. Everything else a stage runs is frozen inside it.

    A stage whose loss is not a mean over samples has ``divisible = False``: each of several processes then learns from
    the whole batch. One that looks for hard samples is a :class:`MiningStage`.
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
