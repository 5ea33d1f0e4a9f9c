"""Hard mining: forward many samples, learn from those with the largest loss (paper Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kornia_lift.training.loop import distributed

#: Mining ratio of the detector stages, fixed (paper Sec. 3.5).
DETECTOR_RATIO = 4


def doubling_ratio(step: int, every: int = 5000, cap: int = 8) -> int:
    """Return the mining ratio r = K_f / K_b of a step: 1 at first, doubled every ``every`` steps, at most ``cap``.

    The paper names no cap, but without one step 56 000 of the released descriptor would have had r = 2048. DeepDesc,
    whose scheme it is, ends at 8.

    Args:
        step: number of optimiser steps done so far.
        every: steps between two doublings.
        cap: largest ratio.

    """
    if every < 1 or cap < 1:
        raise ValueError(f"expected every >= 1 and cap >= 1, got every={every}, cap={cap}")
    # an exponent above log2(cap) would only make a huge integer
    return min(2 ** min(step // every, cap.bit_length()), cap)


def hardest(losses: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` largest losses, shape (min(count, B),); fewer samples are all kept."""
    if losses.dim() != 1:
        raise ValueError(f"expected one loss per sample, shape (B,), got {tuple(losses.shape)}")
    return losses.topk(min(count, len(losses))).indices


@torch.no_grad()
def losses_of(batch: dict[str, Tensor], losses: Callable[[dict[str, Tensor]], Tensor], chunk: int) -> Tensor:
    """Loss of every sample of a batch; several processes share the work, and all get all losses.

    Args:
        batch: K_f samples, the same on all processes; the first dimension of every tensor.
        losses: gives one loss, or one row of losses, per sample of a part of the batch.
        chunk: samples per forward pass, bounds the memory.

    """
    part, _ = distributed.local_part(batch)
    rows = len(next(iter(part.values())))
    parts = [losses({k: v[i : i + chunk] for k, v in part.items()}) for i in range(0, rows, chunk)]
    return distributed.gather(torch.cat(parts), len(next(iter(batch.values()))))


def mine(
    batch: dict[str, Tensor], losses: Callable[[dict[str, Tensor]], Tensor], count: int, chunk: int
) -> dict[str, Tensor]:
    """Keep the ``count`` samples of a batch on which the network fails most, the same ones on all processes.

    Args:
        batch: K_f samples, the same on all processes; the first dimension of every tensor.
        losses: gives one loss per sample of a part of the batch, (B,).
        count: K_b, how many to keep.
        chunk: samples per forward pass, bounds the memory.

    Returns:
        The hardest K_b samples, in no particular order.

    """
    if len(next(iter(batch.values()))) <= count:
        return batch
    keep = hardest(losses_of(batch, losses, chunk), count)
    return {k: v[keep.to(v.device)] for k, v in batch.items()}
