"""The script that puts a weight file together from parts."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kornia_lift import LIFTFeature
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.training.loop.checkpoint import BEST, save_checkpoint
from kornia_lift.weights import WeightFileError, load_tensors, network_family
from tests.helpers.repository import load_script

pytest.importorskip("safetensors")


@pytest.fixture
def script() -> ModuleType:
    return load_script("scripts/assemble_weights.py")


def run_with(folder: Path, network: torch.nn.Module) -> Path:
    """A run whose last stage trained the descriptor, after another one."""
    for stage, change in (("descriptor", 1.0), ("refine", 0.0)):
        (folder / stage).mkdir(parents=True)
        weights = {n: t + change if t.is_floating_point() else t for n, t in network.state_dict().items()}
        save_checkpoint(folder / stage / BEST, {"network": weights})
    return folder


def as_stored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def test_parts_come_from_models_files_and_runs(script: ModuleType, tmp_path: Path) -> None:
    network = CompactDescriptor(False)
    run, out = run_with(tmp_path / "run", network), tmp_path / "new.safetensors"
    assert script.main(["lift", "lift-plus", str(run), "--out", str(out), "--note", "made=by a test"]) == 0
    tensors, notes = load_tensors(out)
    assert notes["made"] == "by a test" and network_family(out) == "compact"
    for source, part in (("lift", "response"), ("lift-plus", "orientation")):
        expected = {n: t for n, t in load_tensors(source)[0].items() if n.startswith(part)}
        assert expected and all(torch.equal(tensors[n], t) for n, t in expected.items())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensors[f"descriptor.{name}"], as_stored(tensor))
    again = tmp_path / "again.safetensors"
    script.main([str(out), str(out), str(run / "descriptor"), "--out", str(again)])
    name = "descriptor.features.0.weight"
    torch.testing.assert_close(load_tensors(again)[0][name], (network.state_dict()["features.0.weight"] + 1).half())


def test_a_model_may_have_a_localization(script: ModuleType, tmp_path: Path) -> None:
    network, run, out = KeypointLocalization(False), tmp_path / "run", tmp_path / "new.safetensors"
    (run / "localization").mkdir(parents=True)
    save_checkpoint(run / "localization" / BEST, {"network": network.state_dict()})
    script.main(["lift", "lift-plus", "lift-plus", "--localization", str(run), "--out", str(out)])
    localizer = LIFTFeature(pretrained=out).detector.localizer
    weight = localizer.network.state_dict()["features.0.weight"]
    torch.testing.assert_close(weight, network.state_dict()["features.0.weight"].half().float())
    with pytest.raises(SystemExit, match="lift has no localization"):
        script.main(["lift", "lift-plus", "lift-plus", "--localization", "lift", "--out", str(out)])


def test_averaged_weights_of_a_checkpoint_come_first(script: ModuleType, tmp_path: Path) -> None:
    network = CompactDescriptor(False)
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    changed = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    save_checkpoint(tmp_path / "last.pt", {"network": changed, "averaged": averaged})
    found, family = script.read_part(str(tmp_path / "last.pt"), "descriptor")
    assert family is None and found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], as_stored(tensor)) for name, tensor in network.state_dict().items())


def test_parts_that_do_not_fit_are_refused(script: ModuleType, tmp_path: Path) -> None:
    out = str(tmp_path / "new.safetensors")
    with pytest.raises(SystemExit, match=r"are \['lift', 'compact'\]: say which by --family"):
        script.main(["lift", "lift", "lift-plus", "--out", out])
    with pytest.raises(WeightFileError, match="do not fit"):
        script.main(["lift", "lift-plus", "lift", "--out", out, "--family", "compact"])
    assert not Path(out).exists()
    with pytest.raises(SystemExit, match="holds no best.pt for the orientation"):
        script.main(["lift", str(tmp_path), "lift-plus", "--out", out])
    with pytest.raises(SystemExit, match="is no shipped model"):
        script.main(["lift", "lift-minus", "lift-plus", "--out", out])


def test_installing_replaces_the_file_and_its_checksum(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights"
    package.mkdir()
    for name in ("_registry.py", "lift-plus.safetensors"):
        shutil.copy(script.FOLDER / name, package / name)
    monkeypatch.setattr(script, "FOLDER", package)
    before = script.MODELS["lift-plus"].sha256
    out = tmp_path / "new.safetensors"
    script.main(["lift", "lift-plus", "lift-plus", "--out", str(out), "--note", "a=b", "--install", "lift-plus"])
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert hashlib.sha256((package / "lift-plus.safetensors").read_bytes()).hexdigest() == digest != before
    text = (package / "_registry.py").read_text()
    assert digest in text and before not in text
    changed = dataclasses.replace(script.MODELS["lift-plus"], sha256=digest)
    monkeypatch.setattr("kornia_lift.weights._load.FOLDER", package)
    monkeypatch.setitem(script.MODELS, "lift-plus", changed)
    assert LIFTFeature(pretrained="lift-plus").descriptor is not None
