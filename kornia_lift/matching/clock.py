"""Seconds per stage of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class StageClock:
    """Seconds per stage, summed over all uses. On a GPU each stage ends with a synchronisation."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        _synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            _synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def stages_of(self, feature: nn.Module) -> Iterator[None]:
        """Time every direct part of a feature (detector, descriptor, ...) whose ``forward`` the block calls.

        Meanwhile no other thread may call the feature: the hooks belong to its parts.
        """
        started: dict[str, float] = {}
        handles = []

        def before(name: str) -> None:
            _synchronise()
            started[name] = time.perf_counter()

        def after(name: str) -> None:
            _synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started[name]

        for name, part in feature.named_children():
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: before(name)))
            handles.append(part.register_forward_hook(lambda *_, name=name: after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
