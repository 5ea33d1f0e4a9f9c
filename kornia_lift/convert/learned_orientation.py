"""The networks of *Learning to Assign Orientations to Feature Points* (Yi et al., CVPR 2016), folders of ``.npy``.

LIFT's orientation estimator is its successor. These are for patches of 28x28 pixels: give kornia's ``LAFOrienter`` the
argument ``patch_size=28``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift._io import DamagedFileError, read_npy
from kornia_lift.networks.layers import ghh
from kornia_lift.weights import WeightFileError

PATCH_SIZE = 28
KEPT = 0.7  # share kept by the dropout of the first fully-connected layer; the release scales by it
MAX_BYTES = 16 * 2**20  # of one file; the largest released one has 320 kB
_SHAPES = {
    "input_mean": (),
    "input_std": (),
    "layer0_W": (10, 1, 5, 5),
    "layer0_b": (10,),
    "layer1_W": (20, 10, 5, 5),
    "layer1_b": (20,),
    "layer2_W": (50, 20, 3, 3),
    "layer2_b": (50,),
    "layer3_W": (50, 100, 4, 4),
    "layer3_b": (100, 4, 4),
    "layer4_W": (100, 2, 4, 4),
    "layer4_b": (2, 4, 4),
}


class LearnedOrientation(nn.Module):
    r"""Estimate the orientation of 28x28 patches: an ``angle_detector`` for kornia's ``LAFOrienter``.

    Args:
        mean: subtracted from the patches, in [0, 1] units.
        std: the patches are divided by it.

    Shape:
        - Input: :math:`(B, 1, 28, 28)`, values in [0, 1]
        - Output: :math:`(B,)`, radians in :math:`(-\pi, \pi]`

    Raises:
        kornia.core.exceptions.ShapeError: if the input has another shape.

    Convention:
        ``forward`` returns kornia's angle, counter-clockwise on screen; the network's own is its negative.

    """

    patch_size = PATCH_SIZE

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))
        self.mean: Tensor
        self.std: Tensor
        self.conv1 = nn.Conv2d(1, 10, 5)  # 24, pooled to 12
        self.conv2 = nn.Conv2d(10, 20, 5)  # 8, pooled to 4
        self.conv3 = nn.Conv2d(20, 50, 3)  # 2, pooled to 1
        self.fc1 = nn.Linear(50, 100 * 16)
        self.fc2 = nn.Linear(100, 2 * 16)

    def vector(self, patch: Tensor) -> Tensor:
        """Return the two outputs, sine and cosine of the angle up to a common factor, shape (B, 2)."""
        x = (patch - self.mean.to(patch)) / self.std.to(patch)
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(convolution(x), 2))
        return ghh(self.fc2(ghh(self.fc1(x.flatten(1)))))

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        sine, cosine = self.vector(patch).unbind(1)
        return torch.atan2(-sine, cosine)


def load_learned_orientation(folder: str | os.PathLike[str]) -> LearnedOrientation:
    """Load a released model (``sift``, ``efsift``, ``efsift-360``).

    Args:
        folder: holds ``input_mean.npy``, ``input_std.npy`` and ``layer0_W.npy`` to ``layer4_b.npy``.

    Returns:
        The network in eval mode, without dropout.

    Raises:
        FileNotFoundError: if the folder or one of the files does not exist.
        kornia_lift.weights.WeightFileError: if a file is damaged, or describes another network.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} of a learned orientation")
    found = {name: _read(folder / f"{name}.npy", shape) for name, shape in _SHAPES.items()}
    std = float(found["input_std"])
    if not std > 0:
        raise WeightFileError(f"{folder}: expected a positive input_std, got {std}")
    network = LearnedOrientation(float(found["input_mean"]), std)
    with torch.no_grad():
        for i, convolution in enumerate((network.conv1, network.conv2, network.conv3)):
            convolution.weight.copy_(found[f"layer{i}_W"].flip(-1, -2))  # the release convolves, torch correlates
            _bias(convolution).copy_(found[f"layer{i}_b"])
        for layer, i, kept in ((network.fc1, 3, KEPT), (network.fc2, 4, 1.0)):
            layer.weight.copy_(kept * found[f"layer{i}_W"].flatten(1).T)
            _bias(layer).copy_(kept * found[f"layer{i}_b"].flatten())
    return network.eval()


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    if not path.exists():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        tensor = torch.from_numpy(read_npy(path, "f", MAX_BYTES).astype(np.float64))
    except DamagedFileError as error:
        raise WeightFileError(f"{error}; expected a .npy file") from error
    tensor = tensor.squeeze() if shape == () and tensor.numel() == 1 else tensor
    if tuple(tensor.shape) != shape or not tensor.isfinite().all():
        raise WeightFileError(f"{path}: expected finite values of shape {shape}, got {tuple(tensor.shape)}")
    return tensor
