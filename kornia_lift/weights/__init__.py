"""Shipped weights, the safe reading of weight files, and the writing of new ones."""

from kornia_lift.weights._load import (
    available_models,
    default_network,
    has_part,
    is_upright,
    load_network,
    load_tensors,
    network_family,
    widths_of,
)
from kornia_lift.weights._registry import LFNET_MODEL, Family
from kornia_lift.weights._safetensors import WeightFileError, read_safetensors, write_safetensors
from kornia_lift.weights._save import save_model

__all__ = [
    "LFNET_MODEL",
    "Family",
    "WeightFileError",
    "available_models",
    "default_network",
    "has_part",
    "is_upright",
    "load_network",
    "load_tensors",
    "network_family",
    "read_safetensors",
    "save_model",
    "widths_of",
    "write_safetensors",
]
