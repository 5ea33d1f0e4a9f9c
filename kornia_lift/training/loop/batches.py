"""The batches of a training, each a function of the seed and the step.

The batch of a step is the same after a resumption, with prefetching, with any number of workers, and on any number of
processes. No generator state needs to outlive a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.loop.workers import draw_in_processes
from kornia_lift.training.stage import Stage


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random in one step, well mixed, since torch's CPU generator takes only 32 bits of it."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def to_device_of(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move a batch to the device of a network."""
    device = next(network.parameters()).device
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


@contextmanager
def batches_from(stage: Stage, config: LoopConfig, start: int) -> Iterator[Iterator[dict[str, Tensor]]]:
    """Batches of the steps from ``start``, drawn when asked for, or ahead: in a thread or in other processes.

    Raises:
        ConfigError: if there are to be other processes and the system cannot fork.

    """

    def draw(step: int) -> dict[str, Tensor]:
        return stage.batch(torch.Generator().manual_seed(step_seed(config.seed, step)), step)

    def ahead(pool: ThreadPoolExecutor) -> Iterator[dict[str, Tensor]]:
        waiting = pool.submit(draw, start)
        for step in range(start, config.steps):
            batch = waiting.result()
            if step + 1 < config.steps:
                waiting = pool.submit(draw, step + 1)
            yield batch

    if config.workers:
        cuda = next(stage.network.parameters()).device.type == "cuda"
        with closing(draw_in_processes(draw, range(start, config.steps), config.workers, pin_memory=cuda)) as batches:
            yield batches
    elif config.prefetch:
        with ThreadPoolExecutor(1) as pool:
            yield ahead(pool)
    else:
        yield map(draw, range(start, config.steps))
