"""The models that are shipped: their names, their files, and what happens where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_lift import LIFTDescriptor, LIFTResponse
from kornia_lift.detector.model import response_of
from kornia_lift.networks import CompactDescriptor
from kornia_lift.weights import (
    WeightFileError,
    available_models,
    load_tensors,
)
from kornia_lift.weights._registry import FOLDER, MODELS


def test_unknown_names_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown pretrained model 'liftt'"):
        LIFTResponse("liftt")
    with pytest.raises(FileNotFoundError, match="none"):
        LIFTResponse(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", [name for name in available_models() if not MODELS[name].family.startswith("lfnet")])
def test_shipped_models_load_and_say_where_they_come_from(name: str) -> None:
    tensors, metadata = load_tensors(name)
    assert {key.partition(".")[0] for key in tensors} >= {"response", "descriptor"}
    assert metadata, f"{name} carries no provenance"
    assert (FOLDER / MODELS[name].file).stat().st_size < 50e6
    described = CompactDescriptor if MODELS[name].family == "compact" else LIFTDescriptor
    assert not response_of(name).training
    assert not described(name).training


def test_shipped_filter_is_small_complete_and_the_default() -> None:
    from kornia_lift.networks.correspondence import CorrespondenceNet
    from kornia_lift.weights._registry import NETWORKS

    assert (FOLDER / NETWORKS["cne-small"].file).stat().st_size < 2e6
    network, named = CorrespondenceNet(pretrained=True), CorrespondenceNet("cne-small")
    assert network.side
    assert not network.training
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), named.parameters(), strict=True))


def test_network_without_shipped_weights_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    from kornia_lift.networks.correspondence import CorrespondenceNet
    from kornia_lift.weights._registry import NETWORKS

    for name in list(NETWORKS):
        monkeypatch.delitem(NETWORKS, name)
    with pytest.raises(ValueError, match=r"ships no weights of CorrespondenceNet: train one .* pretrained=False"):
        CorrespondenceNet(pretrained=True)


def test_changed_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from kornia_lift.networks.correspondence import CorrespondenceNet
    from kornia_lift.weights._registry import NETWORKS

    monkeypatch.setitem(NETWORKS, "cne-small", dataclasses.replace(NETWORKS["cne-small"], sha256="0" * 64))
    with pytest.raises(WeightFileError, match="install kornia_lift again"):
        CorrespondenceNet(pretrained=True)


def test_an_unknown_name_is_answered_by_names_that_would_do() -> None:
    from kornia_lift.networks.correspondence import CorrespondenceNet

    with pytest.raises(ValueError, match="unknown pretrained model 'nosuch': expected one of cne-small, or the path"):
        CorrespondenceNet("nosuch")
    with pytest.raises(ValueError, match="expected one of lift, (?!.*cne-small)"):
        LIFTDescriptor("nosuch")
