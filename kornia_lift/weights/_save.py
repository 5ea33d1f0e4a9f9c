"""Write the weights of networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kornia_lift.weights._safetensors import write_safetensors


def save_model(path: Path, parts: Mapping[str, nn.Module], metadata: Mapping[str, str] | None = None) -> None:
    """Write networks to one ``.safetensors`` file, with a checksum, complete or not at all.

    Parameters are written in half precision. Buffers keep their dtype: what normalises an image is not rounded, and
    counts may exceed what half precision can hold.

    Args:
        path: the file.
        parts: networks by the names before those of their tensors, as ``response``, ``orientation``, ``descriptor``.
        metadata: text for the header of the file.

    Raises:
        MissingExtraError: if the package safetensors is not installed.
        ValueError: if a weight is not finite, or too large for half precision.

    """
    tensors: dict[str, Tensor] = {}
    for part, network in parts.items():
        parameters = {name for name, _ in network.named_parameters()}
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = tensor.detach().half() if name in parameters else tensor.detach()
    write_safetensors(path, tensors, metadata or {})
