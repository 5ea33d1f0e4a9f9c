"""Several processes, one training: every process draws the same global batch and learns from its own part of it.

Start with ``torchrun --nproc-per-node N -m kornia_lift train ...``. Drawing the whole batch everywhere costs each
process the time of all, but makes the samples independent of the number of processes. Losses that look across the
batch gather what they need of the other parts: descriptors for in-batch negatives, losses for hard mining.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

# To be imported before a process group exists: its functions have the group as default argument. Imported later, which
# DistributedDataParallel does, they keep the group and its threads alive until the interpreter ends, and a thread
# that then asks for the interpreter aborts the process ("terminate called without an active exception").
import torch.distributed.nn.functional
from torch import Tensor, nn

from kornia_lift.training.stage import Stage


class WorkerLostError(RuntimeError):
    """Another process of the training is gone."""


def rank() -> int:
    """Number of this process, 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(timeout_s: float = 600.0) -> Iterator[None]:
    """Join the processes that ``torchrun`` started; does nothing where it did not.

    A process that ``torchrun`` stops because another one died reports it instead of vanishing.

    Args:
        timeout_s: how long to wait for another process (rank 0 validates meanwhile) before giving up.

    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout_s))

    def stop(number: int, frame: FrameType | None) -> None:
        raise WorkerLostError("stopped by SIGTERM, most likely because another process of this training died")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except WorkerLostError:
        # torchrun may only now stop this process, which is about to report the error and end
        before = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


@contextmanager
def lost_worker_says(what: str) -> Iterator[None]:
    """Turn the error of a broken connection into :class:`WorkerLostError` with ``what`` as advice."""
    try:
        yield
    except WorkerLostError as error:
        raise WorkerLostError(f"{error}. {what}") from error
    except RuntimeError as error:
        text = str(error).lower()
        broken = any(word in text for word in ("connection closed", "gloo", "nccl", "timed out", "connection reset"))
        if world_size() == 1 or not broken:
            raise
        first = str(error).strip().splitlines()[0]
        raise WorkerLostError(f"process {rank()} lost another process of this training ({first}). {what}") from error


def local_part(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Return this process's part of a global batch, and the weight that makes the sum of the parts the whole.

    The parts may differ by one sample; a process without any keeps one at weight 0, so that no process waits for it.

    Raises:
        ValueError: if the tensors differ in the first dimension, the samples.

    """
    size, world = len(next(iter(batch.values()))), world_size()
    if world == 1:
        return batch, 1.0
    if any(len(value) != size for value in batch.values()):
        shapes = {key: tuple(value.shape) for key, value in batch.items()}
        raise ValueError(f"a batch can be divided where the first dimension is the sample everywhere, got {shapes}")
    share = len(range(rank(), size, world))
    part = {key: value[rank() :: world] if share else value[:1] for key, value in batch.items()}
    return part, share * world / size  # DistributedDataParallel averages over the processes


def gather(part: Tensor, size: int) -> Tensor:
    """Put the parts that :func:`local_part` made of ``size`` samples together again, with gradient, on every process.

    Where every process computes one loss of the whole batch from the outcome and multiplies it by the weight of its
    part, the gradient that ``DistributedDataParallel`` averages is that of one process with the whole batch.

    Args:
        part: one row per sample of this process.
        size: samples of all processes together.

    """
    world = world_size()
    if world == 1:
        return part
    longest = -(-size // world)
    padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
    # sample i is with process i mod world, hence the padding comes last
    parts: Tensor = _AllGather.apply(padded)
    return parts.transpose(0, 1).flatten(0, 1)[:size]


class _AllGather(torch.autograd.Function):
    """Stack the tensors of all processes; backward, every process gets the sum of the gradients of its own one.

    torch.distributed.nn.functional.all_gather is deprecated since torch 2.13, and its successor is private.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(world_size())]
        dist.all_gather(parts, part.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank()]


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over all processes."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world_size()
    return value


def from_first(value: Any) -> Any:
    """Return rank 0's ``value`` on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class StageLoss(nn.Module):
    """The loss of a stage as a module, so that ``DistributedDataParallel`` can watch its network."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.network = stage.network
        self._loss = stage.loss

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return self._loss(batch)


def loss_module(stage: Stage) -> nn.Module:
    """Return the loss of a stage, wrapped for several processes where there are several."""
    module = StageLoss(stage)
    if world_size() == 1:
        return module
    wrap: Any = nn.parallel.DistributedDataParallel
    # torch 2.13 renamed the option
    renamed = "forward_sync_buffers" in inspect.signature(wrap).parameters
    return wrap(module, **{"forward_sync_buffers" if renamed else "broadcast_buffers": False})
