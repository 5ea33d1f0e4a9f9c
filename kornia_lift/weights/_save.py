"""Write the weights of the three networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift._io import atomic_write


def save_model(
    path: Path,
    response: nn.Module,
    orientation: nn.Module,
    descriptor: nn.Module,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write three networks to one ``.safetensors`` file, complete or not at all.

    Parameters are written in half precision. Buffers keep their dtype: what normalises an image is not rounded, and
    counts may exceed what half precision can hold.

    Args:
        path: the file.
        response: saved as ``response.*``.
        orientation: saved as ``orientation.*``.
        descriptor: saved as ``descriptor.*``.
        metadata: text for the header of the file.

    Raises:
        MissingExtraError: if the package safetensors is not installed.

    """
    to_bytes = require("safetensors.torch", extra="train").save
    tensors: dict[str, Tensor] = {}
    for part, network in (("response", response), ("orientation", orientation), ("descriptor", descriptor)):
        parameters = {name for name, _ in network.named_parameters()}
        for name, tensor in network.state_dict().items():
            # contiguous and on the CPU: the file knows no strides or devices
            dtype = torch.float16 if name in parameters else tensor.dtype
            tensors[f"{part}.{name}"] = tensor.detach().to("cpu", dtype).contiguous().clone()
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_bytes(tensors, dict(metadata or {})))  # save_file hides the file from other users
