"""Mix LIFT's parts with kornia's: any detector, any orientation, any descriptor, in one line."""

from __future__ import annotations

import os
from typing import Literal, get_args

from kornia.feature import (
    BlobDoG,
    BlobHessian,
    HardNet,
    KeyNetDetector,
    LAFDescriptor,
    LAFOrienter,
    OriNet,
    PassLAF,
    ScaleSpaceDetector,
    SIFTDescriptor,
    TFeat,
)
from kornia.geometry.subpix import ConvQuadInterp3d
from kornia.geometry.transform import ScalePyramid
from torch import nn

from kornia_lift._checks import check_count
from kornia_lift._kornia import SAMPLES_PIXEL_CENTRES
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.feature.each_image import EachImage
from kornia_lift.feature.lfnet import LFNetPatchDescriptor
from kornia_lift.feature.lift import LIFTFeature
from kornia_lift.feature.stages import described_region, descriptor_of, orienter_of
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse

KEYNET_SMALLEST = 20  # pixels: the coarsest level of kornia's pyramid must exceed the padding of its blur

Detector = Literal["lift", "lf-net", "dog", "hessian", "keynet"]
Orientation = Literal["lift", "dominant", "orinet", "upright"]
Descriptor = Literal["lift", "lf-net", "sift", "tfeat", "hardnet"]


def mix_features(
    detector: Detector | nn.Module = "lift",
    orientation: Orientation | nn.Module = "lift",
    descriptor: Descriptor | nn.Module = "lift",
    num_features: int = 1000,
    *,
    affine: bool | nn.Module = False,
    scale_laf: float | None = None,
    pretrained: bool | str | os.PathLike[str] = True,
) -> LIFTFeature:
    """Build a local feature from parts of LIFT and of kornia.

    Args:
        detector: ``"lift"``; ``"lf-net"``, whose frames have an orientation; ``"dog"``, SIFT's difference of Gaussians
            with kornia's settings of ``SIFTFeatureScaleSpace``; ``"hessian"``, kornia's ``BlobHessian`` on the same
            pyramid; ``"keynet"``; or a module ``(img, mask) -> (lafs, responses)``, to which ``num_features`` does not
            apply.
        orientation: ``"lift"``; ``"dominant"``, the peak of the gradient histogram as in SIFT; ``"orinet"``;
            ``"upright"``, which leaves the frames as the detector made them; or a module ``(lafs, img) -> lafs``.
        descriptor: ``"lift"``; ``"lf-net"`` (256 numbers); ``"sift"`` (RootSIFT, 41-pixel patch); ``"tfeat"``;
            ``"hardnet"``; or a module ``(img, lafs) -> (B, N, D)``.
        num_features: number of slots in the output.
        affine: give the frames an affine shape before the orientation, see :class:`~kornia_lift.LIFTFeature`.
        scale_laf: the frames are enlarged by this factor before description; 2 is that of kornia's ``DoGHardNet``.
            ``None``: for the descriptor ``"lift"`` that of :class:`~kornia_lift.LIFTFeature`, for others 1.
        pretrained: for LIFT's parts see :class:`~kornia_lift.LIFTFeature`; LF-Net's parts get the shipped weights and
            kornia's their published ones, which kornia downloads, unless this is ``False``.

    Returns:
        The feature in eval mode.

    Raises:
        ValueError: if a name is unknown.
        TypeError: if a bare network is given, without the stage that searches its scores or cuts its patches.

    Convention:
        Before ``scale_laf``, the frames of ``"lift"``, ``"dog"`` and ``"hessian"`` have the size of the paper's
        descriptor patch, 6 * 64/63 sigma; those of ``"keynet"`` the size that kornia gives them, 22 pixels of the
        pyramid level; those of ``"lf-net"`` are its descriptor's patch, 11.7 to 23.4 pixels.

    Example:
        >>> feature = mix_features("dog", "lift", "sift", 50, pretrained=False)
        >>> feature(torch.rand(1, 1, 96, 96))[2].shape
        torch.Size([1, 50, 128])

    """
    _refuse_bare(detector, orientation, descriptor)
    num_features = check_count(num_features, "mix_features")
    if scale_laf is None:
        scale_laf = described_region(pretrained) if descriptor == "lift" else 1.0
    return LIFTFeature(
        affine=affine,
        detector=_detector(detector, num_features, pretrained),
        orienter=_orienter(orientation, pretrained),
        descriptor=_descriptor(descriptor, pretrained),
        scaling_coef=scale_laf,
    ).eval()


