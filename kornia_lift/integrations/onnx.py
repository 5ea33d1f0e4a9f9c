"""The networks as ONNX files, for onnxruntime, TensorRT and other programs without torch.

Each network is a file of its own: the response for images of any size, orientation and descriptor for any number of
patches. The detector's search for maxima, and with it the whole feature, has as many results as an image has
keypoints, with choices in between that depend on values: it is not exported. Cut patches as
:mod:`kornia_lift.geometry` says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse

#: Names of the input and the output of each network.
NAMES: dict[type[nn.Module], tuple[str, str]] = {
    LIFTResponse: ("image", "score"),
    LIFTOrientation: ("patches", "angle"),
    LIFTDescriptor: ("patches", "descriptors"),
}


def example_input(network: nn.Module) -> Tensor:
    """Return an input of some size that the network accepts."""
    return torch.rand(2, 1, 48, 56) if isinstance(network, LIFTResponse) else torch.rand(12, 1, 64, 64)


def export_program(network: nn.Module) -> torch.export.ExportedProgram:
    """Return a network as a ``torch.export`` program with free batch, and free height and width for the response.

    Args:
        network: :class:`~kornia_lift.LIFTResponse`, :class:`~kornia_lift.LIFTOrientation` or
            :class:`~kornia_lift.LIFTDescriptor`, in eval mode.

    Raises:
        TypeError: if it is another module.

    """
    if type(network) not in NAMES:
        known = ", ".join(kind.__name__ for kind in NAMES)
        raise TypeError(f"export expects one of {known}, got {type(network).__name__}")
    with torch.no_grad():
        return torch.export.export(network, (example_input(network),), dynamic_shapes=(_dynamic(network),))


def _dynamic(network: nn.Module) -> dict[int, Any]:
    axes = (0, 2, 3) if isinstance(network, LIFTResponse) else (0,)
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


def export_onnx(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network as one ONNX file, weights included.

    Args:
        network: see :func:`export_program`; moved nowhere, so that CPU weights give a file for any machine.
        path: the file to write.

    Raises:
        TypeError: if it is none of the three networks.
        MissingExtraError: if onnxscript is not installed: ``pip install 'kornia_lift[onnx]'``.

    """
    require("onnxscript", extra="onnx")
    program = export_program(network.eval())
    source, target = NAMES[type(network)]
    with atomic_write(path) as temporary, torch.no_grad():
        torch.onnx.export(
            program,
            f=temporary,
            input_names=[source],
            output_names=[target],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def run_onnx(path: str | os.PathLike[str], x: Tensor) -> NDArray[np.float32]:
    """Run an exported network in onnxruntime on the CPU.

    Raises:
        MissingExtraError: if onnxruntime is not installed.

    """
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(Path(path)), options, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    found: NDArray[np.float32] = out
    return found
