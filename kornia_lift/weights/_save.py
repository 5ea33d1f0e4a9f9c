"""Write the weights of the three networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kornia_lift.weights._safetensors import write_safetensors


def save_model(
    path: Path,
    response: nn.Module,
    orientation: nn.Module,
    descriptor: nn.Module,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write three networks to one ``.safetensors`` file, in half precision, with a checksum, complete or not at all.

    Args:
        path: the file.
        response: saved as ``response.*``.
        orientation: saved as ``orientation.*``.
        descriptor: saved as ``descriptor.*``.
        metadata: text for the header of the file.

    Raises:
        MissingExtraError: if the package safetensors is not installed.
        ValueError: if a weight is not finite, or too large for half precision.

    """
    tensors: dict[str, Tensor] = {}
    for part, network in (("response", response), ("orientation", orientation), ("descriptor", descriptor)):
        for name, tensor in network.state_dict().items():
            # counts of batches stay whole: half precision ends at 65504
            tensors[f"{part}.{name}"] = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
    write_safetensors(path, tensors, metadata or {})
