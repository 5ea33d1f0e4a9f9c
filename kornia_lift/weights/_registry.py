"""The models that the package ships: file, checksum, licence. The model card says how each was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent
DEFAULT_MODEL = "lift"
LFNET_MODEL = "lf-net"  # pretrained=True of LF-Net's networks

#: Which networks a model has: LIFT's on 64x64 patches, the compact ones on 32x32, or those of LF-Net, whose detector
#: orients.
Family = Literal["lift", "compact", "lfnet"]


@dataclass(frozen=True)
class ShippedModel:
    """One weight file inside the package.

    Args:
        file: file name inside ``kornia_lift/weights``.
        sha256: checksum of the file; a file that differs is refused.
        upright: the model was made for images that are not rotated: the feature then assigns no orientation.
        family: the networks that the file has tensors for.
        licence: SPDX identifier of the licence of the weights.

    """

    file: str
    sha256: str
    upright: bool = False
    family: Family = "lift"
    licence: str = "Apache-2.0"


_LIFT_SHA256 = "5827fb28fa64e6d82d3725140c43335f53c4bd45da90804f788ef49b70b9165f"
_LIFT_PLUS_SHA256 = "57e69863c39356e47db17f218eacf17620dbf23cbc7fc4a7a453851ad58eb95e"
_LFNET_SHA256 = "53e266f96372ee887041a6da9c9360af5fa11d2f300d1ed8940e73bf1c72e634"
_LIFT_DENSE_SHA256 = "78bfe820e34e517ec4da6d0f18825cf4454a85c9e4d8d374fbe36d926c877f41"

MODELS: dict[str, ShippedModel] = {
    "lift": ShippedModel("lift.safetensors", _LIFT_SHA256),
    # the same networks; frames stay upright
    "lift-upright": ShippedModel("lift.safetensors", _LIFT_SHA256, upright=True),
    # the same detector; other networks for orientation and descriptor, on 32x32 patches
    "lift-plus": ShippedModel("lift-plus.safetensors", _LIFT_PLUS_SHA256, family="compact"),
    "lift-plus-upright": ShippedModel("lift-plus.safetensors", _LIFT_PLUS_SHA256, upright=True, family="compact"),
    # a response that sees its surroundings at several resolutions; orientation and descriptor are those of lift-plus
    "lift-dense": ShippedModel("lift-dense.safetensors", _LIFT_DENSE_SHA256, family="compact"),
    "lift-dense-upright": ShippedModel("lift-dense.safetensors", _LIFT_DENSE_SHA256, upright=True, family="compact"),
    # detector and descriptor learned from whole images
    LFNET_MODEL: ShippedModel("lf-net.safetensors", _LFNET_SHA256, family="lfnet"),
}


@dataclass(frozen=True)
class ShippedNetwork:
    """Weights of a network that is not part of a :class:`~kornia_lift.feature.LIFTFeature`.

    Args:
        file: file name inside ``kornia_lift/weights``.
        sha256: checksum of the file; a file that differs is refused.
        part: prefix of its tensors.
        licence: SPDX identifier of the licence of the weights.

    """

    file: str
    sha256: str
    part: str
    licence: str = "Apache-2.0"


_CNE_SMALL_SHA256 = "907de40fc786e0909ff4b7e44f3b6de8ae9cb20a747f69a0d4d564ee3ab144b9"
_SHAPE_SHA256 = "4134899a98f8d5ab9528c205b5492b4a21f2b7fadfde252a77d21ea76403c329"
#: By name; the first one of a part has the weights of ``pretrained=True``.
NETWORKS: dict[str, ShippedNetwork] = {
    # 64 channels, 8 blocks, ratio and mutuality of each match
    "cne-small": ShippedNetwork("cne-small.safetensors", _CNE_SMALL_SHA256, "correspondence"),
    # affine shapes of keypoints
    "shape": ShippedNetwork("shape.safetensors", _SHAPE_SHA256, "shape"),
}
