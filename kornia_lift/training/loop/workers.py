"""Batches drawn ahead by other processes, for devices that train faster than one process draws.

torch's ``DataLoader`` starts the processes, keeps the order of the steps and moves the tensors through shared memory.
They are forked: the training data are not copied, and a stage need not be picklable.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kornia_lift.training.config import ConfigError

Batch = dict[str, Tensor]
AHEAD = 3  # batches that each process may be ahead of the training


def draw_in_processes(
    draw: Callable[[int], Batch], steps: Sequence[int], workers: int, *, pin_memory: bool = False
) -> Generator[Batch, None, None]:
    """Yield the batches of steps in their order; closing the generator ends the processes.

    Args:
        draw: draws the batch of a step, on the CPU.
        steps: the steps.
        workers: number of processes.
        pin_memory: put the batches where a GPU copies them from while it computes.

    Raises:
        ConfigError: if the system cannot fork.
        Exception: what ``draw`` raised, with the traceback of the process as a note.

    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ConfigError(f"workers needs a system that can fork, {sys.platform} cannot; use prefetch instead")
    return _batches(draw, steps, workers, pin_memory=pin_memory)


def _batches(
    draw: Callable[[int], Batch], steps: Sequence[int], workers: int, *, pin_memory: bool
) -> Generator[Batch, None, None]:
    loader: DataLoader[Batch | Exception] = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        worker_init_fn=_begin_process,
        multiprocessing_context="fork",
        prefetch_factor=AHEAD,
        generator=torch.Generator(),  # not the global one
    )
    with warnings.catch_warnings():
        # the threads of torch and CUDA hold no lock that drawing needs
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        batches = iter(loader)
    try:
        # the processes end with the last reference to the iterator: no error raised in its methods may keep one
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del batches


class _Steps(Dataset[Batch | Exception]):
    """The batch of every step, or the error that drawing it raised."""

    def __init__(self, draw: Callable[[int], Batch]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            return self.draw(step)
        except Exception as error:
            error.add_note(f"In a process that draws batches, step {step}:\n{traceback.format_exc()}")
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _begin_process(number: int) -> None:
    """Leave Ctrl-C and the first SIGTERM, which the whole group of processes gets, to the process that trains."""

    def note(received: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, note)
    if "cv2" in sys.modules:  # its threads were not forked
        sys.modules["cv2"].setNumThreads(0)
