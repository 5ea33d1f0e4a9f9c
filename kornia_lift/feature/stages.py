"""The patch stages of a model: which networks its weights belong to, and on which region they look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.networks._fast.folded import Precision
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.weights import Family, network_family, pooled_sizes

#: Side of the region that :class:`PolarOrientation` sees over the paper's 12 sigma: twice that of the described one,
#: which is 1.5 times as large.
POLAR_CONTEXT = 3.0


class _Stages(NamedTuple):
    """Orientation and descriptor of one family of models."""

    orientation: type[LIFTOrientation | PolarOrientation]
    context: float
    descriptor: type[LIFTDescriptor | CompactDescriptor]
    precision: Precision


_FAMILIES: dict[Family, _Stages] = {
    "lift": _Stages(LIFTOrientation, 1.0, LIFTDescriptor, "float32"),
    "compact": _Stages(PolarOrientation, POLAR_CONTEXT, CompactDescriptor, "auto"),
}


def orienter_of(pretrained: bool | str | os.PathLike[str]) -> PatchOrienter:
    """Build the orientation stage of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights the networks are LIFT's.

    """
    family = _FAMILIES[network_family(pretrained)]
    return PatchOrienter(family.orientation(pretrained), family.context)


def descriptor_of(
    pretrained: bool | str | os.PathLike[str],
    sizes: Sequence[float] | None = None,
    precision: Precision | None = None,
) -> PatchDescriptor:
    """Build the descriptor stage of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights the networks are LIFT's.
        sizes: see :class:`~kornia_lift.feature.patches.PatchDescriptor`. ``None``: as the model says.
        precision: of the products on a CPU. ``None``: ``"float32"`` for LIFT's network, ``"auto"`` for the compact one.

    """
    sizes = pooled_sizes(pretrained) if sizes is None else sizes
    family = _FAMILIES[network_family(pretrained)]
    return PatchDescriptor(family.descriptor(pretrained, precision=precision or family.precision), sizes)
