"""LIFTFeature: detector, orientation and descriptor as one kornia ``LocalFeature`` (paper Sec. 3)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from kornia.feature import LocalFeature, PassLAF, scale_laf
from torch import Tensor, nn

from kornia_lift._checks import Device, check_count, check_device, check_image, check_mask
from kornia_lift._gray import as_gray, as_seen, sees_colour
from kornia_lift._kornia import DeviceError, laf_is_filled
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.feature.shape import LAFShapeEstimator
from kornia_lift.feature.stages import check_has_response, described_region, descriptor_of, orienter_of, shape_of
from kornia_lift.networks._fast.folded import IntegerPrecision
from kornia_lift.networks._fast.pyramid import shared_pyramid
from kornia_lift.networks.layers import in_dtype
from kornia_lift.weights import is_upright


class LIFTFeature(LocalFeature):
    r"""Detect, orient and describe keypoints of images by LIFT.

    Every part can be exchanged for one of kornia's, see :func:`kornia_lift.mix_features` for the common mixtures.

    Args:
        num_features: number of slots in the output; the best keypoints are kept. More than 1000 are searched on finer
            levels, so the best 1000 of 2000 are not those of a feature for 1000.
        upright: leave the frames upright instead of assigning an orientation: better where cameras are not rotated.
            ``None``: as the shipped model says, ``"lift"`` assigns one, ``"lift-upright"`` does not.
        device: device of the weights, as in kornia's features. ``None``: the one where they are created.
        pretrained: ``True`` for the weights that the package ships (``"lift"``), the name of a shipped model, a path
            to a ``.safetensors`` file, or ``False`` for random weights. With weights the feature is in eval mode; parts
            that you give keep their mode.
        config: scale space of the default detector, see :class:`~kornia_lift.detector.scale_space.ScaleSpaceConfig`.
        affine: give the frames an affine shape before the orientation: more matches of surfaces seen from the side, see
            :class:`~kornia_lift.feature.shape.LAFShapeEstimator`, the default for ``True``, with the
            shapes of ``pretrained`` where that file has some, else with those of the package. Or a module
            ``(lafs, img) -> lafs``, such as kornia's ``LAFAffNetShapeEstimator``.
        detector: replaces the detector, ``(img, mask) -> (lafs, responses)`` on grayscale images, or on RGB images
            where its attribute ``sees_colour`` is true. It brings its own number of features: ``num_features`` and
            ``config`` do not apply to it.
        orienter: replaces the orientation stage, ``(lafs, img) -> lafs``; ``upright`` does not apply to it.
        descriptor: replaces the descriptor stage, ``(img, lafs) -> (B, N, D)``, such as kornia's ``LAFDescriptor``.
        scaling_coef: as in ``LocalFeature``: the oriented frames are enlarged by it before they are described. 1 is
            the paper's support region of 12 sigma x 12 sigma. ``None``: as the model says, 1.5 for LIFT's descriptor,
            2 for the compact one.
        pooled_sizes: sizes of several support regions, relative to the frame, whose descriptors are averaged: more
            matches for a multiple of the work (:class:`~kornia_lift.feature.patches.PatchDescriptor`). ``None``: one
            size, that of the frame.
        angles: largest number of angles of a keypoint whose descriptors are averaged, weighted by the probability of
            each: where the angle is ambiguous, two images may choose different ones, but the means agree. The frame
            has the most likely one. ``None``: 1 for LIFT's orientation, which knows no others, 4 for the polar one.
        precision: number format of the products of the default networks on a CPU, without gradient; the response and
            LIFT's orientation always compute in float32. ``None``: ``"float32"`` for LIFT's descriptor, ``"auto"`` for
            the compact networks: 8-bit integers where the CPU multiplies in them, else bfloat16 where it does so.
            ``"int8"`` is for the compact networks only.
        compile: compile the default patch networks with ``torch.compile`` at their first use, for training and for
            GPUs. The detector is not compiled, nor the descriptor's inference path on a CPU: it would not make them
            faster.

    Shape:
        - Input: images :math:`(B, 1|3, H, W)`, values in [0, 1]; ``mask`` :math:`(1|B, 1, H, W)`, 0 suppresses
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, descriptors :math:`(B, N, 128)`

    Raises:
        kornia.core.exceptions.ShapeError: if images or mask have another shape.
        TypeError: if the images are not floating point, or ``num_features`` is not a whole number.
        ValueError: if pixel values are NaN, infinite or far outside [0, 1], or an argument is out of range; if this
            machine has no such device.
        kornia.core.exceptions.DeviceError: if images, mask and weights lie on different devices.

    Convention:
        Keypoints are sorted by decreasing response. Slots after the last keypoint hold zeros in LAF, response and
        descriptor; drop them with ``kornia.feature.laf_is_filled(lafs)`` before matching, as ``LocalFeatureMatcher``
        does.
        LAF scale = ``6 * 64/63 * scaling_coef`` times the SIFT scale of the default detector: half the side of the
        support region, in pixels; angles are kornia's, counter-clockwise on screen (:mod:`kornia_lift.geometry`
        converts). Descriptors are unit vectors.
        The weights are cast to the dtype of the images for the call; they are not moved between devices.
        Call the feature under ``torch.inference_mode()`` unless you need gradients: it is faster and takes less memory.
        While gradients are recorded, activations are computed again in the backward pass instead of being kept.

    Example:
        >>> feature = LIFTFeature(64, pretrained=False).eval()
        >>> lafs, responses, descriptors = feature(torch.rand(1, 3, 96, 128))
        >>> lafs.shape, responses.shape, descriptors.shape
        (torch.Size([1, 64, 2, 3]), torch.Size([1, 64]), torch.Size([1, 64, 128]))

    """

    def __init__(
        self,
        num_features: int = 1000,
        upright: bool | None = None,
        device: Device | None = None,
        *,
        pretrained: bool | str | os.PathLike[str] = True,
        config: ScaleSpaceConfig | None = None,
        affine: bool | nn.Module = False,
        detector: nn.Module | None = None,
        orienter: nn.Module | None = None,
        descriptor: nn.Module | None = None,
        scaling_coef: float | None = None,
        pooled_sizes: Sequence[float] | None = None,
        angles: int | None = None,
        precision: IntegerPrecision | None = None,
        compile: bool = False,
    ) -> None:
        num_features = check_count(num_features, type(self).__name__)
        if device is not None:
            device = check_device(device, type(self).__name__, meta=True)  # before the weights are read
        if config is not None and not isinstance(config, ScaleSpaceConfig):
            raise TypeError(f"config expects a ScaleSpaceConfig or None, got {config!r}")
        if upright is None:
            upright = is_upright(pretrained)
        region = described_region(pretrained) if scaling_coef is None else float(scaling_coef)
        if not 0 < region < math.inf:
            raise ValueError(f"scaling_coef expects a positive factor, got {scaling_coef}")
        if not isinstance(affine, (bool, nn.Module)):
            raise TypeError(f"affine expects True, False or a module (lafs, img) -> lafs, got {affine!r}")
        given = [part for part in (affine, detector, orienter, descriptor) if isinstance(part, nn.Module)]
        if detector is None:
            check_has_response(pretrained)
            detector = LIFTDetector(num_features, config, pretrained=pretrained, precision=precision or "auto")
        elif config is not None:
            raise ValueError("config describes the default detector: give either config or detector")
        if angles is not None and upright and orienter is None:
            raise ValueError("angles describes the orientation, which upright features do not have: give either one")
        if orienter is None:
            orienter = PassLAF() if upright else orienter_of(pretrained, angles, precision)
            if compile and not upright:
                orienter.angle_detector.compile()
        elif angles is not None:
            raise ValueError("angles describes the default orientation stage: give either angles or orienter")
        if descriptor is None:
            descriptor = descriptor_of(pretrained, (1.0,) if pooled_sizes is None else pooled_sizes, precision)
            if compile:
                descriptor.descriptor.features.compile()  # what runs where the inference path does not
        elif pooled_sizes is not None:
            raise ValueError("pooled_sizes describes the default descriptor: give either pooled_sizes or descriptor")
        super().__init__(detector, descriptor, region)
        self.orienter = orienter
        if isinstance(affine, bool):
            affine = shape_of(pretrained, precision) if affine else PassLAF()
        self.affine = affine
        if pretrained is not False:
            self.training = False
            for part in self.children():
                if not any(part is mine for mine in given):
                    part.eval()
        if device is not None:
            self.to(device)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] = "lift", **kwargs: Any) -> LIFTFeature:
        """Build the feature with the weights ``name``: a shipped model or the path of a ``.safetensors`` file.

        Args:
            name: name or path, see ``pretrained``.
            kwargs: further arguments of the constructor.

        """
        return cls(pretrained=name, **kwargs)

    @property
    def sees_colour(self) -> bool:
        """Whether the detector sees colours; orientation and descriptor see gray images."""
        return sees_colour(self.detector)

    def extra_repr(self) -> str:
        pooled = f", pooled_sizes={self.descriptor.sizes}" if isinstance(self.descriptor, PatchDescriptor) else ""
        return f"scaling_coef={self.scaling_coef}{pooled}"

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        who = type(self).__name__
        check_image(img, who, value_range=True)
        if mask is not None:
            check_mask(mask, img, who)
        self._check_device(img)
        same = all(t.dtype == img.dtype for _, t in self._floating_state())
        return (self if same else in_dtype(self, img.dtype))._run(img, mask)

    def _run(self, img: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        gray = as_gray(img)
        lafs, responses = self.detector(as_seen(img, self.detector), mask)
        filled = laf_is_filled(lafs)
        lafs, descs = self._orient_and_describe(gray, lafs, filled)
        return lafs, responses, descs

    def _floating_state(self) -> list[tuple[str, Tensor]]:
        state = [*self.named_parameters(), *self.named_buffers()]
        return [(name, tensor) for name, tensor in state if tensor.is_floating_point()]

    def _check_device(self, img: Tensor) -> None:
        for name, tensor in self._floating_state():
            if tensor.device != img.device:
                raise DeviceError(
                    f"{type(self).__name__} expects images on the device of its weights, got images on {img.device} "
                    f"and {name} on {tensor.device}; move one of them with `.to(...)`",
                    actual_devices=[img.device, tensor.device],
                )

    def _orient_and_describe(self, gray: Tensor, lafs: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Run the patch networks on the slots up to the last keypoint, and zero what is empty."""
        slots = lafs.shape[1]
        if not len(lafs) or not slots:
            return lafs, self.descriptor(gray, lafs)
        used = slots
        if not torch.compiler.is_compiling():  # a graph has the same shapes for all images
            # one slot at least: it gives the width of the descriptor
            used = max(int(filled.any(0).nonzero().max()) + 1 if filled.any() else 1, 1)
        shared = shared_pyramid(gray, lafs)  # of LIFT's own parts
        part, orienter, descriptor = lafs[:, :used], self.orienter, self.descriptor
        part = self.affine(part, shared if isinstance(self.affine, LAFShapeEstimator) else gray)
        if isinstance(orienter, PatchOrienter) and isinstance(descriptor, PatchDescriptor) and orienter.angles > 1:
            frames, weights = orienter.candidates(part, shared)
            frames = [self._described_frames(each, filled[:, :used]) for each in frames]
            part, descs = frames[0], descriptor.average(shared, frames, weights * filled[:, :used, None])
        else:
            part = orienter(part, shared if isinstance(orienter, PatchOrienter) else gray)
            part = self._described_frames(part, filled[:, :used])
            descs = descriptor(shared if isinstance(descriptor, PatchDescriptor) else gray, part)
        descs = torch.where(filled[:, :used, None], descs, torch.zeros_like(descs))
        rest = slots - used
        return F.pad(part, (0, 0, 0, 0, 0, rest)), F.pad(descs, (0, 0, 0, rest))

    def _described_frames(self, lafs: Tensor, filled: Tensor) -> Tensor:
        lafs = scale_laf(lafs, self.scaling_coef)
        return torch.where(filled[..., None, None], lafs, torch.zeros_like(lafs))
