"""The base descriptor file of LIFT's Theano release, ``new-CNN3-picc-iter-56k.h5``."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from kornia_lift.convert._descriptor import build_descriptor
from kornia_lift.files.h5 import FeatureFileError, H5File
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.weights import WeightFileError

# conv, tanh, L2 pooling, subtractive normalisation, twice; conv, tanh, L2 pooling
_LAYERS = [1, 5, 4, 7, 1, 5, 4, 7, 1, 5, 4]


def load_lift_descriptor(path: str | os.PathLike[str], *, normalize: bool = False) -> LIFTDescriptor:
    """Load LIFT's published descriptor.

    Args:
        path: the HDF5 file.
        normalize: return unit vectors; the published descriptor is not normalised.

    Returns:
        The network in eval mode, for images in [0, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        kornia_lift.weights.WeightFileError: if the file is not HDF5, or describes another network.

    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        with H5File(path) as file:
            layers = file.array(file.root, "layers", kinds="iuf", ndim=(1, 2)).ravel().tolist()
            if layers != _LAYERS:
                raise WeightFileError(f"{path}: expected the layers {_LAYERS} of LIFT's descriptor, got {layers}")

            def read(name: str) -> Tensor:
                return torch.from_numpy(file.array(file.root, name, ndim=(0, 1, 2, 3, 4))).float()

            convolutions = [(read(f"l-{k}-weights"), read(f"l-{k}-bias").flatten()) for k in (1, 5, 9)]
            mean, std = read("patch-mean"), read("patch-std")
    except FeatureFileError as error:  # damaged, or with links and sizes that no h5 file may have
        raise WeightFileError(f"{path} is not a readable LIFT descriptor file: {error}") from error
    if mean.numel() == std.numel() == 1:
        mean, std = mean.squeeze(), std.squeeze()
    return build_descriptor(convolutions, mean, std, str(path), normalize=normalize)
