"""LFNetFeature: LF-Net's detector and descriptor as one kornia ``LocalFeature`` (Ono et al., NeurIPS 2018)."""

from __future__ import annotations

import os
from typing import Any

from kornia.feature import LAFDescriptor, PassLAF
from torch import Tensor, nn

from kornia_lift._checks import Device, check_device, check_image
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.detector.padding import find_padding
from kornia_lift.feature.lift import LIFTFeature
from kornia_lift.networks.lfnet import PATCH_SIZE, WIDTH, LFNetDescriptor, normalise_maps
from kornia_lift.weights import LFNET_MODEL


class LFNetPatchDescriptor(nn.Module):
    """Normalise images, cut a patch per frame, describe it: the descriptor stage of a ``LocalFeature``.

    Args:
        network: describes the patches; default: an :class:`LFNetDescriptor` with random weights.
        skip_padding: leave black regions around a rotated or rectified image out of the normalisation, as
            :class:`~kornia_lift.detector.lfnet.LFNetDetector` does.

    Shape:
        - Input: images :math:`(B, 1, H, W)`, values in [0, 1]; LAFs :math:`(B, N, 2, 3)`
        - Output: :math:`(B, N, 256)`

    """

    def __init__(self, network: LFNetDescriptor | None = None, *, skip_padding: bool = True) -> None:
        super().__init__()
        self.skip_padding = skip_padding
        self.describe = LAFDescriptor(LFNetDescriptor() if network is None else network, patch_size=PATCH_SIZE)

    def forward(self, img: Tensor, lafs: Tensor) -> Tensor:
        check_image(img, type(self).__name__, channels=(1,))
        if not len(lafs) or not lafs.shape[1]:
            return img.new_zeros(len(lafs), lafs.shape[1], WIDTH)
        padding = find_padding(img) if self.skip_padding else None
        descriptors: Tensor = self.describe(normalise_maps(img, padding), lafs)
        return descriptors


class LFNetFeature(LIFTFeature):
    """Detect, orient and describe keypoints of images by LF-Net.

    Args:
        num_features: number of slots in the output; the best keypoints are kept.
        pretrained: ``True`` for the weights that the package ships (``"lf-net"``), their name, the path of a
            ``.safetensors`` file with tensors ``detector.*`` and ``descriptor.*``, or ``False`` for random weights, in
            train mode.
        device: device of the weights. ``None``: the one where they are created.
        upright: leave the frames upright instead of using the detector's orientations: better where no camera is
            rotated.

    Shape:
        - Input: images :math:`(B, 1|3, H, W)`, values in [0, 1]; ``mask`` :math:`(1|B, 1, H, W)`, 0 suppresses
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, descriptors :math:`(B, N, 256)`

    Raises:
        kornia.core.exceptions.ShapeError: if images or mask have another shape.
        TypeError: if the images are not floating point.
        ValueError: if pixel values are NaN, infinite or far outside [0, 1], or this machine has no such device.

    Convention:
        That of :class:`~kornia_lift.detector.lfnet.LFNetDetector`. The network learns from whole images, so the
        detector assigns the orientation itself; there is no orientation stage.

    Example:
        >>> lafs, responses, descriptors = LFNetFeature(50)(torch.rand(1, 1, 96, 128))
        >>> descriptors.shape
        torch.Size([1, 50, 256])

    """

    def __init__(
        self,
        num_features: int = 1000,
        pretrained: bool | str | os.PathLike[str] = True,
        device: Device | None = None,
        *,
        upright: bool = False,
    ) -> None:
        if device is not None:
            device = check_device(device, type(self).__name__, meta=True)  # before the weights are read
        super().__init__(
            num_features,
            pretrained=False,
            detector=LFNetDetector(num_features, pretrained, upright=upright),
            orienter=PassLAF(),
            descriptor=LFNetPatchDescriptor(LFNetDescriptor(pretrained)),
            scaling_coef=1.0,
        )
        if pretrained is not False:
            self.eval()
        if device is not None:
            self.to(device)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] = LFNET_MODEL, **kwargs: Any) -> LFNetFeature:
        """Build the feature with the weights ``name``: the shipped ones or the path of a ``.safetensors`` file.

        Args:
            name: name or path, see ``pretrained``.
            kwargs: further arguments of the constructor.

        """
        return cls(pretrained=name, **kwargs)
