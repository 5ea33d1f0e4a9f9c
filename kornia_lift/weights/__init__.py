"""Shipped weights and the safe reading of weight files."""

from kornia_lift.weights._load import (
    available_models,
    is_upright,
    load_network,
    load_tensors,
    network_family,
    pooled_sizes,
)
from kornia_lift.weights._safetensors import WeightFileError, read_safetensors

__all__ = [
    "WeightFileError",
    "available_models",
    "is_upright",
    "load_network",
    "load_tensors",
    "network_family",
    "pooled_sizes",
    "read_safetensors",
]
