"""Learning rate, optimiser and averaged weights of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lift.training.config import LoopConfig

WARMUP_SHARE = 0.1  # of max_minutes: a longer warm-up would leave a short run no time at the full rate


def learning_rate(config: LoopConfig, step: int, elapsed: float = 0.0) -> float:
    """Learning rate of step ``step`` (0-based): linear warm-up, then constant, or down to 0 linearly or as a cosine.

    Args:
        config: the options.
        step: number of steps done.
        elapsed: seconds since the start. With ``max_minutes`` the rate falls by whichever is nearer its end, the steps
            or the minutes, so that a run that is cut short ends at a low rate too; likewise its warm-up ends with the
            first tenth of the minutes at the latest.

    """
    spent = 0.0 if config.max_minutes is None else min(1.0, elapsed / (60 * config.max_minutes))
    if step < config.warmup_steps and spent < WARMUP_SHARE:
        return config.learning_rate * max((step + 1) / config.warmup_steps, spent / WARMUP_SHARE)
    if config.schedule == "constant":
        return config.learning_rate
    done = max((step - config.warmup_steps) / max(1, config.steps - config.warmup_steps), spent)
    return config.learning_rate * (1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_of(network: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Make the optimiser that the options name."""
    parameters, rate, decay = network.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay)


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of an exponential moving average, for torch's ``AveragedModel``."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        # from n / (n + 10): the first average is not the random start
        n = float(count)
        weight = 1 - min(decay, n / (n + 10))
        floats = [pair for pair in zip(averaged, current, strict=True) if pair[0].is_floating_point()]
        if floats:
            # a few kernels for all weights
            torch._foreach_lerp_([average for average, _ in floats], [value for _, value in floats], weight)
        for average, value in zip(averaged, current, strict=True):
            if not average.is_floating_point():  # a counter among the buffers has no mean
                average.copy_(value)

    return update


@contextmanager
def weights_of(averaged: nn.Module | None, network: nn.Module) -> Iterator[None]:
    """Lend the averaged weights to ``network``."""
    if averaged is None:
        yield
        return
    own = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(averaged.module.state_dict())  # type: ignore[union-attr]
    try:
        yield
    finally:
        network.load_state_dict(own)
