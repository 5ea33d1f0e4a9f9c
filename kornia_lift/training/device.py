"""Which device a training runs on."""

from __future__ import annotations

import torch

from kornia_lift.training.config import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``"auto"`` is CUDA where there is one.

    Raises:
        ConfigError: if there is no such device.

    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is not a device; use auto, cpu, cuda or cuda:1") from error
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts
        first = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({first}); use auto or cpu") from error
    return device
