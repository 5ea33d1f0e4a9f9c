"""Networks, detector and the whole feature as ONNX files, for onnxruntime and other programs without torch.

Each network is a file of its own: the response for images of any size, the others for any number of patches. Detector
and feature are made for images of one size, since the levels of the scale space depend on it; what they compute then
has the same shapes for all images (:mod:`kornia_lift.detector.selection`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.feature import PassLAF
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._extras import MissingExtraError, require
from kornia_lift._io import atomic_write
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.feature import LFNetFeature, LIFTFeature
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.networks.shape import KeypointShape

#: Names of the input and the outputs of each module.
NAMES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    LIFTResponse: ("image", ("score",)),
    DenseResponse: ("image", ("score",)),
    LIFTOrientation: ("patches", ("angle",)),
    PolarOrientation: ("patches", ("angle",)),
    LIFTDescriptor: ("patches", ("descriptors",)),
    CompactDescriptor: ("patches", ("descriptors",)),
    KeypointLocalization: ("patches", ("correction",)),
    KeypointShape: ("patches", ("shape",)),
    LIFTDetector: ("image", ("lafs", "responses")),
    LIFTFeature: ("image", ("lafs", "responses", "descriptors")),
}
_SIZED = (LIFTDetector, LIFTFeature)
_RESPONSES = (LIFTResponse, DenseResponse)
_PATCHES = {LIFTOrientation: (1, 64, 64), LIFTDescriptor: (1, 64, 64), CompactDescriptor: (3, 32, 32)}


def networks_of(feature: LIFTFeature) -> dict[str, nn.Module]:
    """Return the networks of a feature that can be exported, by name: the three of LIFT, or those of a compact model.

    Args:
        feature: with the parts of a model.

    Returns:
        ``"response"``, ``"localization"`` (models that have one), ``"shape"`` (features with affine frames),
        ``"orientation"`` (unless the feature is upright) and ``"descriptor"``.

    Raises:
        TypeError: if the feature is LF-Net's, or one of its networks cannot be exported.

    """
    if isinstance(feature, LFNetFeature):
        raise TypeError(
            "export expects a feature with LIFT's or the compact networks, got LFNetFeature; its networks cannot be "
            "exported"
        )
    detector, descriptor = feature.detector, feature.descriptor  # those of kornia and others are refused below
    affine = feature.affine
    parts = {
        "response": getattr(detector, "resp", detector),
        "localization": getattr(getattr(detector, "localizer", None), "network", None),
        "shape": None if isinstance(affine, PassLAF) else getattr(affine, "network", affine),
        "orientation": getattr(feature.orienter, "angle_detector", None),
        "descriptor": getattr(descriptor, "descriptor", descriptor),
    }
    for part in parts.values():
        if part is not None:
            _check_kind(part)
    return {name: part for name, part in parts.items() if part is not None}


def example_input(network: nn.Module, image_size: tuple[int, int] | None = None) -> Tensor:
    """Return an input that the module accepts, of some size or of a given one (rows, columns)."""
    if image_size is not None:
        return torch.rand(1, 1, *image_size)
    if isinstance(network, _RESPONSES):
        return torch.rand(2, 1, 48, 56)
    return torch.rand(12, *_PATCHES.get(type(network), (1, 32, 32)))


def _check_kind(network: nn.Module) -> None:
    if type(network) not in NAMES:
        known = ", ".join(kind.__name__ for kind in NAMES)
        raise TypeError(f"export expects one of {known}, got {type(network).__name__}")


def export_program(network: nn.Module, image_size: tuple[int, int] | None = None) -> torch.export.ExportedProgram:
    """Return a module as a ``torch.export`` program.

    Args:
        network: in eval mode. The networks of LIFT and the compact ones (:func:`networks_of` a feature) have a free
            batch, the response free height and width too; :class:`~kornia_lift.LIFTDetector` and
            :class:`~kornia_lift.LIFTFeature` take one gray image of ``image_size``.
        image_size: rows and columns, for detector and feature only.

    Raises:
        TypeError: if it is a module of another class.
        ValueError: if the size is missing, or given for a network.
        MissingExtraError: if torch is older than 2.6, for the networks.

    """
    _check_kind(network)
    if isinstance(network, _SIZED) != (image_size is not None):
        raise ValueError(
            f"image_size is needed for a detector or a feature, and not accepted for a network; got {image_size!r} for "
            f"{type(network).__name__}"
        )
    shapes = None if image_size is not None else (_dynamic(network),)
    with torch.no_grad():
        example = (example_input(network, image_size),)
        return torch.export.export(network, example, dynamic_shapes=shapes, strict=False)


def _dynamic(network: nn.Module) -> dict[int, Any]:
    axes = (0, 2, 3) if isinstance(network, _RESPONSES) else (0,)
    if not hasattr(torch.export.Dim, "DYNAMIC"):  # its substitute, AUTO, fails inside torch 2.5
        raise MissingExtraError(
            f"export for inputs of any size needs torch 2.6 or newer, found {torch.__version__}; get it with: "
            "pip install --upgrade torch",
            name="torch",
        )
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


def export_onnx(network: nn.Module, path: str | os.PathLike[str], image_size: tuple[int, int] | None = None) -> None:
    """Write a module as one ONNX file, weights included.

    Args:
        network: see :func:`export_program`; it stays on its device: weights on the CPU give a file for any machine.
        path: the file to write.
        image_size: see :func:`export_program`.

    Raises:
        TypeError: if a module of this class cannot be exported.
        ValueError: if the size is missing, or given for a network.
        MissingExtraError: if onnxscript is not installed: ``pip install 'kornia_lift[onnx]'``.

    """
    require("onnxscript", extra="onnx")
    program = export_program(network.eval(), image_size)
    source, targets = NAMES[type(network)]
    with atomic_write(path) as temporary, torch.no_grad(), _without_advice():
        torch.onnx.export(
            program,
            f=temporary,
            input_names=[source],
            output_names=list(targets),
            dynamo=True,
            external_data=False,
            optimize=image_size is None,  # onnxruntime optimises too; here it takes minutes for thousands of nodes
            verbose=False,
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the exporter from logging a line for every operator of torchvision, which is no dependency here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def run_onnx(path: str | os.PathLike[str], x: Tensor) -> tuple[NDArray[np.float32], ...]:
    """Run an exported module in onnxruntime on the CPU; returns its outputs.

    Raises:
        MissingExtraError: if onnxruntime is not installed.

    """
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(Path(path)), options, providers=["CPUExecutionProvider"])
    return tuple(session.run(None, {session.get_inputs()[0].name: x.numpy()}))
