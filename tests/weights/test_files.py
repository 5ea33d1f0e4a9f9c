"""Weight files: what is read, and that everything else is refused with its reason; nothing is ever unpickled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kornia_lift import LIFTDescriptor, LIFTFeature, LIFTOrientation, LIFTResponse
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.weights import (
    WeightFileError,
    load_tensors,
    network_family,
    read_safetensors,
    save_model,
    write_safetensors,
)
from kornia_lift.weights._registry import FOLDER, MODELS, ShippedModel


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    save = pytest.importorskip("safetensors.torch")
    save.save_file(tensors, path, metadata={"licence": "Apache-2.0", **metadata})
    return path


def response_file(path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None) -> Path:
    tensors = {f"response.{name}": t.clone() for name, t in LIFTResponse(False).state_dict().items()}
    change(tensors)
    return write(path, tensors)


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(2, dtype=torch.float64),
        "half": torch.randn(5).to(torch.bfloat16),
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 7),
        "count": torch.tensor(4),
    }
    found, metadata = read_safetensors(write(tmp_path / "t.safetensors", tensors))
    assert metadata == {"licence": "Apache-2.0"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_networks_load_their_part_and_switch_to_eval(tmp_path: Path) -> None:
    networks = {
        "response": LIFTResponse(False),
        "orientation": LIFTOrientation(False),
        "descriptor": LIFTDescriptor(False),
    }
    tensors = {f"{part}.{name}": t for part, network in networks.items() for name, t in network.state_dict().items()}
    path = write(tmp_path / "all.safetensors", tensors)
    for part, kind in (("response", LIFTResponse), ("orientation", LIFTOrientation), ("descriptor", LIFTDescriptor)):
        loaded = kind(path)
        assert not loaded.training
        for name, tensor in networks[part].state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"oops",
        b"\x80\x02}q\x00X\x01\x00\x00\x00a.",  # a pickle
        b"PK\x03\x04" + b"\x00" * 60,  # torch.save
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"bad\.safetensors is not a readable safetensors file"):
        read_safetensors(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},  # too few bytes
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [400], "data_offsets": [0, 1600]},  # beyond the file
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 0]},
        {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": None, "data_offsets": [0, 16]},
        {"shape": [4], "data_offsets": [0, 16]},
        "text",
    ],
)
def test_headers_that_lie_are_refused(entry: object, tmp_path: Path) -> None:
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00" * 16)
    with pytest.raises(WeightFileError, match="lie"):
        read_safetensors(path)


def raw_file(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, count: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [count], "data_offsets": [begin, begin + 4 * count]}


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ({"a": entry(0, 2), "b": entry(8, 2)}, 16, None),
        ({"a": entry(0, 2), "b": entry(8, 2)}, 1016, "1000 bytes follow the last tensor"),
        ({"a": entry(0, 2), "b": entry(4, 3)}, 16, "its tensors overlap at byte 4"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, 16, "its tensors overlap at byte 0"),
        ({"a": entry(0, 2), "b": entry(12, 1)}, 16, "its tensors leave a gap at byte 8"),
        ({"b": entry(4, 3)}, 16, "its tensors leave a gap at byte 0"),
        ({}, 4, "4 bytes follow the last tensor"),
        ({"a": entry(0, 2, "I32")}, 8, "dtype I32"),
        ({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, 8, "dtype I64"),
        ({"a": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}}, 8, None),
        ({"a": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}}, 8, "has the shape"),
        ({"a": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}}, 8, "has the shape"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}, 8, "not a readable"),
        ({"__metadata__": ["x"], "a": entry(0, 2)}, 8, "not texts"),
        ({"__metadata__": {"x": 1}, "a": entry(0, 2)}, 8, "not texts"),
    ],
)
def test_tensors_tile_the_file_and_are_real(header: object, size: int, reason: str | None, tmp_path: Path) -> None:
    path = raw_file(tmp_path / "odd.safetensors", header, bytes(size))
    if reason is None:
        read_safetensors(path)
        return
    with pytest.raises(WeightFileError, match=reason):
        read_safetensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_no_numbers_are_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    path = write(tmp_path / "nan.safetensors", {"x": torch.tensor([0.0, value], dtype=dtype)})
    with pytest.raises(WeightFileError, match="x contains NaN or infinity"):
        read_safetensors(path)
    with pytest.raises(ValueError, match="x, .* contains NaN or infinity"):
        write_safetensors(tmp_path / "b.safetensors", {"x": torch.tensor([value], dtype=dtype)}, {})
    assert not (tmp_path / "b.safetensors").exists()


def test_written_files_carry_a_checksum_of_everything(tmp_path: Path) -> None:
    """Every bit of the tensors, and every letter of names and metadata, is covered; other readers are not disturbed."""
    load = pytest.importorskip("safetensors.torch").load_file
    tensors = {"a": torch.randn(3, 5).to(torch.float16), "b.c": torch.randn(4), "n": torch.tensor(7)}
    path = tmp_path / "mine.safetensors"
    write_safetensors(path, tensors, {"licence": "mine", "made": "today"})
    found, metadata = read_safetensors(path)
    assert metadata == {"licence": "mine", "made": "today"}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert all(torch.equal(load(path)[name], tensor) for name, tensor in tensors.items())
    raw = path.read_bytes()
    assert b'"sha256":"' in raw
    start = 8 + int.from_bytes(raw[:8], "little")
    changes = [(k, bytes([raw[k] ^ 1])) for k in range(start, len(raw))]
    changes += [(raw.index(b"mine"), b"hers"), (raw.index(b'"b.c"'), b'"b.d"'), (raw.index(b"made"), b"fade")]
    for at, new in changes:
        path.write_bytes(raw[:at] + new + raw[at + len(new) :])
        with pytest.raises(WeightFileError, match="it was changed|NaN or infinity"):
            read_safetensors(path)


def test_every_saved_model_has_a_checksum_and_counts_batches_without_end(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    norm = torch.nn.BatchNorm1d(2)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 70_001  # beyond half precision
    parts = {"response": LIFTResponse(False), "orientation": norm, "descriptor": LIFTDescriptor(False)}
    save_model(tmp_path / "m.safetensors", parts, {"networks": "lift"})
    raw = (tmp_path / "m.safetensors").read_bytes()
    assert b'"sha256":"' in raw
    assert int(read_safetensors(tmp_path / "m.safetensors")[0]["orientation.num_batches_tracked"]) == 70_001
    with pytest.raises(ValueError, match="reserved"):
        write_safetensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"sha256": "0"})


def test_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = response_file(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightFileError, match="does not fit the file"):
        LIFTResponse(path)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["response.conv.scale"] = tensors.pop("response.conv.bias")

    path = response_file(tmp_path / "other.safetensors", rename)
    with pytest.raises(WeightFileError, match=r"missing conv\.bias, not expected conv\.scale \(below"):
        LIFTResponse(path)


def test_other_shapes_are_named(tmp_path: Path) -> None:
    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors["response.conv.weight"] = tensors["response.conv.weight"][..., :21, :21].contiguous()

    path = response_file(tmp_path / "other.safetensors", shrink)
    with pytest.raises(WeightFileError, match=r"\(16, 1, 21, 21\), expected \(16, 1, 25, 25\)"):
        LIFTResponse(path)


def test_damaged_values_are_named(tmp_path: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["response.conv.bias"][3] = float("nan")

    with pytest.raises(WeightFileError, match=r"response\.conv\.bias contains NaN"):
        LIFTResponse(response_file(tmp_path / "nan.safetensors", poison))


def test_a_shipped_file_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = response_file(tmp_path / "shipped.safetensors")
    monkeypatch.setitem(MODELS, "tampered", ShippedModel(str(path), "0" * 64))
    with pytest.raises(WeightFileError, match=r"expected 0000.*install kornia_lift again"):
        LIFTResponse("tampered")


@pytest.mark.parametrize("part", ["descriptor", "orientation"])
@pytest.mark.parametrize("stored", [{}, {"mean": 0.4, "std": 0.2}], ids=["own", "training set"])
@pytest.mark.parametrize("asked", [{}, {"mean": 0.5, "std": 0.3}], ids=["own", "training set"])
def test_the_file_says_how_patches_are_normalised(
    tmp_path: Path, part: str, stored: dict[str, float], asked: dict[str, float]
) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    kind = {"descriptor": LIFTDescriptor, "orientation": LIFTOrientation}[part]
    original = kind(False, **stored).eval()
    path = tmp_path / "mine.safetensors"
    save_file({f"{part}.{k}": v.contiguous() for k, v in original.state_dict().items()}, str(path))
    loaded = kind(path, **asked)
    x = torch.rand(3, 1, 64, 64)
    assert torch.allclose(loaded(x), original(x), atol=1e-6)


def test_a_file_says_which_networks_it_has(tmp_path: Path) -> None:
    assert network_family(True) == network_family(False) == network_family("lift") == "lift"
    assert network_family("lf-net") == network_family(FOLDER / "lf-net.safetensors") == "lfnet"
    one = {"response.conv.bias": torch.zeros(16)}
    assert network_family(write(tmp_path / "silent.safetensors", one)) == "lift"
    assert network_family(write(tmp_path / "compact.safetensors", one, networks="compact")) == "compact"
    with pytest.raises(WeightFileError, match="'tiny', this version has lift, compact"):
        network_family(write(tmp_path / "newer.safetensors", one, networks="tiny"))


def test_only_large_weights_are_rounded(tmp_path: Path) -> None:
    """A count beyond the largest number of half precision, a constant and biases that it would round."""
    pytest.importorskip("safetensors")
    network = torch.nn.BatchNorm1d(2)
    network.conv = torch.nn.Conv2d(1, 2, 3)
    network.num_batches_tracked.fill_(70_000)
    network.register_buffer("eps_of", torch.tensor(0.0123456))
    save_model(tmp_path / "a.safetensors", {"response": network})
    tensors, _ = load_tensors(tmp_path / "a.safetensors")
    assert int(tensors["response.num_batches_tracked"]) == 70_000
    assert float(tensors["response.eps_of"]) == float(torch.tensor(0.0123456))
    assert torch.equal(tensors["response.conv.bias"], network.conv.bias)
    assert torch.equal(tensors["response.conv.weight"], network.conv.weight.half())


def test_a_small_file_makes_no_large_network(tmp_path: Path) -> None:
    tensors, metadata = load_tensors("lift-plus")
    layer, path = "descriptor.features.3.weight", tmp_path / "wide.safetensors"
    # a layer of as many channels would have ten thousand million weights
    write_safetensors(path, {**tensors, layer: torch.zeros(100_000, 1, 1, 1)}, metadata)
    with pytest.raises(WeightFileError, match=f"{re.escape(layer)} of .* has 100000 channels, expected 1024 at most"):
        CompactDescriptor(path)
    write_safetensors(path, {**tensors, layer: torch.zeros(1000, 1, 1, 1)}, metadata)
    with pytest.raises(WeightFileError, match="do not fit"):
        CompactDescriptor(path)


@pytest.mark.parametrize(
    "name",
    [
        "localization.features.0.weight",
        "orientation.features.0.convolution.weight",
        "descriptor.features.0.weight",
    ],
)
@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.ones(8)])
def test_weights_that_decide_the_form_have_that_of_a_convolution(
    name: str, value: torch.Tensor, tmp_path: Path
) -> None:
    tensors = dict(load_tensors("lift-plus")[0])
    assert name in tensors
    path = write(tmp_path / "w.safetensors", {**tensors, name: value}, networks="compact")
    with pytest.raises(WeightFileError):
        LIFTFeature(10, pretrained=path)


def test_models_with_other_networks_are_named() -> None:
    for network in (LIFTOrientation, LIFTDescriptor):
        with pytest.raises(WeightFileError, match=r"which LIFTFeature.pretrained='lift-plus'. builds") as error:
            network("lift-plus")
        assert len(str(error.value)) < 500
