"""The extractors for other programs give LIFT's keypoints in the convention of each program."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTFeature
from kornia_lift.geometry import lift_from_lafs
from tests.helpers.pictures import texture
from tests.helpers.repository import ROOT
from tests.integrations import contracts

COUNT = 40


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    """What LIFTFeature itself finds: location, SIFT scale, clockwise angle, descriptors, responses."""
    with torch.inference_mode():
        lafs, responses, descriptors = LIFTFeature(COUNT)(texture(120, 160))
    xy, sigma, angle = lift_from_lafs(lafs)
    assert lafs[0, -1].any()  # every slot is filled
    return {"xy": xy[0], "sigma": sigma[0] / 1.5, "angle": angle[0], "desc": descriptors[0], "score": responses[0]}


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=2e-4, rtol=1e-4)


def test_hloc(monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor], tmp_path: Path) -> None:
    contracts.hloc_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.hloc")
    lift.register()
    extractors = importlib.import_module("hloc.extractors")
    confs = importlib.import_module("hloc.extract_features").confs
    conf = {**confs["lift"]["model"], "max_keypoints": COUNT}
    assert confs["lift"]["preprocessing"]["grayscale"] is True
    base = importlib.import_module("hloc.utils.base_model").BaseModel
    model = contracts.the_class_of(extractors, conf["name"], base)(conf).eval()
    assert model.detection_noise == 1
    with torch.no_grad():
        found = {key: value[0] for key, value in model({"image": texture(120, 160)}).items()}
    same(found["keypoints"], expected["xy"])
    same(found["scales"], expected["sigma"])
    same(found["oris"], expected["angle"].rad2deg())
    same(found["descriptors"], expected["desc"].T)
    same(found["scores"], expected["score"])


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.skipif(not contracts.is_real("hloc"), reason="hloc is not installed")
def test_hloc_writes_its_file(tmp_path: Path, expected: dict[str, Tensor]) -> None:
    import h5py
    from hloc import extract_features

    lift = importlib.import_module("kornia_lift.integrations.hloc")
    lift.register()
    (tmp_path / "images").mkdir()
    contracts.write_png(tmp_path / "images/a.png", texture(120, 160))
    conf = extract_features.confs["lift"]
    conf = {**conf, "model": {**conf["model"], "max_keypoints": COUNT}}
    path = extract_features.main(conf, tmp_path / "images", tmp_path, as_half=False)
    with h5py.File(path) as file:
        assert file["a.png/keypoints"].attrs["uncertainty"] == 1
        found = torch.from_numpy(file["a.png/keypoints"][:])
        nearest = torch.cdist(found, expected["xy"]).amin(1)
        assert (nearest < 0.1).float().mean() > 0.9  # 8 bits: scores that are nearly equal may swap
        assert file["a.png/descriptors"].shape == (128, COUNT)


def test_gluefactory(monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor]) -> None:
    contracts.gluefactory_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.gluefactory")
    model = lift.LIFT({"max_num_keypoints": COUNT}).eval()
    assert model.is_initialized()
    with torch.no_grad():
        found = model({"image": texture(120, 160)})
    same(found["keypoints"][0], expected["xy"] + 0.5)
    same(found["scales"][0], expected["sigma"])
    same(found["oris"][0], expected["angle"])
    same(found["descriptors"][0], expected["desc"])
    same(found["keypoint_scores"][0], expected["score"])


def test_gluefactory_fills_up_to_equal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    contracts.gluefactory_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.gluefactory")
    batch = torch.cat([texture(96, 128), torch.full((1, 1, 96, 128), 0.5)])
    with torch.no_grad():
        forced = lift.LIFT({"max_num_keypoints": 2000, "force_num_keypoints": True}).eval()({"image": batch})
        free = lift.LIFT({"max_num_keypoints": 2000}).eval()({"image": batch})
    assert forced["keypoints"].shape == (2, 2000, 2)
    assert forced["descriptors"].shape == (2, 2000, 128)
    count = free["keypoints"].shape[1]
    assert 0 < count < 2000
    same(forced["keypoints"][0, :count], free["keypoints"][0])
    filled = forced["keypoints"][0, count:]
    assert (filled > 0).all() and (filled < torch.tensor([128.0, 96.0])).all()
    assert forced["keypoint_scores"][0, count:].eq(0).all()


def test_lightglue(monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor]) -> None:
    contracts.lightglue_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.lightglue")
    extractor = lift.LIFT(max_num_keypoints=COUNT).eval()
    found = {key: value[0] for key, value in extractor.extract(texture(120, 160)[0], resize=160).items()}
    assert found.keys() == {"keypoints", "keypoint_scores", "descriptors", "scales", "oris", "image_size"}
    same(found["keypoints"], expected["xy"])
    same(found["scales"], expected["sigma"])
    same(found["oris"], expected["angle"])
    same(found["descriptors"], expected["desc"])
    # twice the image, searched at half its size: keypoints and scales come back in pixels of the image
    large = torch.nn.functional.interpolate(texture(120, 160), scale_factor=2, mode="bilinear")[0]
    doubled = {key: value[0] for key, value in extractor.extract(large, resize=160).items()}
    assert doubled["image_size"].tolist() == [320, 240]
    distance = torch.cdist(doubled["keypoints"], 2 * expected["xy"] + 0.5)
    nearest = distance.argmin(1)
    close = distance.amin(1) < 1
    assert close.float().mean() > 0.7
    ratio = doubled["scales"][close] / expected["sigma"][nearest[close]]
    assert float(ratio.median()) == pytest.approx(2, rel=0.05)


def test_vismatch(monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor]) -> None:
    contracts.vismatch_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.vismatch")
    matcher = lift.LIFTMatcher(device="cpu", max_num_keypoints=COUNT, ransac_iters=500)
    assert matcher.ransac_iters == 500
    image = texture(120, 160)[0].expand(3, -1, -1)
    result = matcher(image, image)
    same(result["all_kpts0"], expected["xy"])
    same(result["all_desc1"], expected["desc"])
    assert len(result["matched_kpts0"]) > 0.8 * COUNT
    same(result["matched_kpts0"], result["matched_kpts1"])
    assert (result["matched_confidences"] > 0.9).all()


def test_vismatch_refines_matched_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    contracts.vismatch_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.vismatch")
    image = texture(160, 200)
    half = torch.nn.functional.interpolate(image, scale_factor=0.75, mode="bicubic", antialias=True).clamp(0, 1)
    error = {}
    for refine in (True, False):
        result = lift.LIFTMatcher(max_num_keypoints=150, refine=refine)(
            *(v[0].expand(3, -1, -1) for v in (image, half))
        )
        expected = 0.75 * (torch.as_tensor(result["matched_kpts0"]) + 0.5) - 0.5
        error[refine] = float((torch.as_tensor(result["matched_kpts1"]) - expected).norm(dim=1).median())
    assert error[True] < 0.6 * error[False]


def test_vismatch_without_keypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    contracts.vismatch_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.vismatch")
    flat = torch.full((3, 64, 64), 0.5)
    result = lift.LIFTMatcher(max_num_keypoints=10)(flat, flat)
    assert result["matched_kpts0"].shape == (0, 2)


def _hloc(module: Any) -> Tensor:
    return module.LIFT({"max_keypoints": COUNT, "affine": True})({"image": texture(120, 160)})["descriptors"][0].T


def _gluefactory(module: Any) -> Tensor:
    return module.LIFT({"max_num_keypoints": COUNT, "affine": True})({"image": texture(120, 160)})["descriptors"][0]


def _lightglue(module: Any) -> Tensor:
    return module.LIFT(max_num_keypoints=COUNT, affine=True).extract(texture(120, 160)[0], resize=160)["descriptors"][0]


def _vismatch(module: Any) -> Tensor:
    image = texture(120, 160)[0].expand(3, -1, -1)
    return torch.as_tensor(module.LIFTMatcher(max_num_keypoints=COUNT, affine=True)(image, image)["all_desc0"])


def _deep_image_matching(module: Any) -> Tensor:
    extractor = {**module.PIPELINE["extractor"], "max_keypoints": COUNT, "affine": True}
    settings = SimpleNamespace(general={"force_cpu": True}, extractor=extractor)
    if contracts.is_real("deep_image_matching"):
        settings = _dim_config(importlib.import_module("deep_image_matching.config"), settings)
    return torch.from_numpy(
        module.LIFTExtractor(settings)._extract(texture(120, 160)[0, 0].numpy() * 255)["descriptors"].T
    )


@pytest.mark.parametrize(
    ("program", "provide", "describe"),
    [
        ("hloc", contracts.hloc_package, _hloc),
        ("gluefactory", contracts.gluefactory_package, _gluefactory),
        ("lightglue", contracts.lightglue_package, _lightglue),
        ("vismatch", contracts.vismatch_package, _vismatch),
        ("deep_image_matching", contracts.dim_package, _deep_image_matching),
    ],
)
@torch.no_grad()
def test_every_program_can_have_affine_shapes(
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[str, Tensor],
    program: str,
    provide: Callable[[pytest.MonkeyPatch], None],
    describe: Callable[[Any], Tensor],
) -> None:
    provide(monkeypatch)
    found = describe(importlib.import_module(f"kornia_lift.integrations.{program}"))
    shaped = LIFTFeature(COUNT, affine=True)(texture(120, 160))[2][0]
    # shapes come from 8-bit integers, which may differ by one where colours were made gray
    assert (found - shaped).norm() < 0.1 * (found - expected["desc"]).norm()


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_deep_image_matching(monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor], channels: int) -> None:
    contracts.dim_package(monkeypatch)
    lift = importlib.import_module("kornia_lift.integrations.deep_image_matching")
    lift.register()
    extractors = importlib.import_module("deep_image_matching.extractors")
    config = importlib.import_module("deep_image_matching.config")
    assert "lift" in config.opt_zoo["extractors"]
    assert config.confs["lift"]["extractor"]["name"] == "lift"
    base = importlib.import_module("deep_image_matching.extractors.extractor_base").ExtractorBase
    kind = contracts.the_class_of(extractors, "lift", base)
    settings = SimpleNamespace(general={"force_cpu": True}, extractor={**config.confs["lift"]["extractor"]})
    settings.extractor["max_keypoints"] = COUNT
    if contracts.is_real("deep_image_matching"):
        settings = _dim_config(config, settings)
    extractor = kind(settings)
    assert not extractor.features_as_half
    pixels = texture(120, 160)[0, 0].numpy() * 255
    if channels:
        pixels = np.repeat(pixels[..., None], channels, 2)
        pixels[..., 3:] = 255
    found = extractor._extract(pixels)
    same(found["keypoints"], expected["xy"])
    same(found["descriptors"], expected["desc"].T.contiguous())
    same(found["scores"], expected["score"])


def _dim_config(config: Any, settings: SimpleNamespace) -> Any:
    made = config.Config.__new__(config.Config)
    object.__setattr__(made, "_cfg", {"general": settings.general, "extractor": settings.extractor, "matcher": {}})
    settings.general.setdefault("output_dir", Path())
    return made


def test_torch_hub_loads_from_a_clone(expected: dict[str, Tensor]) -> None:
    feature = torch.hub.load(str(ROOT), "lift", source="local", num_features=COUNT)
    assert not feature.training
    with torch.inference_mode():
        same(feature(texture(120, 160))[2][0], expected["desc"])
    upright = torch.hub.load(str(ROOT), "lift_upright", source="local", pretrained=False, num_features=5)
    assert "PassLAF" in repr(upright.orienter)
    for kind in ("", "_upright", "_plus", "_plus_upright", "_dense", "_dense_upright"):  # all take the same arguments
        name = f"lift{kind}"
        assert torch.hub.load(str(ROOT), name, False, 5, source="local").detector.num_features == 5
    plus = torch.hub.load(str(ROOT), "lift_plus", source="local", num_features=5)
    assert not plus.training and "CompactDescriptor" in repr(plus)
    assert "DenseResponse" in repr(torch.hub.load(str(ROOT), "lift_dense", source="local", num_features=5))


def test_kornia_moons_counts_the_same_diameter(expected: dict[str, Tensor]) -> None:
    """The documented ``mrSize`` makes ``cv2.KeyPoint.size`` two sigma."""
    moons = pytest.importorskip("kornia_moons.feature")
    with torch.inference_mode():
        lafs, _, _ = LIFTFeature(COUNT)(texture(120, 160))
    keypoints = moons.opencv_kpts_from_laf(lafs.clone(), mrSize=4.571)
    np.testing.assert_allclose([k.size / 2 for k in keypoints], expected["sigma"].numpy(), rtol=1e-3)
    difference = np.array([k.angle for k in keypoints]) - expected["angle"].numpy() * 180 / math.pi
    np.testing.assert_allclose((difference + 180) % 360 - 180, 0, atol=0.1)
