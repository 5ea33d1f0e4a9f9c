"""Published weights as ``.safetensors`` files, with where they came from and what their licence says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift.convert.deepdesc import load_deepdesc
from kornia_lift.convert.learned_orientation import LearnedOrientation, load_learned_orientation
from kornia_lift.convert.lift_h5 import load_lift_descriptor
from kornia_lift.convert.tilde import TILDEResponse
from kornia_lift.convert.tilde_files import load_tilde
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.weights import WeightFileError, read_safetensors, write_safetensors

Kind = Literal["deepdesc", "lift-descriptor", "tilde", "learned-orientation"]

#: What is known of the licences; the text that came with the files takes precedence.
LICENCES: dict[str, str] = {
    "deepdesc": "DeepDesc (Simo-Serra et al., ICCV 2015): the authors' release; read the licence that came with it",
    "lift-descriptor": "LIFT (Yi et al., ECCV 2016): academic use only, and the method is patented by EPFL; read the "
    "licence that came with it",
    "tilde": "TILDE (Verdie et al., CVPR 2015): research use; read the licence that came with it",
    "learned-orientation": "Learning to Assign Orientations (Yi et al., CVPR 2016): academic use; read the licence "
    "that came with it",
}
_LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "deepdesc": load_deepdesc,
    "lift-descriptor": load_lift_descriptor,
    "tilde": load_tilde,
    "learned-orientation": load_learned_orientation,
}
_PARTS = {
    "deepdesc": "descriptor",
    "lift-descriptor": "descriptor",
    "tilde": "response",
    "learned-orientation": "orientation",
}
_TILDE_SETTINGS = ("num_sum", "num_max", "channels", "size", "rank")


def guess_kind(path: str | os.PathLike[str]) -> Kind:
    """Return what a file or folder seems to hold, by its name.

    Raises:
        ValueError: if the name does not say.

    """
    path = Path(path)
    by_suffix: dict[str, Kind] = {".t7": "deepdesc", ".h5": "lift-descriptor", ".txt": "tilde"}
    if path.is_dir():
        return "learned-orientation"
    if path.suffix not in by_suffix:
        raise ValueError(
            f"{path}: expected a .t7 (DeepDesc), .h5 (LIFT), .txt (TILDE) file or a folder of .npy files (learned "
            f"orientation); of another name, say what it is (--kind, in Python kind=): {', '.join(get_args(Kind))}"
        )
    return by_suffix[path.suffix]


def convert(
    source: str | os.PathLike[str], out: str | os.PathLike[str], kind: Kind | None = None, licence: str = ""
) -> nn.Module:
    """Read published weights and write them as a ``.safetensors`` file for :func:`load_converted`.

    Args:
        source: the user's copy: a file, or a folder for ``"learned-orientation"``.
        out: the file to write. That of a descriptor is also accepted by :class:`~kornia_lift.LIFTDescriptor`.
        kind: what the source is. ``None``: guessed from its name.
        licence: text of the licence that came with the source; kept in the file after what is known of it.

    Returns:
        The network.

    Raises:
        FileNotFoundError: if the source does not exist.
        kornia_lift.weights.WeightFileError: if the source is damaged, or not what ``kind`` says.
        ValueError: if the kind is unknown.
        MissingExtraError: if safetensors is not installed: ``pip install 'kornia_lift[convert]'``.

    """
    require("safetensors.torch", extra="convert")  # before the work
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"no weights {source}")
    kind = guess_kind(source) if kind is None else kind
    if kind not in _LOADERS:
        raise ValueError(f"unknown kind of weights {kind!r}: expected one of {', '.join(_LOADERS)}")
    network = _LOADERS[kind](source)
    settings: dict[str, Any] = {}
    if isinstance(network, TILDEResponse):
        settings = {name: getattr(network, name) for name in _TILDE_SETTINGS}
    metadata = {
        "kind": kind,
        "settings": json.dumps(settings),
        "source": source.name,
        "source_sha256": _digest(source),
        "licence": "\n\n".join(filter(None, [LICENCES[kind], licence.strip()])),
    }
    write_safetensors(out, {f"{_PARTS[kind]}.{name}": t for name, t in network.state_dict().items()}, metadata)
    return network


def load_converted(path: str | os.PathLike[str]) -> nn.Module:
    """Load the network of a file that :func:`convert` wrote, in eval mode.

    Returns:
        :class:`~kornia_lift.LIFTDescriptor`, without normalisation of its output as published,
        :class:`~kornia_lift.convert.TILDEResponse` or :class:`~kornia_lift.convert.LearnedOrientation`.

    Raises:
        FileNotFoundError: if there is no such file.
        kornia_lift.weights.WeightFileError: if the file is damaged, or was not written by :func:`convert`.

    """
    tensors, metadata = read_safetensors(path)
    kind = metadata.get("kind", "")
    if kind not in _LOADERS:
        raise WeightFileError(f"{path} was not written by `kornia-lift convert`: its metadata names no kind of weights")
    prefix = f"{_PARTS[kind]}."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    try:
        network = _empty(kind, json.loads(metadata.get("settings", "{}")), state)
        network.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise WeightFileError(f"{path} does not fit the network {kind!r}: {error}") from error
    return network.eval()


def _empty(kind: str, settings: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    if kind == "tilde":
        values = [settings[name] for name in _TILDE_SETTINGS]
        if not all(isinstance(value, int) and 0 <= value <= 256 for value in values):
            raise ValueError(f"settings {settings}")
        with torch.device("meta"):  # nothing is allocated before the shapes are known to agree
            network = TILDEResponse(*values)
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in state.items()}:
            raise ValueError(f"its tensors are not those of the settings {settings}")
        return TILDEResponse(*values)
    if kind == "learned-orientation":
        return LearnedOrientation()
    return LIFTDescriptor(pretrained=False, normalize=False)


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(source.glob("*.npy")) if source.is_dir() else [source]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
