"""The patch stages of a model: which networks its weights belong to, and which region they see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.feature.shape import LAFShapeEstimator
from kornia_lift.networks._fast.folded import IntegerPrecision
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.shape import KeypointShape
from kornia_lift.weights import Family, has_part, network_family


class _Stages(NamedTuple):
    """Orientation and descriptor of one family of models.

    Args:
        orientation: the network.
        context: side of the region that it sees, relative to the paper's 12 sigma.
        angles: largest number of angles of a keypoint whose descriptors are averaged.
        descriptor: the network.
        region: side of the region that it sees, relative to the paper's 12 sigma; chosen on our training scenes.
        precision: number format of its products.

    """

    orientation: type[LIFTOrientation | PolarOrientation]
    context: float
    angles: int
    descriptor: type[LIFTDescriptor | CompactDescriptor]
    region: float
    precision: IntegerPrecision


_FAMILIES: dict[Family, _Stages] = {
    "lift": _Stages(LIFTOrientation, 1.0, 1, LIFTDescriptor, 1.5, "float32"),
    "compact": _Stages(PolarOrientation, 3.0, 4, CompactDescriptor, 2.0, "auto"),
}


def _stages(pretrained: bool | str | os.PathLike[str]) -> _Stages:
    family = network_family(pretrained)
    if family not in _FAMILIES:
        raise _are_of_lfnet(pretrained)
    return _FAMILIES[family]


def _are_of_lfnet(pretrained: Any) -> ValueError:
    return ValueError(
        f"the weights {os.fspath(pretrained)!r} are LF-Net's, expected those of LIFT's networks: build "
        "kornia_lift.feature.lfnet.LFNetFeature, or what kornia_lift.feature.feature_of gives for any weights"
    )


def check_has_response(pretrained: bool | str | os.PathLike[str]) -> None:
    """Refuse weights whose keypoints LF-Net's detector finds, for a feature that would detect by a response.

    Raises:
        ValueError: naming the class to build.

    """
    if network_family(pretrained) == "lfnet":
        raise _are_of_lfnet(pretrained)


def described_region(pretrained: bool | str | os.PathLike[str]) -> float:
    """Return the side of the region that the descriptor of a model sees, relative to the paper's 12 sigma."""
    return _stages(pretrained).region


def orienter_of(
    pretrained: bool | str | os.PathLike[str], angles: int | None = None, precision: IntegerPrecision | None = None
) -> PatchOrienter:
    """Build the orientation stage of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights the networks are LIFT's.
        angles: largest number of angles of a keypoint. ``None``: as many as suit the network.
        precision: number format of the polar network's products on a CPU; LIFT's are in float32. ``None``: ``"auto"``.

    """
    family = _stages(pretrained)
    if family.orientation is PolarOrientation:
        network: LIFTOrientation | PolarOrientation = PolarOrientation(pretrained, precision=precision or "auto")
    else:
        network = family.orientation(pretrained)
    return PatchOrienter(network, family.context, family.angles if angles is None else angles)


def descriptor_of(
    pretrained: bool | str | os.PathLike[str],
    sizes: Sequence[float] = (1.0,),
    precision: IntegerPrecision | None = None,
) -> PatchDescriptor:
    """Build the descriptor stage of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights the networks are LIFT's.
        sizes: see :class:`~kornia_lift.feature.patches.PatchDescriptor`.
        precision: number format of the products on a CPU. ``None``: ``"float32"`` for LIFT's network, ``"auto"`` for
            the compact one.

    """
    family = _stages(pretrained)
    chosen: Any = precision or family.precision  # LIFT's network refuses integers itself
    return PatchDescriptor(family.descriptor(pretrained, precision=chosen), sizes)


def shape_of(pretrained: bool | str | os.PathLike[str], precision: IntegerPrecision | None = None) -> LAFShapeEstimator:
    """Build the stage that gives the frames of a model an affine shape.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`. Shapes come from the file that also has tensors ``shape.*``,
            as a run with the stage ``shape`` of the recipe ``compact`` writes it, else from the package.
        precision: number format of the products on a CPU. ``None``: ``"auto"``.

    """
    own = isinstance(pretrained, (str, os.PathLike)) and has_part(pretrained, "shape")
    return LAFShapeEstimator(
        KeypointShape(pretrained if own else pretrained is not False, precision=precision or "auto")
    )
