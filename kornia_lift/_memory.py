"""Bounded memory while gradients are recorded: intermediate results are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call ``function(*tensors)`` without keeping its intermediate results for the backward pass.

    The backward pass calls the function a second time; values and gradients stay the same, down to the random numbers
    that it draws. Without gradient, and while a graph is compiled, this is a plain call.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(*tensors)
    out: Tensor = checkpoint(function, *tensors, use_reentrant=False)
    return out


def recompute_frames(function: Callable[..., Tensor], img: Tensor, lafs: Tensor, chunk: int) -> Tensor:
    """Call ``function(img, lafs)`` on ``chunk`` frames at a time, each call by :func:`recompute`.

    Args:
        function: ``(img, lafs) -> (B, N, ...)``, treats every frame by itself.
        img: images, shape (B, C, H, W).
        lafs: frames, shape (B, N, 2, 3). If there are at most ``chunk`` of them, the function is called as usual.
        chunk: frames of all images together.

    """
    step = max(1, chunk // max(1, lafs.shape[0]))
    if lafs.shape[1] <= step or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(img, lafs)
    return torch.cat([recompute(function, img, part) for part in lafs.split(step, dim=1)], 1)
