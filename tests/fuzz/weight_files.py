"""Weights of this package and of others, small, and how they are read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from kornia_lift import LIFTDescriptor, LIFTResponse
from kornia_lift.convert.learned_orientation import _SHAPES
from kornia_lift.weights import load_network, write_safetensors


def weights(path: Path) -> None:
    """Weights of one network, with a checksum."""
    write_safetensors(path, {f"response.{k}": v for k, v in LIFTResponse(False).state_dict().items()}, {"a": "b"})


def weights_of_others(path: Path) -> None:
    """Weights without a checksum."""
    from safetensors.torch import save

    path.write_bytes(save({"a": torch.zeros(3, 4), "b": torch.ones(2, dtype=torch.float16)}, {"networks": "lift"}))


def load_response(path: Path) -> None:
    """Put weights into the network."""
    load_network(LIFTResponse(False), "response", path)


def converted(path: Path) -> None:
    """A published descriptor as this package writes it."""
    tensors = {f"descriptor.{k}": v for k, v in LIFTDescriptor(False).state_dict().items()}
    write_safetensors(path, tensors, {"kind": "deepdesc", "settings": "{}", "licence": "x"})


def tilde(path: Path) -> None:
    """Full filters of one channel, 3x3."""
    rng = np.random.default_rng(0)
    rows = ["1"]
    for _ in range(4):
        rows.append("2 1 3")
        for _ in range(2):
            rows += [" ".join(f"{v:.3f}" for v in rng.normal(size=3)) for _ in range(3)] + ["0.5"]
    path.write_text("\n".join(rows) + "\n")


def lift_h5(path: Path) -> None:
    """The layout of LIFT's published descriptor."""
    network = LIFTDescriptor(False)
    with h5py.File(path, "w") as file:
        file["layers"] = np.array([1, 5, 4, 7, 1, 5, 4, 7, 1, 5, 4])
        convolutions = [module for module in network.features if isinstance(module, torch.nn.Conv2d)]
        for k, layer in zip((1, 5, 9), convolutions, strict=True):
            file[f"l-{k}-weights"] = layer.weight.detach().numpy()
            file[f"l-{k}-bias"] = layer.bias.detach().numpy()
        file["patch-mean"], file["patch-std"] = np.float32(120), np.float32(60)


def learned_orientation(path: Path) -> None:
    """A folder of arrays."""
    rng = np.random.default_rng(0)
    for name, shape in _SHAPES.items():
        np.save(path.with_name(f"{name}.npy"), np.abs(rng.normal(size=shape)) + 0.1)
