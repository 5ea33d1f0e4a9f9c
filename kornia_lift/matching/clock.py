"""Seconds per stage of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from kornia.feature import PassLAF
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
        """Time every direct part of a feature (detector, descriptor, ...) that the block calls.

        Parts that leave frames as they are, kornia's ``PassLAF``, are no stages.
        Meanwhile no other thread may call the feature: the hooks belong to its parts.
        """
        started: dict[str, float] = {}
        handles: list[Any] = []
        wrapped: list[Any] = []

        def before(name: str) -> None:
            _synchronise()
            started[name] = time.perf_counter()

        def after(name: str) -> None:
            _synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started[name]

        for name, part in feature.named_children():
            if isinstance(part, PassLAF):
                continue
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: before(name)))
            handles.append(part.register_forward_hook(lambda *_, name=name: after(name)))
            if hasattr(part, "candidates"):  # called instead of ``forward`` where keypoints have several angles
                wrapped.append(part)
                wrapped[-1].candidates = self.stage(name)(wrapped[-1].candidates)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for each in wrapped:
                del each.candidates  # the method of its class again


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
