"""DeepDesc's protocol: area under precision over recall for 10 000 points, one positive and 1000 negatives each.

Published figures are from the poster of Simo-Serra et al. (ICCV 2015): trained on the two other sets of Brown et al.
(PAMI 2011), tested on the one that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift.evaluation.measures.patch_retrieval import RetrievalScores, evaluate_descriptor, retrieval_pairs
from kornia_lift.scenes.patch_sets import PatchSet

POINTS, NEGATIVES = 10_000, 1000
#: PR-AUC by the set that is tested on.
PUBLISHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "SIFT": {"notredame": 0.349, "yosemite": 0.425, "liberty": 0.226},
        "VGG": {"notredame": 0.663, "yosemite": 0.709, "liberty": 0.558},
        "DeepDesc": {"notredame": 0.667, "yosemite": 0.545, "liberty": 0.608},
    }
)

Descriptor = Callable[[Tensor], Tensor]


def load_descriptor(name: str) -> Descriptor:
    """Return a descriptor of square gray patches (B, 1, S, S) in [0, 1], of any S.

    Args:
        name: ``sift`` or ``rootsift`` (kornia's), ``tfeat`` (kornia's, weights from the torch hub cache), the name of a
            shipped model, a ``.safetensors`` file of a model, or a ``.t7`` file of DeepDesc.

    Raises:
        ValueError: if there is no such model, or its descriptor sees more than a patch.
        FileNotFoundError: if there is no such file.

    """
    from kornia.feature import SIFTDescriptor, TFeat

    if name in ("sift", "rootsift"):
        return _resized(SIFTDescriptor(41, rootsift=name == "rootsift"), 41)
    if name == "tfeat":
        return _resized(TFeat(True).eval(), 32)
    if Path(name).suffix == ".t7":
        from kornia_lift.convert.deepdesc import load_deepdesc

        return _resized(load_deepdesc(name), 64)
    from kornia_lift.networks.descriptor import LIFTDescriptor
    from kornia_lift.weights import available_models, network_family

    if name not in available_models() and not Path(name).suffix:
        names = ", ".join(("sift", "rootsift", "tfeat", *available_models()))
        raise ValueError(f"unknown descriptor {name!r}: expected one of {names}, or a .safetensors or .t7 file")
    if network_family(name) == "lfnet":
        raise ValueError(f"{name} describes patches of normalised images, which a set of patches does not have")
    if network_family(name) == "compact":
        raise ValueError(f"{name} describes the surroundings of a patch too, which a set of patches does not have")
    return _resized(LIFTDescriptor(name), 64)


def run_protocol(
    patches: PatchSet, descriptor: Descriptor, *, points: int = POINTS, negatives: int = NEGATIVES, seed: int = 0
) -> RetrievalScores:
    """Score a descriptor by DeepDesc's protocol.

    Args:
        patches: the patches; their own list of pairs is not used.
        descriptor: from patches (B, 1, S, S) in [0, 1] to descriptors (B, D), compared by L2 distance.
        points: points at most, drawn at random among those with two patches; each gives one matching pair.
        negatives: non-matching pairs of each point.
        seed: of the draw.

    Raises:
        ValueError: if no point has two patches, or a descriptor is not finite.

    """
    pairs, same = retrieval_pairs(patches.point_ids, negatives=negatives, seed=seed, points=points)
    return evaluate_descriptor(descriptor, patches, pairs, same)


def _resized(descriptor: nn.Module, size: int) -> Descriptor:
    """Feed a descriptor the patch size it was made for, of the same support region."""

    def describe(patch: Tensor) -> Tensor:
        if patch.shape[-1] != size:
            patch = F.interpolate(patch, size=(size, size), mode="bilinear", antialias=True)
        found: Tensor = descriptor(patch)
        return found

    return describe
