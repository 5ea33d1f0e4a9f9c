"""Write the weights of the three networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
    networks = (("response", response), ("orientation", orientation), ("descriptor", descriptor))
    state: dict[str, Tensor] = {}
    for part, network in networks:
        parameters = {name for name, _ in network.named_parameters()}
        for name, tensor in network.state_dict().items():
            # statistics and counters keep their type: half precision rounds the former and cannot count above 65504
            state[f"{part}.{name}"] = tensor.half() if name in parameters else tensor
    save_tensors(path, state, metadata)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as they are to a ``.safetensors`` file, complete or not at all."""
    to_bytes = require("safetensors.torch", extra="train").save
    # contiguous and on the CPU: the file does not tell of strides or devices
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_bytes(plain, dict(metadata or {})))  # save_file hides the file from other users
