"""Put the three convolutions of a published DeepDesc-type network into ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.weights import WeightFileError

CONVOLUTIONS = (0, 4, 8)  # of LIFTDescriptor.features
_MEAN_SHAPES = (torch.Size([]), torch.Size([64, 64]))


def build_descriptor(
    convolutions: list[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor, where: str, *, normalize: bool
) -> LIFTDescriptor:
    """Build the network from its tensors.

    Args:
        convolutions: weights (O, I, kh, kw) and biases (O,) of the three layers.
        mean: mean of the training patches, in gray values 0 to 255; scalar or (64, 64).
        std: their standard deviation, of the same shape.
        where: the file, for messages.
        normalize: see :class:`~kornia_lift.LIFTDescriptor`.

    Raises:
        WeightFileError: if a shape is not that of the network, a value not finite, or a deviation not positive.

    """
    if mean.shape not in _MEAN_SHAPES or std.shape != mean.shape or not bool((std > 0).all()):
        raise WeightFileError(
            f"{where}: expected mean and positive standard deviation as scalars or (64, 64), got {tuple(mean.shape)} "
            f"and {tuple(std.shape)}"
        )
    network = LIFTDescriptor(pretrained=False, normalize=normalize, mean=mean / 255, std=std / 255)
    for i, (weight, bias) in zip(CONVOLUTIONS, convolutions, strict=True):
        layer = network.features[i]
        assert isinstance(layer, nn.Conv2d)
        for name, new in (("weight", weight), ("bias", bias)):
            old = layer.get_parameter(name)
            if new.shape != old.shape or not bool(new.isfinite().all()):
                raise WeightFileError(
                    f"{where}: expected finite {name} {tuple(old.shape)} for layer {i}, got {tuple(new.shape)}"
                )
            with torch.no_grad():
                old.copy_(new)
    return network.eval()
