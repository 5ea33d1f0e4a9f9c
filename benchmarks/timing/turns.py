"""Processor time of calls that take turns on one thread: a machine that changes its pace changes it for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the ``with`` block, as processor time of several would count their waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Call every function once to warm up, then all of them in turn.

    Args:
        calls: functions by name.
        rounds: how often each is timed.

    Returns:
        Processor seconds of every timed call of each.

    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return seconds


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median of what :func:`take_turns` measures for each function."""
    return {name: statistics.median(values) for name, values in take_turns(calls, rounds).items()}
