"""Published descriptors load from their own files, reproduce their oracles, and damaged files are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift import LIFTDescriptor
from kornia_lift.convert import load_deepdesc, load_lift_descriptor
from kornia_lift.convert.torch7 import read_t7
from kornia_lift.weights import WeightFileError
from tests.helpers.torch7 import torch7

DEEPDESC = "weights_upstream/CNN3_p8_n8_split4_073000.t7"
LIFT = "weights_upstream/new-CNN3-picc-iter-56k.h5"


def describe(network: LIFTDescriptor, patches: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(patches).float()[:, None] / 255).numpy()


def test_lift_descriptor_reproduces_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/lift_desc_picc56k.npz")
    found = describe(load_lift_descriptor(shared / LIFT), oracle["patches"])
    assert np.abs(found - oracle["descriptors"]).max() < 1e-4


def test_deepdesc_reproduces_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/deepdesc_t7.npz")
    found = describe(load_deepdesc(shared / DEEPDESC), oracle["patches"])
    assert np.abs(found - oracle["split4"]).max() < 1e-4


def test_unit_vectors_on_request(shared: Path) -> None:
    network = load_deepdesc(shared / DEEPDESC, normalize=True)
    assert np.allclose(np.linalg.norm(describe(network, np.full((1, 64, 64), 90.0)), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("load", [load_lift_descriptor, load_deepdesc, read_t7])
def test_missing_file_is_named(load, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bin"):
        load(tmp_path / "nowhere.bin")


@pytest.mark.parametrize("load", [load_lift_descriptor, load_deepdesc, read_t7])
@pytest.mark.parametrize("content", [b"", b"\x04\x00", b"\x00" * 3, b"not a weight file at all" * 20, b"\xff" * 400])
def test_other_files_are_refused(load, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"file\.bin"):
        load(path)


@pytest.mark.parametrize("length", [100, 5_000, 400_000])
def test_truncated_t7_is_refused(shared: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.t7"
    path.write_bytes((shared / DEEPDESC).read_bytes()[:length])
    with pytest.raises(WeightFileError, match=r"cut\.t7"):
        load_deepdesc(path)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    # a table that holds a table that holds a table ...: type 3, a new index, one entry, key nil
    nested = b"".join(np.array([3, i, 1], "<i4").tobytes() for i in range(5000))
    path = tmp_path / "deep.t7"
    path.write_bytes(nested)
    with pytest.raises(WeightFileError, match="nested deeper"):
        read_t7(path)


@pytest.mark.parametrize("storage", ["boolean", "number", "string", "table"])
def test_tensors_without_a_storage_are_refused(tmp_path: Path, storage: str) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<i", len(value)) + value.encode()

    stored = {
        "boolean": struct.pack("<ii", 5, 1),
        "number": struct.pack("<id", 1, 3.0),
        "string": struct.pack("<i", 2) + text("abcdef"),
        "table": struct.pack("<iii", 3, 2, 2) + b"".join(struct.pack("<idid", 1, k, 1, 0) for k in (1, 2)),
    }[storage]
    head = struct.pack("<ii", 4, 1) + text("V 1") + text("torch.FloatTensor")
    (tmp_path / "odd.t7").write_bytes(head + struct.pack("<iqqq", 1, 2, 1, 1) + stored)
    with pytest.raises(WeightFileError, match=r"odd\.t7 is not a readable Torch7 .*a tensor whose storage is"):
        read_t7(tmp_path / "odd.t7")


def test_values_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "small.t7"
    torch7(path)
    found = read_t7(path)
    assert found["flag"] is True
    assert found["x"].tolist() == [[1, 2], [3, 4]]
    assert found["again"] is found["x"]


def test_other_network_is_refused(shared: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.h5"
    path.write_bytes((shared / LIFT).read_bytes())
    with h5py.File(path, "r+") as file:
        file["layers"][1] = 6
    with pytest.raises(WeightFileError, match=r"expected the layers \[1, 5, 4"):
        load_lift_descriptor(path)
    with h5py.File(path, "r+") as file:
        file["layers"][1] = 5
        del file["l-5-weights"]
    with pytest.raises(WeightFileError, match="l-5-weights"):
        load_lift_descriptor(path)
