"""What LIFTFeature is built from: weights, sizes, compilation, and arguments that make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import (
    LAFDescriptor,
    PassLAF,
    ScaleSpaceDetector,
)
from torch import Tensor, nn

from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTFeature
from kornia_lift.networks import CompactDescriptor, PolarOrientation
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.weights import WeightFileError
from tests.helpers.networks import FAST, feature
from tests.helpers.pictures import texture


def test_config_and_detector_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either config or detector"):
        LIFTFeature(pretrained=False, config=FAST, detector=ScaleSpaceDetector(5))


def test_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="unknown pretrained model 'sift'"):
        LIFTFeature.from_pretrained("sift")


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch")
    source = feature(20)
    tensors = {}
    assert isinstance(source.detector, LIFTDetector)
    parts = {
        "response": source.detector.resp,
        "orientation": source.orienter.angle_detector,
        "descriptor": source.descriptor.descriptor,
    }
    for part, network in parts.items():
        tensors |= {f"{part}.{name}": t.contiguous() for name, t in network.state_dict().items()}
    path = tmp_path / "mine.safetensors"
    save.save_file(tensors, path)
    loaded = LIFTFeature.from_pretrained(path, num_features=20, config=FAST)
    assert not any(module.training for module in (loaded.detector.resp, loaded.descriptor.descriptor))
    image = texture(80, 80)
    with torch.no_grad():
        for a, b in zip(source(image), loaded(image), strict=True):
            assert torch.equal(a, b)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightFileError, match="mine"):
        LIFTFeature.from_pretrained(path)


@pytest.mark.parametrize(("stated", "fresh"), [(True, False), (False, True)])
def test_state_dict_brings_the_normalisation_of_patches(stated: bool, fresh: bool) -> None:
    """Weights of a descriptor with statistics load into one without, and the other way round."""

    def extract(statistics: bool) -> LIFTFeature:
        numbers = {"mean": 0.4, "std": 0.2} if statistics else {}
        return feature(20, descriptor=LAFDescriptor(LIFTDescriptor(False, **numbers), patch_size=64))

    source, target, image = extract(stated), extract(fresh), texture(80, 80)
    target.load_state_dict(source.state_dict())
    with torch.no_grad():
        assert torch.equal(source(image)[2], target(image)[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": None}, "pretrained expects .* got None"),
        ({"num_features": 100.0}, "num_features as a whole number, got 100.0"),
        ({"num_features": True}, "num_features as a whole number, got True"),
        ({"num_features": 10**9}, "num_features from 1 to 1000000, got 1000000000"),
        ({"num_features": 0}, "num_features from 1 to 1000000, got 0"),
        ({"config": "lift"}, "config expects a ScaleSpaceConfig"),
        ({"pretrained": "lift-plus", "angles": 1.5}, "angles expects a whole number, got 1.5"),
        ({"pretrained": "lift-plus", "angles": True}, "angles expects a whole number, got True"),
        ({"pretrained": "lift-plus", "angles": 0}, "angles expects a number of at least 1, got 0"),
        ({"pretrained": "lift-plus", "angles": 2, "upright": True}, "angles describes the orientation"),
        ({"pretrained": "lift-plus-upright", "angles": 2}, "angles describes the orientation"),
        ({"pooled_sizes": (1.0, 0.0)}, "one or more factors above 0"),
        ({"pooled_sizes": (1.0,), "descriptor": torch.nn.Identity()}, "either pooled_sizes or descriptor"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        LIFTFeature(**arguments)


def test_descriptors_are_averaged_over_sizes() -> None:
    image = texture(150, 160)
    with torch.inference_mode():
        one, pooled, same = (
            LIFTFeature(40, **options)(image)
            for options in ({}, {"pooled_sizes": (0.7, 1.0, 1.43)}, {"pooled_sizes": (1.0,)})
        )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert torch.equal(one[0], pooled[0])
    similarity = (one[2] * pooled[2]).sum(-1)
    assert 0.8 < similarity.min() < 0.999
    torch.testing.assert_close(pooled[2].norm(dim=-1), torch.ones(1, 40))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own compiler looks at it
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compile_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch networks are compiled, each as one graph; the inference paths stay."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: original(module, backend=backend))
    torch.manual_seed(0)
    plain = feature(20)
    compiled = feature(20, compile=True)
    compiled.load_state_dict(plain.state_dict())
    image = texture(80, 90)
    for a, b in zip(plain(image), compiled(image), strict=True):
        torch.testing.assert_close(a, b)
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_feature_gives_the_same() -> None:
    extract, image = feature(20), texture(80, 90)
    compiled = torch.compile(extract)
    with torch.no_grad():
        for a, b in zip(extract(image), compiled(image), strict=True):
            assert torch.allclose(a, b, atol=1e-3)


def test_arguments_of_kornias_own_features() -> None:
    extract = LIFTFeature(np.int64(30), True, "cpu")
    assert extract.detector.num_features == 30
    assert type(extract.detector.num_features) is int
    assert isinstance(extract.orienter, PassLAF)
    with torch.device("meta"):
        assert all(p.is_meta for p in LIFTFeature(30, pretrained=False).parameters())
    assert all(p.is_meta for p in LIFTFeature(30, False, torch.device("meta"), pretrained=False).parameters())


def test_weights_bring_eval_mode_and_given_parts_keep_theirs() -> None:
    assert not any(module.training for module in LIFTFeature(30).modules())
    assert LIFTFeature(30, pretrained=False).training
    mine = LIFTDescriptor(pretrained=False).train()
    extract = LIFTFeature(30, descriptor=LAFDescriptor(mine, patch_size=64).train())
    assert not extract.training
    assert not extract.detector.training
    assert mine.training


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_an_empty_batch_gives_empty_results(model: str, gradient: bool) -> None:
    with torch.set_grad_enabled(gradient):
        lafs, responses, descriptors = LIFTFeature(20, pretrained=model)(torch.rand(0, 1, 64, 80))
    assert (lafs.shape, responses.shape, descriptors.shape) == ((0, 20, 2, 3), (0, 20), (0, 20, 128))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    "network", [KeypointLocalization(), KeypointLocalization(blocks=True), PolarOrientation(), CompactDescriptor()]
)
def test_no_patches_give_no_results(network: nn.Module, gradient: bool) -> None:
    channels = 3 if isinstance(network, CompactDescriptor) else 1
    with torch.set_grad_enabled(gradient):
        assert len(network.eval()(torch.rand(0, channels, 32, 32))) == 0


@pytest.mark.parametrize(("low", "high", "advice"), [(-2, 2.5, "not normalised by a mean"), (0, 255, "by 255")])
def test_values_out_of_range_get_advice_that_fits(low: float, high: float, advice: str) -> None:
    image = torch.linspace(low, high, 64 * 64).view(1, 1, 64, 64)
    with pytest.raises(ValueError, match=advice):
        LIFTFeature(5, pretrained=False)(image)
