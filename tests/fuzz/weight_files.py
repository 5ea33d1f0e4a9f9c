"""Weights of this package and of others, small, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from kornia_lift import LIFTDescriptor, LIFTFeature, LIFTResponse
from kornia_lift.convert import TILDEResponse
from kornia_lift.convert.learned_orientation import _SHAPES
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.config import to_mapping
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.weights import load_network, load_tensors, write_safetensors


def weights(path: Path) -> None:
    """Weights of one network, with a checksum."""
    write_safetensors(path, {f"response.{k}": v for k, v in LIFTResponse(False).state_dict().items()}, {"a": "b"})


def unchecked(path: Path, parts: Mapping[str, nn.Module], metadata: dict[str, str]) -> None:
    """Write networks without a checksum, which a stranger would write anew: damage comes to the readers behind it."""
    from safetensors.torch import save

    tensors = {
        f"{part}.{k}": v.contiguous() for part, network in parts.items() for k, v in network.state_dict().items()
    }
    path.write_bytes(save(tensors, metadata))


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


def trained_tilde(path: Path) -> None:
    """Filters as ``kornia-lift train tilde`` writes them."""
    config = TildeConfig(num_sum=2, num_max=2, channels=1, filter_size=5)
    response = TILDEResponse(2, 2, 1, 5, rank=0, gain=1.0)
    unchecked(path, {"tilde": response}, {"config": json.dumps(to_mapping(config))})


def lf_net(path: Path) -> None:
    """Detector and descriptor of LF-Net with random weights."""
    unchecked(path, {"detector": LFNetDetector(10), "descriptor": LFNetDescriptor()}, {"networks": "lfnet"})


def lift_plus(path: Path) -> None:
    """The networks of ``lift-plus``, in a file of one's own."""
    from safetensors.torch import save

    tensors, metadata = load_tensors("lift-plus")
    path.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, metadata))


def load_lift_plus(path: Path) -> None:
    """Build the whole feature from a file, which says which networks it holds."""
    LIFTFeature(10, pretrained=path)


def correspondence(path: Path) -> None:
    """A small correspondence network, as its recipe writes it."""
    unchecked(path, {"correspondence": CorrespondenceNet(channels=8, blocks=1)}, {"config": "{}"})


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
