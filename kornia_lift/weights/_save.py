"""Write the weights of the networks as one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kornia_lift.weights._safetensors import write_safetensors


def save_model(
    path: Path,
    response: nn.Module,
    orientation: nn.Module,
    descriptor: nn.Module,
    metadata: Mapping[str, str] | None = None,
    *,
    localization: nn.Module | None = None,
) -> None:
    """Write the networks of a model to one ``.safetensors`` file, with a checksum, complete or not at all.

    Parameters are written in half precision. Buffers keep their dtype: what normalises an image is not rounded, and
    counts may exceed what half precision can hold.

    Args:
        path: the file.
        response: saved as ``response.*``.
        orientation: saved as ``orientation.*``.
        descriptor: saved as ``descriptor.*``.
        metadata: text for the header of the file.
        localization: saved as ``localization.*``, for models that have it.

    Raises:
        MissingExtraError: if the package safetensors is not installed.
        ValueError: if a weight is not finite, or too large for half precision.

    """
    tensors: dict[str, Tensor] = {}
    parts = {"response": response, "orientation": orientation, "descriptor": descriptor}
    if localization is not None:
        parts["localization"] = localization
    for part, network in parts.items():
        parameters = {name for name, _ in network.named_parameters()}
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = tensor.detach().half() if name in parameters else tensor.detach()
    write_safetensors(path, tensors, metadata or {})
