"""Input checks shared by all modules: each message says what was expected, what was received, and how to fix it."""

from __future__ import annotations

import operator
import os
from textwrap import shorten
from typing import SupportsIndex

import torch
from torch import Tensor

from kornia_lift._kornia import DeviceError, ShapeError

VALUE_RANGE = (-0.5, 1.5)  # images are in [0, 1]; sharpening and cubic resizing may overshoot a little

MAX_FEATURES = 1_000_000  # per image: a larger number is a typo, and its slots would not fit into memory

Device = str | int | torch.device

_MAX_REASON = 160  # characters; the message about an unknown backend lists all backends
_CUDA_BUILDS = "https://pytorch.org/get-started/locally"


def check_count(count: SupportsIndex, who: str) -> int:
    """Return a number of features as ``int``; NumPy's integers are accepted.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is not in 1...``MAX_FEATURES``.

    """
    if isinstance(count, bool) or not isinstance(count, SupportsIndex):
        raise TypeError(f"{who} expects num_features as a whole number, got {count!r}")
    value = operator.index(count)
    if not 1 <= value <= MAX_FEATURES:
        raise ValueError(f"{who} expects num_features from 1 to {MAX_FEATURES}, got {value}")
    return value


def check_floating(x: Tensor, who: str) -> None:
    """Raise ``TypeError`` unless ``x`` is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{who} expects a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{who} expects a floating-point tensor with values in [0, 1], got {x.dtype}; "
            "convert 8-bit images with `image.float() / 255`"
        )


def check_patches(patch: Tensor, size: int, who: str) -> None:
    """Raise unless ``patch`` is a floating-point tensor of shape (B, 1, size, size)."""
    check_floating(patch, who)
    if patch.shape[1:] != (1, size, size):
        raise ShapeError(f"{who} expects patches (B, 1, {size}, {size}), got {tuple(patch.shape)}")


def check_image(img: Tensor, who: str, channels: tuple[int, ...] = (1, 3), value_range: bool = False) -> None:
    """Raise unless ``img`` is a finite floating-point tensor (B, C, H, W) with an allowed number of channels.

    Args:
        img: the images.
        who: name of the caller, for the message.
        channels: allowed numbers of channels.
        value_range: also raise if values lie far outside [0, 1].

    """
    check_floating(img, who)
    allowed = "|".join(map(str, channels))
    if img.dim() != 4:
        hint = "; add the batch dimension with `image[None]`" if img.dim() == 3 else ""
        raise ShapeError(f"{who} expects images (B, {allowed}, H, W), got {tuple(img.shape)}{hint}")
    if img.shape[1] not in channels or min(img.shape[-2:]) < 1:
        hint = ""
        if img.shape[1] == 3 and 3 not in channels:
            hint = "; convert with `kornia.color.rgb_to_grayscale`"
        elif img.shape[-1] in channels:
            hint = "; the channels seem to come last, move them with `image.permute(0, 3, 1, 2)`"
        raise ShapeError(f"{who} expects images (B, {allowed}, H, W), got {tuple(img.shape)}{hint}")
    if torch.compiler.is_compiling() or img.numel() == 0:
        return  # the values are unknown while the graph is built
    low, high = (float(v) for v in img.detach().aminmax())
    if not (abs(low) < float("inf") and abs(high) < float("inf")):  # also false for NaN, which aminmax hands on
        raise ValueError(f"{who} expects finite pixel values, got NaN or infinity in images {tuple(img.shape)}")
    if value_range and (low < VALUE_RANGE[0] or high > VALUE_RANGE[1]):
        advice = "divide 8-bit values by 255, 16-bit values by 65535"
        if low < VALUE_RANGE[0]:
            advice = "give images as they are, not normalised by a mean and a deviation"
        raise ValueError(f"{who} expects pixel values in [0, 1], got values from {low:.4g} to {high:.4g}; {advice}")


def check_mask(mask: Tensor, img: Tensor, who: str) -> None:
    """Raise unless ``mask`` fits ``img``: shape (1|B, 1, H, W), same device, finite values."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{who} expects the mask as a torch.Tensor, got {type(mask).__name__}")
    expected = (len(img), 1, *img.shape[-2:])
    if mask.dim() != 4 or mask.shape[1:] != expected[1:] or mask.shape[0] not in (1, len(img)):
        batch = "1" if len(img) == 1 else f"1 or {len(img)}"
        raise ShapeError(
            f"{who} expects a mask ({batch}, 1, {img.shape[-2]}, {img.shape[-1]}) for images "
            f"{tuple(img.shape)}, got {tuple(mask.shape)}"
        )
    if mask.device != img.device:
        raise DeviceError(
            f"{who} expects mask and images on one device, got {mask.device} and {img.device}",
            actual_devices=[mask.device, img.device],
        )
    if mask.is_floating_point() and not torch.compiler.is_compiling() and not bool(mask.isfinite().all()):
        raise ValueError(f"{who} expects a mask of finite values, got NaN or infinity")


def devices_here() -> list[str]:
    """Return the names of the devices of this machine that PyTorch can compute on."""
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def check_device(device: Device, who: str, *, auto: bool = False, meta: bool = False) -> torch.device:
    """Return a device after computing on it.

    Args:
        device: name, index of a GPU, or ``torch.device``.
        who: what the device was given to, for the message.
        auto: accept ``"auto"``: the first GPU, or that of this process of torchrun, else the CPU.
        meta: accept the device ``meta``, on which tensors have a shape and no values.

    Raises:
        TypeError: if it is of another type.
        ValueError: if there is no such device, or PyTorch cannot use it here.

    """
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(f"{who} expects a device such as 'cpu' or 'cuda:0', got {device!r}")
    if auto and device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(_refusal(device, who, auto, "PyTorch knows no such device")) from error
    if meta and found.type == "meta":
        return found
    try:
        torch.ones(1, device=found).item()
    except torch.OutOfMemoryError:  # there is such a device, others use it
        raise
    except (RuntimeError, AssertionError, ImportError) as error:  # torch without CUDA asserts
        reason = shorten((str(error).splitlines() or [type(error).__name__])[0], _MAX_REASON, placeholder=" ...")
        if found.type == "cuda" and torch.version.cuda is None and torch.version.hip is None:
            reason = f"this PyTorch was built without CUDA, {_CUDA_BUILDS} has builds with it"
        raise ValueError(_refusal(device, who, auto, reason)) from error
    return found


def _refusal(device: Device, who: str, auto: bool, reason: str) -> str:
    names = ", ".join([*(["auto"] if auto else []), *devices_here()])
    return f"{who} expects a device of this machine ({names}), got '{device}': {reason}"
