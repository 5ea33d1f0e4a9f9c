"""Signs of progress of what takes minutes where there are hundreds of images: preparing a stage, measuring weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Watch:
    """Say from time to time how many of some items are done.

    Args:
        say: called with ``"120 of 371 images"``; ``None`` for silence.
        every: seconds between two calls, and before the first one.
        clock: seconds, ascending.

    """

    def __init__(
        self,
        say: Callable[[str], object] | None = None,
        every: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every, self._clock = say, every, clock

    def __call__(self, items: Sequence[T], noun: str) -> Iterator[T]:
        """Yield the items.

        Args:
            items: what is worked on, one after the other.
            noun: what they are, in the plural.

        """
        last = self._clock()
        for done, item in enumerate(items):
            if self._say is not None and self._clock() - last >= self._every:
                self._say(f"{done} of {len(items)} {noun}")
                last = self._clock()
            yield item
