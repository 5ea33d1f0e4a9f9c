"""Exported networks give the same for other batch and image sizes than those they were exported with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import BlobHessian, extract_patches_from_pyramid, scale_laf
from torch import Tensor, nn

from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTFeature, LIFTOrientation, LIFTResponse
from kornia_lift._extras import MissingExtraError
from kornia_lift.feature import LFNetFeature
from kornia_lift.integrations.onnx import export_onnx, export_program, networks_of, run_onnx
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.compact_descriptor import SMALL_CHANNELS, CompactDescriptor
from kornia_lift.networks.contrast import LocalContrast
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.shape import KeypointShape
from tests.helpers.pictures import texture

#: The networks are exported for inputs of any size, for which torch 2.5 is too old.
new_torch = pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs torch 2.6")
NETWORKS = [LIFTResponse, LIFTOrientation, LIFTDescriptor]
COMPACT: dict[str, Callable[[], nn.Module]] = {
    "KeypointLocalization": lambda: KeypointLocalization("lift-plus"),
    "KeypointLocalization at full resolution": lambda: KeypointLocalization(blocks=False).eval(),
    "KeypointShape": lambda: KeypointShape(True),
    "PolarOrientation": lambda: PolarOrientation("lift-plus"),
    "CompactDescriptor": lambda: CompactDescriptor("lift-plus"),
}


def contrasting(window: str) -> LIFTResponse:
    """The shipped filters on images of normalised local contrast."""
    response = LIFTResponse()
    response.set_contrast(LocalContrast(window=window))  # type: ignore[arg-type]
    return response


EXPORTED: dict[str, Callable[[], nn.Module]] = {
    "DenseResponse": lambda: DenseResponse("lift-dense"),
    **{kind.__name__: kind for kind in NETWORKS},
    **COMPACT,
    "contrast in the filter's window": lambda: contrasting("filter"),
    "contrast in a Gaussian window": lambda: contrasting("gaussian"),
}


#: Models that are exported whole, and whether with affine shapes.
WHOLE = [("lift", False), ("lift-plus", False), ("lift-plus", True), ("lift-dense", False)]


def inputs(kind: type[nn.Module]) -> list[Tensor]:
    """Real input of several sizes: images for the response, patches around keypoints for the others."""
    if kind in (LIFTResponse, DenseResponse):
        return [texture(70, 90), texture(200, 131, batch=3)]
    image = texture(150, 160)
    compact = kind in (PolarOrientation, CompactDescriptor, KeypointLocalization, KeypointShape)
    regions = CompactDescriptor.regions if kind is CompactDescriptor else (1.0,)
    with torch.no_grad():
        lafs, _ = LIFTDetector(30)(image)
        each = [extract_patches_from_pyramid(image, scale_laf(lafs, k), 32 if compact else 64)[0] for k in regions]
    patches = torch.cat(each, 1)
    return [patches, patches[:1]]


@new_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter and of onnx
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", EXPORTED)
def test_onnxruntime_agrees_on_real_input(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    network = EXPORTED[name]()
    kind = type(network)
    path = tmp_path / "network.onnx"
    export_onnx(network, path)
    assert list(tmp_path.iterdir()) == [path]
    for x in inputs(kind):
        with torch.no_grad(), fast_paths(False):  # in float32 as the file
            expected = network(x).numpy()
        (found,) = run_onnx(path, x)
        assert found.shape == expected.shape
        difference = np.abs(found - expected)
        if kind in (LIFTOrientation, PolarOrientation):
            difference = np.abs((found - expected + np.pi) % (2 * np.pi) - np.pi)
        assert difference.max() < 1e-3 * max(1, np.abs(expected).max())


@new_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_program_has_free_sizes(name: str) -> None:
    network = EXPORTED[name]()
    program = export_program(network).module()
    for x in inputs(type(network)):
        with torch.no_grad(), fast_paths(False):
            torch.testing.assert_close(program(x), network(x), atol=1e-4, rtol=1e-3)


def test_an_older_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.export.Dim, "DYNAMIC", raising=False)
    with pytest.raises(MissingExtraError, match=r"needs torch 2\.6 or newer, found .*pip install --upgrade torch"):
        export_program(LIFTOrientation(pretrained=False))


def test_other_modules_are_refused() -> None:
    with pytest.raises(
        TypeError, match="export expects one of LIFTResponse, DenseResponse, .*LIFTFeature, got Identity"
    ):
        export_program(nn.Identity())
    with pytest.raises(ValueError, match="image_size is needed for a detector or a feature"):
        export_program(LIFTDetector(5, pretrained=False))
    with pytest.raises(ValueError, match="image_size is needed for a detector or a feature"):
        export_program(LIFTResponse(), (64, 64))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("lift", ["response", "orientation", "descriptor"]),
        ("lift-upright", ["response", "descriptor"]),
        ("lift-plus", ["response", "localization", "orientation", "descriptor"]),
        ("lift-plus", ["response", "localization", "shape", "orientation", "descriptor"]),
        ("lift-dense", ["response", "localization", "orientation", "descriptor"]),
    ],
)
def test_networks_of_a_model_are_those_it_runs(model: str, names: list[str]) -> None:
    feature = LIFTFeature(10, pretrained=model, affine="shape" in names)
    networks = networks_of(feature)
    assert list(networks) == names
    own = set(feature.modules())
    assert all(network in own for network in networks.values())


def test_features_with_other_networks_are_refused() -> None:
    with pytest.raises(TypeError, match="got LFNetFeature; its networks cannot be exported"):
        networks_of(LFNetFeature(10, pretrained=False))
    with pytest.raises(TypeError, match="export expects one of LIFTResponse, .* got BlobHessian"):
        networks_of(LIFTFeature(10, pretrained=False, detector=LIFTDetector(10, resp_module=BlobHessian())))
    for part in ("detector", "descriptor"):  # without the attributes of ours
        with pytest.raises(TypeError, match="export expects one of LIFTResponse, .* got Identity"):
            networks_of(LIFTFeature(10, pretrained=False, **{part: nn.Identity()}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("model", "affine"), WHOLE)
def test_the_whole_feature_runs_in_onnxruntime(tmp_path: Path, model: str, affine: bool) -> None:
    """The same keypoints, frames and descriptors on images that it was not exported with, one of them padded."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    feature = LIFTFeature(50, pretrained=model, precision="float32", affine=affine)
    export_onnx(feature, tmp_path / "feature.onnx", (110, 130))
    padded = torch.zeros(1, 1, 110, 130)
    padded[..., 5:100, 10:120] = texture(95, 110, seed=1)
    for image in (texture(110, 130), padded):
        # in float32 as the graph: bfloat16 moves keypoints a little, and an ambiguous angle may be another one
        with torch.inference_mode(), fast_paths(False):
            lafs, responses, descriptors = feature(image)
        found = [torch.from_numpy(each) for each in run_onnx(tmp_path / "feature.onnx", image)]
        torch.testing.assert_close(found[0], lafs, atol=0.05, rtol=1e-2)
        torch.testing.assert_close(found[1], responses, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(found[2], descriptors, atol=1e-2, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("model", "affine"), WHOLE)
def test_the_whole_feature_compiles_to_one_graph(model: str, affine: bool) -> None:
    feature, image = LIFTFeature(50, pretrained=model, precision="float32", affine=affine), texture(110, 130)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(feature, backend="eager", fullgraph=True)(image)  # raises where a graph would break
        with fast_paths(False):  # in float32 as the graph
            expected = feature(image)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=0.05, rtol=1e-2)