def _refuse_bare(detector: object, orientation: object, descriptor: object) -> None:
    """Refuse bare networks, without the stage that cuts their patches or searches their scores."""
    for part, given, networks, wrapped in (
        ("detector", detector, (LIFTResponse, DenseResponse), "LIFTDetector(1000, resp_module={})"),
        ("orientation", orientation, (LIFTOrientation, PolarOrientation), "PatchOrienter({})"),
        ("descriptor", descriptor, (LIFTDescriptor, CompactDescriptor), "PatchDescriptor({})"),
    ):
        if isinstance(given, networks):
            name = type(given).__name__
            raise TypeError(f"the {part} {name} is a network alone: give {wrapped.format('network')}")


def _unknown(kind: str, name: str, known: object) -> ValueError:
    return ValueError(f"unknown {kind} {name!r}: expected one of {', '.join(get_args(known))}, or a module")


def _detector(name: str | nn.Module, count: int, pretrained: bool | str | os.PathLike[str]) -> nn.Module:
    if isinstance(name, nn.Module):
        return name
    if name in ("dog", "hessian") and not SAMPLES_PIXEL_CENTRES:
        raise ValueError(f"the detector {name!r} is put together from parts of kornia 0.9; update kornia")
    match name:
        case "lift":
            return LIFTDetector(count, pretrained=pretrained)
        case "lf-net":
            return LFNetDetector(count, pretrained is not False)
        case "dog":
            return ScaleSpaceDetector(
                count,
                mr_size=LAF_SCALE_PER_SIGMA,
                scale_pyr_module=ScalePyramid(3, 1.6, 32, double_image=True),
                resp_module=BlobDoG(),
                subpix_module=ConvQuadInterp3d(),
                minima_are_also_good=True,
                scale_space_response=True,
            )
        case "hessian":
            # a per-level response reads n_levels + 2 levels of an octave, one fewer than the difference of Gaussians
            return ScaleSpaceDetector(
                count,
                mr_size=LAF_SCALE_PER_SIGMA,
                scale_pyr_module=ScalePyramid(3, 1.6, 32, double_image=True, extra_levels=2),
                resp_module=BlobHessian(),
            )
        case "keynet":
            return EachImage(KeyNetDetector(pretrained is not False, count), count, KEYNET_SMALLEST)
    raise _unknown("detector", name, Detector)


def _orienter(name: str | nn.Module, pretrained: bool | str | os.PathLike[str]) -> nn.Module:
    if isinstance(name, nn.Module):
        return name
    match name:
        case "lift":
            return orienter_of(pretrained)
        case "dominant":
            return LAFOrienter(19)  # the patch of kornia's SIFT features
        case "orinet":
            return LAFOrienter(32, angle_detector=OriNet(pretrained is not False))
        case "upright":
            return PassLAF()
    raise _unknown("orientation", name, Orientation)


def _descriptor(name: str | nn.Module, pretrained: bool | str | os.PathLike[str]) -> nn.Module:
    if isinstance(name, nn.Module):
        return name
    match name:
        case "lift":
            return descriptor_of(pretrained)
        case "lf-net":
            return LFNetPatchDescriptor(LFNetDescriptor(pretrained is not False))
        case "sift":
            return LAFDescriptor(SIFTDescriptor(41, rootsift=True), patch_size=41)
        case "tfeat":
            return LAFDescriptor(TFeat(pretrained is not False), patch_size=32)
        case "hardnet":
            return LAFDescriptor(HardNet(pretrained is not False), patch_size=32)
    raise _unknown("descriptor", name, Descriptor)
