"""``convert`` and ``export-onnx``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kornia_lift import LIFTFeature, LIFTOrientation
from kornia_lift.convert import TILDEResponse, load_converted
from kornia_lift.weights import WeightFileError
from tests.helpers.cli import Answer


def test_convert(call: Callable[..., Answer], shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "LICENCE").write_text("Only for cats.")
    source = shared / "weights_upstream/NewMexico8_1c.txt"
    answer = call("convert", source, "--out", "tilde.safetensors", "--licence", "LICENCE")
    assert answer.code == 0, answer.err
    assert "tilde: TILDEResponse" in answer.out
    assert "licence: TILDE (Verdie et al., CVPR 2015)" in answer.out
    assert "Only for cats." in answer.out
    assert isinstance(load_converted("tilde.safetensors"), TILDEResponse)
    for network in (LIFTFeature, LIFTOrientation):  # of another network, and of another part
        with pytest.raises(WeightFileError, match=r"one published network \(tilde\), not a model: .*load_converted"):
            network(pretrained="tilde.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.t7", "--out", "a.safetensors"), "no weights absent.t7"),
        (("text.txt", "--out", "a.bin"), "ends in .safetensors"),
        (("text.txt", "--out", "a.safetensors"), "text.txt is not a TILDE filter file"),
        (("text.md", "--out", "a.safetensors"), "say what it is (--kind, in Python kind=): deepdesc, "),
        (("text.txt", "--out", "mine.safetensors"), "--out mine.safetensors exists: remove it or choose another name"),
        (("text.txt", "--out", "a.safetensors", "--licence", "absent"), "--licence absent: expected the file with"),
    ],
)
def test_convert_refuses(call: Callable[..., Answer], tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    for name in ("text.txt", "text.md", "mine.safetensors"):
        (tmp_path / name).write_text("nothing")
    answer = call("convert", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert (tmp_path / "mine.safetensors").read_text() == "nothing"


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs torch 2.6")
def test_export_onnx(call: Callable[..., Answer], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    answer = call("export-onnx", "--out", "networks", "--model", "lift-plus", "--affine")
    assert answer.code == 0, answer.err
    assert "torchvision" not in answer.err
    assert sorted(path.name for path in (tmp_path / "networks").iterdir()) == [
        "descriptor.onnx",
        "localization.onnx",
        "orientation.onnx",
        "response.onnx",
        "shape.onnx",
    ]
    assert answer.out.count("differs from torch by at most") == 5


def test_keypoints_that_exchange_their_rank_are_found_again() -> None:
    import torch

    from kornia_lift.cli.export_onnx import found_again

    lafs = torch.eye(2, 3).repeat(1, 4, 1, 1)
    lafs[0, :, :, 2] = torch.tensor([[10.0, 20], [300, 40], [50, 400], [90, 90]])
    assert found_again(lafs, lafs[:, [1, 0, 2, 3]] + 0.01) == 1
    moved = lafs.clone()
    moved[0, 2, 0, 2] += 1
    assert found_again(lafs, moved) == 0.75


def test_export_refuses_networks_of_lf_net_before_it_writes(call: Callable[..., Answer], tmp_path: Path) -> None:
    answer = call("export-onnx", "--out", "networks", "--model", "lf-net")
    assert answer.code == 2
    assert "got LF-Net's (lf-net), which cannot be exported; choose lift, lift-plus or lift-dense" in answer.err
    assert not (tmp_path / "networks").exists()


def test_export_of_an_unknown_model(call: Callable[..., Answer]) -> None:
    answer = call("export-onnx", "--out", "networks", "--model", "sift")
    assert answer.code == 2
    assert "--model: unknown pretrained model 'sift'" in answer.err
