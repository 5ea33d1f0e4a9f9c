"""Find a model by name or path, check it, and put its tensors into a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import cast, get_args

from torch import Tensor, nn

from kornia_lift.weights._registry import DEFAULT_MODEL, FOLDER, MODELS, NETWORKS, Family, ShippedModel, ShippedNetwork
from kornia_lift.weights._safetensors import WeightFileError, parse_safetensors, read_safetensors

LARGEST_WIDTH = 1024  # channels that a file may ask a network to have


def available_models() -> tuple[str, ...]:
    """Return the names of the models that the package ships.

    :class:`~kornia_lift.LIFTFeature` takes all as ``pretrained`` except those of LF-Net, which are for
    :class:`~kornia_lift.feature.lfnet.LFNetFeature`; :func:`~kornia_lift.feature.feature_of` takes any.
    """
    return tuple(MODELS)


def is_upright(pretrained: bool | str | os.PathLike[str]) -> bool:
    """Return whether a shipped model leaves frames upright; false for files and random weights."""
    model = _shipped(pretrained)
    return model is not None and model.upright


def network_family(pretrained: bool | str | os.PathLike[str]) -> Family:
    """Return which networks a model has: a file says so in its metadata, random weights are for LIFT's.

    Raises:
        WeightFileError: if a file names networks that this version does not have; see also :func:`load_tensors`.

    """
    if isinstance(pretrained, bool):
        return "lift"
    if (model := _shipped(pretrained)) is not None:
        return model.family
    family = load_tensors(pretrained)[1].get("networks", "lift")
    if family not in get_args(Family):
        raise WeightFileError(
            f"{pretrained} holds weights for networks named {family!r}, this version has "
            f"{', '.join(get_args(Family))}: install a newer kornia_lift"
        )
    return cast(Family, family)


def _shipped(pretrained: bool | str | os.PathLike[str]) -> ShippedModel | None:
    # other types are refused when the weights are loaded
    return MODELS.get(os.fspath(pretrained)) if isinstance(pretrained, (str, os.PathLike)) else None


def load_tensors(
    pretrained: bool | str | os.PathLike[str], part: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a shipped model or of a ``.safetensors`` file.

    Args:
        pretrained: ``True`` for the default model, the name of a shipped model, or the path of a file.
        part: prefix of the wanted tensors: the error about an unknown name lists what has them.

    Returns:
        Tensors by name (``response.*``, ``orientation.*``, ``descriptor.*``) and the metadata of the file.

    Raises:
        TypeError: if ``pretrained`` is none of these.
        ValueError: if the name is unknown.
        FileNotFoundError: if the path does not exist.
        WeightFileError: if the file is damaged, or a shipped file does not have the registered checksum.

    """
    if pretrained is not True and not isinstance(pretrained, (str, os.PathLike)):
        raise TypeError(
            f"pretrained expects True, False, the name of a model ({', '.join(MODELS)}) or the path of a .safetensors "
            f"file, got {pretrained!r}"
        )
    name = DEFAULT_MODEL if pretrained is True else os.fspath(pretrained)
    shipped: dict[str, ShippedModel | ShippedNetwork] = {**MODELS, **NETWORKS}
    if name in shipped:
        path = FOLDER / shipped[name].file
        raw = path.read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        if digest != shipped[name].sha256:
            raise WeightFileError(
                f"{path} has sha256 {digest}, expected {shipped[name].sha256}: the installed file was changed or cut "
                "off; install kornia_lift again"
            )
        return parse_safetensors(raw, checked=True)
    path = Path(name)
    if path.suffix != ".safetensors" and not path.exists():
        known = [n for n, network in NETWORKS.items() if network.part == part] or list(MODELS)
        similar = get_close_matches(str(name).lower().replace("_", "-"), known, 1, 0.8)
        raise ValueError(
            f"unknown pretrained model {name!r}: expected one of {', '.join(known)}, or the path of a .safetensors file"
            + "".join(f"; did you mean {each}?" for each in similar)
        )
    if not path.exists():
        raise FileNotFoundError(f"no weight file {path}")
    return read_safetensors(path)