MADE: dict[str, Callable[[bool | str], nn.Module]] = {
    **{kind.__name__: kind for kind in NETWORKS},
    "CompactDescriptor": lambda weights: CompactDescriptor(weights and "lift-plus", channels=SMALL_CHANNELS),
    "KeypointLocalization": lambda weights: KeypointLocalization(weights and "lift-plus", blocks=True),
    "PolarOrientation": lambda weights: PolarOrientation(weights and "lift-plus", small=True),
    "KeypointShape": lambda weights: KeypointShape(bool(weights)),
    "LIFTFeature": lambda weights: LIFTFeature(20, pretrained=weights),
    "LIFTFeature, affine": lambda weights: LIFTFeature(20, pretrained=weights, affine=True),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("assign", [False, True])
def test_networks_are_made_on_the_meta_device(name: str, assign: bool) -> None:
    """`to_empty` or `assign=True`, then a state dict: constants that no state dict holds are there too."""
    full = MADE[name](True)
    with torch.device("meta"):
        empty = MADE[name](False)
    if not assign:
        empty = empty.to_empty(device="cpu")
        for buffer in empty.buffers():
            if buffer.is_floating_point():
                buffer.fill_(float("nan"))
    empty.load_state_dict(full.state_dict(), assign=assign)
    if name in ("KeypointLocalization", "PolarOrientation"):
        x = texture(32, 32, batch=3)
    elif name == "CompactDescriptor":
        x = texture(128, 128, batch=3)
    else:
        x = texture(110, 130) if name == "LIFTFeature" else inputs(type(full))[0]
    with torch.no_grad():
        torch.testing.assert_close(empty.eval()(x), full(x))
