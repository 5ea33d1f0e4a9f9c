"""What the extractors for other programs share: tensors of one image in common conventions, and their registration."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from kornia_lift._kornia import laf_is_filled
from kornia_lift.geometry import lift_from_lafs


@dataclass(frozen=True)
class Keypoints:
    """Features of one image, without empty slots, best first.

    Attributes:
        xy: locations in pixels, pixel centres at integers, shape (N, 2).
        scores: responses, shape (N,).
        descriptors: unit vectors, shape (N, D).
        sigma: scale in pixels as SIFT counts it, shape (N,).
        angle: radians, clockwise on screen (y down), as OpenCV, COLMAP and hloc count, shape (N,).

    """

    xy: Tensor
    scores: Tensor
    descriptors: Tensor
    sigma: Tensor
    angle: Tensor


def extract(feature: nn.Module, image: Tensor) -> list[Keypoints]:
    """Run a kornia local feature on images.

    Args:
        feature: ``(image) -> (lafs, responses, descriptors)``.
        image: values in [0, 1], shape (B, 1 or 3, H, W).

    Returns:
        One record per image.

    """
    lafs, responses, descriptors = feature(image)
    coefficient = float(getattr(feature, "scaling_coef", 1.0))
    found = []
    for frames, score, described in zip(lafs, responses, descriptors, strict=True):
        keep = laf_is_filled(frames[None])[0]
        xy, sigma, angle = lift_from_lafs(frames[None, keep])
        unit = torch.nn.functional.normalize(described[keep], dim=-1)
        found.append(Keypoints(xy[0], score[keep].reshape(-1), unit, sigma[0] / coefficient, angle[0]))
    return found


def add_module(package: ModuleType, name: str, extractor: type) -> None:
    """Add the module ``name`` to a program's package of extractors, in memory; it defines the class ``extractor``."""
    module = ModuleType(f"{package.__name__}.{name}", extractor.__doc__)
    extractor.__module__ = module.__name__  # programs take the one class that the module itself defines
    setattr(module, extractor.__name__, extractor)
    sys.modules[module.__name__] = module
    setattr(package, name, module)