def has_part(pretrained: bool | str | os.PathLike[str], part: str) -> bool:
    """Return whether a model has tensors ``<part>.*``.

    Args:
        pretrained: as in :func:`load_tensors`.
        part: such as ``"localization"``, which some models have.

    """
    return any(name.startswith(part + ".") for name in load_tensors(pretrained)[0])


def default_network(part: str, who: str, advice: str) -> str:
    """Return the name of the shipped weights of ``pretrained=True`` for a network that is not part of a feature.

    Args:
        part: prefix of the tensors, such as ``"correspondence"``.
        who: name of the class, for the error.
        advice: how to get weights otherwise, for the error.

    Raises:
        ValueError: if the package ships none.

    """
    names = [name for name, network in NETWORKS.items() if network.part == part]
    if not names:
        raise ValueError(f"kornia_lift ships no weights of {who}: {advice}, or use pretrained=False for random ones")
    return names[0]


def widths_of(pretrained: bool | str | os.PathLike[str], layers: Iterable[str]) -> list[int]:
    """Return the output channels of layers of a model, so that a network of the same widths can be built.

    Args:
        pretrained: as in :func:`load_tensors`.
        layers: full names of their weights; names after the first missing one are ignored.

    Raises:
        WeightFileError: if a layer has so many channels that the network might not fit into memory, however small the
            file is.

    """
    if not isinstance(pretrained, (str, os.PathLike)):
        return []
    tensors = load_tensors(pretrained)[0]
    weights = {name: tensors[name] for name in takewhile(tensors.__contains__, layers)}
    for name, weight in weights.items():
        if weight.dim() < 2:
            raise WeightFileError(
                f"{name} of {pretrained} has shape {tuple(weight.shape)}, expected the weight of a convolution"
            )
    widths = {name: len(weight) for name, weight in weights.items()}
    for name, width in widths.items():
        if width > LARGEST_WIDTH:
            raise WeightFileError(f"{name} of {pretrained} has {width} channels, expected {LARGEST_WIDTH} at most")
    return list(widths.values())


def load_network(network: nn.Module, part: str, pretrained: bool | str | os.PathLike[str]) -> None:
    """Load the tensors ``<part>.*`` of a model into ``network`` and switch it to eval mode.

    Args:
        network: the module to fill; every parameter and persistent buffer must be in the file, except those among its
            ``optional_buffers``, which the module has if the file has them.
        part: ``"response"``, ``"orientation"`` or ``"descriptor"``.
        pretrained: as in :func:`load_tensors`.

    Raises:
        WeightFileError: if tensors are missing, surplus, or of another shape; see also :func:`load_tensors`.

    """
    tensors, metadata = load_tensors(pretrained, part)
    prefix = part + "."
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if not found:
        held = ", ".join(sorted({name.split(".")[0] for name in tensors})) or "nothing"
        raise WeightFileError(
            f"the weights {pretrained!r} are of {held}, not of {type(network).__name__} ({prefix}*)"
            + _converted(metadata)
        )
    weight = next(network.parameters())
    for name in getattr(network, "optional_buffers", ()):
        network.register_buffer(name, weight.new_zeros(found[name].shape) if name in found else None)
    expected = network.state_dict()
    where = f"the weights {pretrained!r} for {type(network).__name__}"
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or surplus:
        another = _converted(metadata)
        if not another and len(missing) > 1 and len(surplus) > 1:
            another = f"; they seem to be of another network, which LIFTFeature(pretrained={pretrained!r}) builds"
        raise WeightFileError(
            f"{where} do not fit: missing {_some(missing)}, not expected {_some(surplus)} (below {prefix!r}){another}"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise WeightFileError(
                f"{where} do not fit: {prefix}{name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}; were the constructor arguments those of the training?"
            )
    network.load_state_dict(found)
    network.eval()


def _converted(metadata: Mapping[str, str]) -> str:
    """What to do with a file of `kornia-lift convert`, which holds one network, not a model."""
    if "kind" not in metadata:
        return ""
    return (
        f"; the file holds one published network ({metadata['kind']}), not a model: load it by "
        "kornia_lift.convert.load_converted and give it to mix_features as a part (docs/integrations.md)"
    )


def _some(names: list[str], most: int = 3) -> str:
    """List names, only the first few if there are many."""
    listed = ", ".join(names[:most]) or "nothing"
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
