"""TILDE and the learned orientation load from their own files, reproduce their oracles, and refuse what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import LAFOrienter, get_laf_orientation, laf_from_center_scale_ori
from torch import Tensor

from kornia_lift import LIFTDetector
from kornia_lift._kornia import laf_is_filled
from kornia_lift.convert import TILDEResponse, load_learned_orientation, load_tilde, tilde_channels
from kornia_lift.convert.tilde import GAIN
from kornia_lift.weights import WeightFileError, write_safetensors
from tests.helpers.pictures import texture

UPSTREAM = "weights_upstream"


@pytest.fixture(scope="module")
def oracle(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    shared: Path = request.getfixturevalue("shared")
    return dict(np.load(shared / "oracles/tilde_40x40.npz"))


def rgb(oracle: dict[str, np.ndarray]) -> Tensor:
    return torch.from_numpy(oracle["bgr"][..., ::-1].copy()).permute(2, 0, 1)[None].double() / 255


def test_channels_are_those_of_tilde(oracle: dict[str, np.ndarray]) -> None:
    found = tilde_channels(rgb(oracle))[0].numpy()
    for i, name in enumerate(["gradient x", "gradient y", "magnitude", "L", "u", "v"]):
        np.testing.assert_allclose(found[i], oracle["channels"][i], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("name", ["Mexico24", "Mexico"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tilde_reproduces_the_oracle(
    shared: Path, oracle: dict[str, np.ndarray], name: str, dtype: torch.dtype
) -> None:
    network = load_tilde(shared / UPSTREAM / f"{name}.txt")
    assert not network.training
    with torch.no_grad():
        score = network(rgb(oracle).to(dtype))[0, 0].numpy() / GAIN
        if name == "Mexico24":
            responses = network.responses(rgb(oracle).to(dtype))[0].numpy()
            expected = oracle["Mexico24_resp"]
            assert np.abs(responses - expected).max() < 1e-4 * np.abs(expected).max()
    expected = oracle[f"{name}_score"]
    assert np.abs(score - expected).max() < 1e-4 * np.abs(expected).max()


def test_gray_tilde_reproduces_the_oracle(shared: Path, oracle: dict[str, np.ndarray]) -> None:
    network = load_tilde(shared / UPSTREAM / "NewMexico8_1c.txt")
    gray = torch.from_numpy(oracle["gray"]).float()[None, None] / 255
    with torch.no_grad():
        score = network(gray)[0, 0].numpy() / GAIN
    expected = oracle["NewMexico8_1c_score"]
    assert np.abs(score - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["Mexico24", "NewMexico8_1c"])
def test_tilde_is_a_response_of_the_detector(shared: Path, name: str) -> None:
    network, image = load_tilde(shared / UPSTREAM / f"{name}.txt"), texture(120, 160)
    with torch.no_grad():
        lafs, responses = LIFTDetector(20, resp_module=network)(image)
        with_sigmas = network(image, torch.ones(1))
    assert laf_is_filled(lafs).sum() == 20
    assert (responses[0].diff() <= 0).all()
    assert torch.equal(with_sigmas, network(image))


def test_gradients_reach_the_image() -> None:
    network = TILDEResponse(2, 2, 6, 5, rank=0)
    torch.nn.init.normal_(network.weight)
    image = texture(24, 30).double().requires_grad_()
    network(image).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("name", ["Mexico24.txt", "Mexico.txt"])
@pytest.mark.parametrize("damage", ["cut", "longer", "word", "nan", "header"])
def test_damaged_tilde_files_are_refused(shared: Path, tmp_path: Path, name: str, damage: str) -> None:
    lines = (shared / UPSTREAM / name).read_text().splitlines()
    match damage:
        case "cut":
            lines = lines[: len(lines) // 2 + 1]
        case "longer":
            lines.append("1 2 3")
        case "word":
            lines[5] = lines[5].replace("e", "x", 1)
        case "nan":
            lines[5] = " ".join(["nan", *lines[5].split()[1:]])
        case "header":
            lines[1] = lines[1].replace("21", "999999999")
    (tmp_path / "file.txt").write_text("\n".join(lines))
    with pytest.raises(WeightFileError, match=r"file\.txt is not a TILDE filter file"):
        load_tilde(tmp_path / "file.txt")


@pytest.mark.parametrize("content", [b"", b"1\n", b"\xff\xfe\x00", b"import os\nos.abort()\n"])
def test_other_files_are_no_tilde(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(WeightFileError, match=r"file\.txt"):
        load_tilde(tmp_path / "file.txt")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_tilde(tmp_path / "absent")


@pytest.mark.parametrize(
    "options",
    [
        {"num_sum": float("inf")},
        {"num_max": 1e300},
        {"channels": 5},
        {"filter_size": 4},
        {"filter_size": -3},
        {"num_sum": None},
        {"num_sum": "four"},
    ],
)
def test_trained_filters_of_impossible_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    pytest.importorskip("safetensors")
    config = {"num_sum": 4, "num_max": 4, "channels": 1, "filter_size": 5} | options
    network = TILDEResponse(4, 4, 1, 5, rank=0)
    tensors = {f"tilde.{name}": tensor for name, tensor in network.state_dict().items()}
    write_safetensors(tmp_path / "tilde.safetensors", tensors, {"config": json.dumps(config)})
    with pytest.raises(WeightFileError, match=r"tilde\.safetensors"):
        load_tilde(tmp_path / "tilde.safetensors")


def test_huge_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kornia_lift.convert.tilde_files.MAX_BYTES", 10)
    (tmp_path / "file.txt").write_text("1 " * 100)
    with pytest.raises(WeightFileError, match="has more than 10 bytes"):
        load_tilde(tmp_path / "file.txt")


def test_learned_orientation_reproduces_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/cvpr16_orientation.npz")
    network = load_learned_orientation(shared / UPSTREAM / "efsift")
    patches = torch.from_numpy(oracle["patches28"]).float()[:, None] / 255
    with torch.no_grad():
        np.testing.assert_allclose(network.vector(patches).numpy(), oracle["efsift_raw"], rtol=1e-5)
        angle = network(patches).rad2deg().numpy()
    difference = angle + oracle["efsift_deg"]  # kornia counts the other way round
    np.testing.assert_allclose((difference + 180) % 360 - 180, 0, atol=0.1)


def test_learned_orientation_follows_rotations(shared: Path) -> None:
    """The sign: where the angle follows a rotation at all, it follows in its sense, counter-clockwise on screen.

    The released model is for nearly upright keypoints: it follows by 20 degrees on a part of the patches.
    """
    from kornia.geometry.transform import rotate

    pixels = pytest.importorskip("skimage.data").camera()
    image = torch.from_numpy(pixels).float()[None, None] / 255
    corners = [(y, x) for y in range(0, 380, 40) for x in range(0, 380, 40)]
    patches = torch.cat([image[..., y : y + 129, x : x + 129] for y, x in corners])
    patches = patches[patches.flatten(1).std(1) > 0.1]
    orienter = LAFOrienter(28, angle_detector=load_learned_orientation(shared / UPSTREAM / "efsift"))
    centre = torch.full((len(patches), 1, 2), 64.0)
    frame = laf_from_center_scale_ori(centre, torch.full((len(patches), 1, 1, 1), 28.0))

    def change(angle: float) -> Tensor:
        after = orienter(frame, rotate(patches, torch.full((len(patches),), angle)))
        degrees = get_laf_orientation(after) - get_laf_orientation(orienter(frame, patches))
        return (degrees.flatten() + 180) % 360 - 180

    with torch.no_grad():
        along = sum(int(((change(angle) - angle).abs() < 10).sum()) for angle in (-20.0, 20.0))
        against = sum(int(((change(angle) + angle).abs() < 10).sum()) for angle in (-20.0, 20.0))
    assert along > 10
    assert along > 2 * against


@pytest.mark.parametrize("damage", ["missing", "pickle", "shape", "nan", "cut"])
def test_damaged_orientations_are_refused(shared: Path, tmp_path: Path, damage: str) -> None:
    for file in (shared / UPSTREAM / "efsift").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    target = tmp_path / "layer3_W.npy"
    match damage:
        case "missing":
            target.unlink()
            with pytest.raises(FileNotFoundError, match=r"layer3_W\.npy"):
                load_learned_orientation(tmp_path)
            return
        case "pickle":
            np.save(target, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        case "shape":
            np.save(target, np.zeros((50, 100, 4, 3)))
        case "nan":
            np.save(target, np.full((50, 100, 4, 4), np.nan))
        case "cut":
            target.write_bytes(target.read_bytes()[:500])
    with pytest.raises(WeightFileError, match=r"layer3_W\.npy"):
        load_learned_orientation(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_learned_orientation(tmp_path / "absent")
