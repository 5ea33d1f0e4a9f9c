"""Weights that a run starts from: of a shipped model, or of a run of one's own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import nn

from kornia_lift._io import DamagedFileError, atomic_write, parse_json, read_text
from kornia_lift.weights import load_network, load_tensors, network_family

INITIAL = "initial.json"
Model = str | os.PathLike[str]


def check_family(init: Model, family: str) -> None:
    """Check that a model has the networks of a recipe.

    Args:
        init: the name of a shipped model, or a ``.safetensors`` file.
        family: the networks that the recipe has, see :func:`kornia_lift.weights.network_family`.

    Raises:
        ValueError: if it has others.
        FileNotFoundError: if there is no such file.

    """
    found = network_family(init)
    if found != family:
        others = {"lift": "modern", "compact": "compact", "lfnet": "lfnet"}
        raise ValueError(
            f"--init {init}: its networks are of the family {found!r}, those of this recipe of {family!r}; "
            f"use the recipe {others[found]}, or weights of the family {family!r}"
        )


def load_initial(init: Model, parts: dict[str, nn.Module]) -> None:
    """Put the weights of a model into the networks of a recipe.

    Args:
        init: the name of a shipped model, or a ``.safetensors`` file.
        parts: such as ``response``, ``orientation`` and ``descriptor``.

    Raises:
        ValueError: if its tensors have other shapes.
        FileNotFoundError: if there is no such file.

    """
    for part, network in parts.items():
        load_network(network, part, init)
        network.requires_grad_(True)


def weights_digest(model: Model) -> str:
    """Digest of the networks and values of a model, the same for a file, its copies, and one of other dtypes."""
    tensors, _ = load_tensors(model)
    digest = hashlib.sha256(network_family(model).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].to(torch.float32).numpy().tobytes())
    return digest.hexdigest()


def check_initial(out: Path, init: Model | None, begun: bool) -> None:
    """Check that a run continues from the weights that it was started from.

    Args:
        out: folder of the run.
        init: the weights now; None for random ones.
        begun: whether the folder holds a run already.

    Raises:
        ValueError: if it was started from other weights.

    """
    if not begun:
        return
    before = _recorded(out)
    now = weights_digest(init) if init is not None else None
    if (before[1] if before else None) != now:
        was = f"the weights {before[0]}" if before else "random weights"
        again = f"with --init {before[0]}" if before else "without --init"
        asked = f"the weights {init}" if init is not None else "random ones"
        raise ValueError(
            f"{out} was started from {was}, not from {asked}; continue {again}"
            f"{' (the file must not have changed)' if before else ''}, or choose another --out"
        )


def keep_initial(out: Path, init: Model) -> None:
    """Write down what a run starts from."""
    record = {"init": os.fspath(init), "weights_sha256": weights_digest(init)}
    with atomic_write(out / INITIAL) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _recorded(out: Path) -> tuple[str, str] | None:
    path = out / INITIAL
    if not path.exists():
        return None
    try:
        record = parse_json(read_text(path))
        return str(record["init"]), str(record["weights_sha256"])
    except (DamagedFileError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}, which says what the run started from, is damaged ({error}); choose another --out"
        ) from None
