"""Write the weights of networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kornia_lift.weights._safetensors import write_safetensors


def save_model(path: Path, parts: Mapping[str, nn.Module], metadata: Mapping[str, str] | None = None) -> None:
    """Write networks to one ``.safetensors`` file, with a checksum, complete or not at all.

    Weights of two or more dimensions are written in half precision. Biases, which are few, and buffers keep their
    dtype: what normalises an image is not rounded, and counts may exceed what half precision can hold.

    Args:
        path: the file.
        parts: networks by the prefix of their tensors: ``response``, ``orientation``, ``descriptor``, ...
        metadata: text for the header of the file.

    Raises:
        MissingExtraError: if the package safetensors is not installed.
        ValueError: if a weight is not finite, or too large for half precision.

    """
    tensors: dict[str, Tensor] = {}
    for part, network in parts.items():
        large = {name for name, weight in network.named_parameters() if weight.dim() > 1}
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = tensor.detach().half() if name in large else tensor.detach()
    write_safetensors(path, tensors, metadata or {})
