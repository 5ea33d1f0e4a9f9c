"""Published weights become one file that says where it came from, and give the same network again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift import LIFTDescriptor
from kornia_lift.convert import convert, load_converted
from kornia_lift.convert.converted import guess_kind
from kornia_lift.weights import WeightFileError, read_safetensors
from tests.helpers.pictures import texture

safetensors = pytest.importorskip("safetensors.torch")

SOURCES = {
    "CNN3_p8_n8_split4_073000.t7": ("deepdesc", (3, 1, 64, 64)),
    "new-CNN3-picc-iter-56k.h5": ("lift-descriptor", (3, 1, 64, 64)),
    "Mexico24.txt": ("tilde", (1, 1, 40, 50)),
    "Mexico.txt": ("tilde", (1, 1, 40, 50)),
    "efsift": ("learned-orientation", (3, 1, 28, 28)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_there_and_back(shared: Path, tmp_path: Path, name: str) -> None:
    kind, shape = SOURCES[name]
    source, out = shared / "weights_upstream" / name, tmp_path / "weights.safetensors"
    assert guess_kind(source) == kind
    network = convert(source, out, licence="The text of the licence.")
    again = load_converted(out)
    assert not again.training
    x = texture(shape[2], shape[3], batch=shape[0])
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
    _, metadata = read_safetensors(out)
    assert metadata["kind"] == kind
    assert metadata["source"] == name
    assert len(metadata["source_sha256"]) == 64
    assert metadata["licence"].endswith("The text of the licence.")
    if kind in ("deepdesc", "lift-descriptor"):
        with torch.no_grad():
            unit = LIFTDescriptor(out)(x)
        torch.testing.assert_close(unit, torch.nn.functional.normalize(network(x), dim=1), atol=1e-5, rtol=1e-4)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.t7"):
        convert(tmp_path / "absent.t7", tmp_path / "out.safetensors")
    (tmp_path / "a.bin").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"a\.bin: expected a \.t7"):
        convert(tmp_path / "a.bin", tmp_path / "out.safetensors")
    with pytest.raises(WeightFileError, match=r"a\.bin"):
        convert(tmp_path / "a.bin", tmp_path / "out.safetensors", "tilde")
    with pytest.raises(ValueError, match="unknown kind of weights 'sift'"):
        convert(tmp_path / "a.bin", tmp_path / "out.safetensors", "sift")  # type: ignore[arg-type]
    assert not (tmp_path / "out.safetensors").exists()


def test_file_with_other_settings_is_refused_without_building_them(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"response.bias": torch.zeros(16)}, path, {"kind": "tilde", "settings": "{}"})
    with pytest.raises(WeightFileError, match="does not fit the network 'tilde'"):
        load_converted(path)
    huge = {"num_sum": 256, "num_max": 256, "channels": 256, "size": 255, "rank": 0}  # 4 TB
    safetensors.save_file({"response.bias": torch.zeros(16)}, path, {"kind": "tilde", "settings": json.dumps(huge)})
    with pytest.raises(WeightFileError, match="its tensors are not those of the settings"):
        load_converted(path)
    safetensors.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightFileError, match="names no kind"):
        load_converted(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(WeightFileError):
        load_converted(tmp_path / "b.npy")
