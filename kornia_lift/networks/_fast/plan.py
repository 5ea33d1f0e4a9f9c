"""Constants derived from weights, made again when the weights have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_ENABLED: ContextVar[bool] = ContextVar("fast_paths", default=True)


@contextmanager
def fast_paths(enabled: bool) -> Iterator[None]:
    """Switch the fast CPU paths of all networks on or off: tests and benchmarks compare them with plain torch.

    Args:
        enabled: whether the fast paths may run inside the ``with`` block, in the current thread.

    Example:
        >>> with fast_paths(False):
        ...     pass

    """
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


class PlanCache(Generic[T]):
    """Keeps what ``build`` made from some tensors for as long as their values stay the same.

    Values are compared, not version counters: those miss ``parameter.data.copy_(...)`` and do not exist for tensors
    made in inference mode. A copy or a pickle of the owner starts with an empty cache.

    Args:
        build: makes the plan from the tensors.

    """

    def __init__(self, build: Callable[..., T]) -> None:
        self._build = build
        self._kept: tuple[tuple[Tensor, ...], T] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._build,)

    def get(self, *tensors: Tensor) -> T:
        """Return the plan of these tensors."""
        kept = self._kept  # read once: another thread may replace the plan
        if kept is not None and all(map(torch.equal, kept[0], tensors)):
            return kept[1]
        with torch.no_grad():
            plan = self._build(*(t.detach() for t in tensors))
            self._kept = tuple(t.detach().clone() for t in tensors), plan
        return plan


def is_inference(*tensors: Tensor) -> bool:
    """Return whether an inference path may compute with tensors: no gradient, tracing or autocast, on any device."""
    if torch.compiler.is_compiling():  # first, since a graph cannot contain what follows
        return False
    plain_types = (Tensor, torch.nn.Parameter)  # subclasses may have their own memory layout and operations
    return (
        _ENABLED.get()
        and not (torch.is_grad_enabled() or torch.jit.is_tracing())  # type: ignore[attr-defined]  # torch does not list it
        and not any(_in_autocast(kind) for kind in {t.device.type for t in tensors})
        and all(type(t) in plain_types for t in tensors)
    )


def _in_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def is_plain(x: Tensor, *weights: Tensor) -> bool:
    """Return whether the CPU's inference path may compute with ``x``: :func:`is_inference`, and float32 on a CPU."""
    return is_inference(x, *weights) and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (x, *weights))
