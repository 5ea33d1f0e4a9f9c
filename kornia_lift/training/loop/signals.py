"""Requests to stop (Ctrl-C, SIGTERM) that wait until the training has saved its state."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from kornia_lift.training.loop.distributed import world_size

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A training was asked to stop and has saved its state.

    Args:
        message: where it stopped and how to go on.
        number: the signal.

    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Whether a signal has asked to stop.

    Attributes:
        number: the signal; None while there was none.

    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal and say so; a second one interrupts at once."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        # not by print, which cannot be called again while it is interrupted
        with suppress(OSError):  # stderr may be closed
            os.write(2, b"stopping when the state is saved; once more to stop at once\n")


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while inside.

    Outside the main thread, where Python allows no handlers, and with several processes, where a process that stops
    alone would be waited for, the signals keep their meaning.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread() or world_size() > 1:
        yield request
        return
    before = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
