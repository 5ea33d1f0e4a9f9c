"""The features that can be measured, by name, file or model."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_lift.evaluation.features.peers import PEERS, Extractor, local_feature
from kornia_lift.feature import feature_of
from kornia_lift.files import FeatureFileError

AFFINE = "+affine"


@dataclass(frozen=True)
class Candidate:
    """A feature to be measured.

    Args:
        name: name in the tables.
        build: makes the extractor for a number of features; not called if all images are in the cache.
        file: h5 file of ready features instead of an extractor.
        identity: what distinguishes this feature from others of its name, for example a hash of the weights.
    """

    name: str
    build: Callable[[int], Extractor] | None = None
    file: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def candidate(spec: str) -> Candidate:
    """A feature from text: a peer's name, an h5 file of features, a shipped model, a weight file of LIFT or LF-Net.

    ``MODEL+affine`` has frames of an affine shape; ``NAME=SPEC`` gives a feature another name in the tables.

    Raises:
        ValueError: if it is none of these.
    """
    label = ""
    if "=" in spec and not Path(spec).is_file():  # a path may contain "=" itself: lr=0.1/lift.safetensors
        label, _, spec = spec.partition("=")
    if spec in PEERS:
        return Candidate(label or spec, PEERS[spec], identity={"peer": spec})
    path = Path(spec)
    if path.suffix in (".h5", ".hdf5"):
        if not path.is_file():
            raise ValueError(f"feature file {path} does not exist")
        return Candidate(label or path.stem, file=path)
    affine = spec.endswith(AFFINE) and not path.is_file()
    model = spec.removesuffix(AFFINE) if affine else spec
    try:
        feature = feature_of(model, 1, affine=affine)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"unknown feature {spec!r}; available: {', '.join(PEERS)}, an h5 file of features, or a model of LIFT or "
            f"LF-Net by name or by file ({error})"
        ) from None
    name = label or (Path(model).stem + spec.removeprefix(model) if Path(model).suffix else spec)
    return lift_candidate(name, lambda n: feature_of(model, n, affine=affine), feature)


def check_names(candidates: Sequence[Candidate]) -> None:
    """Raise ``FeatureFileError`` if two features have one name, by which tables tell them apart."""
    for name, count in Counter(entry.name for entry in candidates).items():
        if count > 1:
            raise FeatureFileError(f"{count} features are called {name!r}; rename them with NAME=FEATURE")


def lift_candidate(name: str, build: Callable[[int], nn.Module], sample: nn.Module | None = None) -> Candidate:
    """A kornia ``LocalFeature`` whose weights and options distinguish it from others of its name.

    Args:
        name: name in the tables.
        build: makes the feature for a number of keypoints.
        sample: one that was made already.
    """
    sample = sample if sample is not None else build(1)
    identity = {
        "weights_sha256": weights_hash(sample),
        # the printed module shows the options of all parts, such as the scale space, which the weights do not contain
        "options_sha256": hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr(sample)).encode()).hexdigest(),
    }
    return Candidate(name, lambda n: local_feature(build(n), n), identity=identity)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers of a module, in their order."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
