"""The networks of the DeepDesc release (Simo-Serra et al., ICCV 2015), ``CNN3_p8_n8_split*.t7``."""

from __future__ import annotations

import os

import torch

from kornia_lift.convert._descriptor import build_descriptor
from kornia_lift.convert.torch7 import read_t7
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.weights import WeightFileError

_CONVOLUTION = "nn.SpatialConvolution"


def load_deepdesc(path: str | os.PathLike[str], *, normalize: bool = False) -> LIFTDescriptor:
    """Load a published DeepDesc network; its input statistics are images, one value per pixel of the patch.

    Args:
        path: the ``.t7`` file.
        normalize: return unit vectors; the published descriptor is not normalised.

    Returns:
        The network in eval mode, for images in [0, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        kornia_lift.weights.WeightFileError: if the file is not Torch7, or describes another network.

    """
    root = read_t7(path)
    try:
        modules = [root["desc"]["modules"][float(i)] for i in range(1, len(root["desc"]["modules"]) + 1)]
        layers = [module for module in modules if module["__class__"].startswith(_CONVOLUTION)]
        convolutions = [(torch.from_numpy(m["weight"]), torch.from_numpy(m["bias"])) for m in layers]
        mean, std = (torch.from_numpy(root[key]).squeeze(0) for key in ("mean", "std"))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise WeightFileError(f"{path} is a Torch7 file, but not a DeepDesc network: {error!r}") from error
    if len(convolutions) != 3:
        raise WeightFileError(f"{path}: expected 3 convolutions, got {len(convolutions)}")
    return build_descriptor(convolutions, mean, std, str(path), normalize=normalize)
