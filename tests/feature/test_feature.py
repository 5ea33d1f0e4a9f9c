"""LIFTFeature: the contract of a kornia LocalFeature, whatever the input."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import (
    DescriptorMatcher,
    LAFDescriptor,
    LocalFeature,
    LocalFeatureMatcher,
    PassLAF,
    ScaleSpaceDetector,
    SIFTDescriptor,
    get_laf_orientation,
)
from kornia.geometry.transform import rotate
from torch import Tensor

from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTFeature, ScaleSpaceConfig, _memory
from kornia_lift._kornia import laf_is_filled
from kornia_lift.weights import WeightFileError
from tests.helpers.pictures import blob_response, texture

DENSE = ScaleSpaceConfig(max_sigma=5, nms_radius=2)  # more keypoints than are asked for
FAST = ScaleSpaceConfig(min_sigma=2, levels_per_octave=3, scale_nms=1)


def feature(count: int = 40, **kwargs) -> LIFTFeature:
    return LIFTFeature(count, pretrained=False, config=FAST, **kwargs).eval()


def test_is_a_local_feature() -> None:
    assert isinstance(feature(), LocalFeature)


@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_cardinality(batch: int, channels: int) -> None:
    image = texture(90, 110, batch=batch).expand(-1, channels, -1, -1)
    with torch.no_grad():
        lafs, responses, descs = feature()(image)
    assert lafs.shape == (batch, 40, 2, 3)
    assert responses.shape == (batch, 40)
    assert descs.shape == (batch, 40, 128)
    filled = laf_is_filled(lafs)
    assert filled.any(1).all()
    assert torch.allclose(descs[filled].norm(dim=-1), torch.ones(int(filled.sum())), atol=1e-4)
    assert (descs[~filled] == 0).all()
    assert (lafs[~filled] == 0).all()


def test_colour_is_reduced_first() -> None:
    extract, gray = feature(), texture(80, 90)
    with torch.no_grad():
        for a, b in zip(extract(gray), extract(gray.expand(-1, 3, -1, -1)), strict=True):
            assert torch.allclose(a, b, atol=1e-2)


def test_upright_frames_are_upright_and_others_are_not() -> None:
    image = texture(90, 110)
    with torch.no_grad():
        upright, _, _ = feature(upright=True)(image)
        oriented, _, _ = feature()(image)
    filled = laf_is_filled(upright)
    assert (get_laf_orientation(upright)[filled] == 0).all()
    assert get_laf_orientation(oriented)[filled].std() > 1


def test_keypoints_rotate_with_the_image() -> None:
    extract = LIFTFeature(30, pretrained=False, detector=LIFTDetector(30, FAST, resp_module=blob_response())).eval()
    image = texture(121, 121)
    with torch.no_grad():
        lafs, _, _ = extract(image)
        other, _, _ = extract(rotate(image, torch.tensor([90.0]), align_corners=True))
    keep, other_keep = laf_is_filled(lafs)[0], laf_is_filled(other)[0]
    x, y = lafs[0, keep, 0, 2], lafs[0, keep, 1, 2]
    mapped = torch.stack([y, 120 - x], 1)  # rotated by 90 degrees counter-clockwise on screen
    distance = torch.cdist(mapped, other[0, other_keep, :, 2]).amin(1)
    assert (distance < 0.2).float().mean() > 0.9
    assert keep.sum() > 10


def test_num_features_bounds_the_output_and_keeps_the_best() -> None:
    extract, image = feature(10), texture(100, 120)
    more = feature(80)
    more.load_state_dict(extract.state_dict())
    with torch.no_grad():
        few, many = extract(image), more(image)
    assert torch.allclose(few[1], many[1][:, :10])
    assert torch.allclose(few[2], many[2][:, :10], atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 8, 8), (2, 1, 8, 300), (0, 1, 64, 64)])
def test_tiny_images_give_empty_slots(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        lafs, responses, descs = feature(5)(torch.rand(shape))
    assert lafs.shape == (shape[0], 5, 2, 3)
    assert responses.shape == (shape[0], 5)
    assert descs.shape == (shape[0], 5, 128)
    assert not laf_is_filled(lafs).any()
    assert (descs == 0).all()


def test_constant_image_and_an_image_with_texture_share_a_batch() -> None:
    image = torch.cat([torch.full((1, 1, 90, 90), 0.4), texture(90, 90)])
    with torch.no_grad():
        lafs, _, descs = feature()(image)
    assert laf_is_filled(lafs).any(1).tolist() == [False, True]
    assert descs.isfinite().all()


def test_empty_mask_gives_empty_slots() -> None:
    with torch.no_grad():
        lafs, _, _ = feature()(texture(80, 80), torch.zeros(1, 1, 80, 80, dtype=torch.bool))
    assert not laf_is_filled(lafs).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_follows_the_image_and_weights_stay(dtype: torch.dtype) -> None:
    size = 60 if dtype == torch.float16 else 90  # float16 convolutions are slow on CPU
    image = texture(size, size)
    extract = feature(8)
    with torch.no_grad():
        lafs, responses, descs = extract(image.to(dtype))
    assert descs.dtype == responses.dtype == dtype
    assert lafs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert descs.isfinite().all()
    assert all(p.dtype == torch.float32 for p in extract.parameters())


def test_float64_agrees_with_float32() -> None:
    extract, image = feature(20), texture(90, 90)
    with torch.no_grad():
        single, double = extract(image), extract(image.double())
    assert torch.allclose(single[0].double(), double[0], atol=1e-2)
    assert torch.allclose(single[2].double(), double[2], atol=1e-3)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.rand(60, 60), ValueError, r"\(B, 1\|3, H, W\), got \(60, 60\)"),
        (torch.rand(1, 60, 60), ValueError, r"image\[None\]"),
        (torch.rand(1, 2, 60, 60), ValueError, r"got \(1, 2, 60, 60\)"),
        (torch.rand(1, 60, 60, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(1, 1, 60, 60, dtype=torch.uint8), TypeError, r"uint8.*/ 255"),
        (torch.rand(1, 1, 60, 60) * 255, ValueError, r"\[0, 1\], got values from .* divide 8-bit values by 255"),
        (torch.rand(1, 1, 60, 60) - 3, ValueError, r"\[0, 1\], got values from"),
        (torch.full((1, 1, 60, 60), float("nan")), ValueError, "NaN"),
    ],
)
def test_bad_images_are_named(image: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        feature()(image)


def test_an_array_is_named() -> None:
    with pytest.raises(TypeError, match=r"expects a torch\.Tensor, got ndarray"):
        feature()(torch.rand(1, 1, 60, 60).numpy())


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 30, 30), torch.ones(60, 60), torch.ones(2, 1, 60, 60)])
def test_masks_that_do_not_fit_are_named(mask: Tensor) -> None:
    with pytest.raises(ValueError, match="expects a mask"):
        feature()(torch.rand(1, 1, 60, 60), mask)


def test_slight_overshoot_of_the_value_range_is_accepted() -> None:
    with torch.no_grad():
        feature()(texture(60, 60) * 1.2 - 0.1)


def test_parts_can_be_exchanged() -> None:
    mixed = LIFTFeature(
        pretrained=False,
        detector=ScaleSpaceDetector(12),
        orienter=PassLAF(),
        descriptor=LAFDescriptor(SIFTDescriptor(41), patch_size=41),
    ).eval()
    with torch.no_grad():
        lafs, _, descs = mixed(texture(90, 90))
    assert lafs.shape == (1, 12, 2, 3)
    assert descs.shape == (1, 12, 128)


def test_config_and_detector_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either config or detector"):
        LIFTFeature(pretrained=False, config=FAST, detector=ScaleSpaceDetector(5))


def test_scaling_coef_enlarges_frames_only() -> None:
    plain = feature(10, scaling_coef=1)
    double = feature(10, scaling_coef=2)
    double.load_state_dict(plain.state_dict())
    image = texture(90, 90)
    with torch.no_grad():
        a, b = plain(image)[0], double(image)[0]
    assert torch.allclose(a[..., :2] * 2, b[..., :2], atol=1e-4)
    assert torch.allclose(a[..., 2], b[..., 2])


def test_matches_an_image_with_itself_inside_kornias_matcher() -> None:
    image = texture(130, 160)
    matcher = LocalFeatureMatcher(feature(), DescriptorMatcher("mnn"))
    with torch.no_grad():
        found = matcher({"image0": image, "image1": image})
    assert len(found["keypoints0"]) > 10
    assert torch.allclose(found["keypoints0"], found["keypoints1"], atol=1e-3)


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


def test_half_precision_files_give_modules_of_one_dtype() -> None:
    loaded = LIFTFeature(10)
    assert {t.dtype for t in [*loaded.parameters(), *loaded.buffers()]} == {torch.float32}


def test_images_of_another_dtype_leave_the_weights_alone() -> None:
    """Other threads may be using them; gradients still reach them."""
    extract, image = feature(20), texture(80, 90)
    before = dict(extract.named_parameters())
    calls = []
    extract.detector.register_forward_hook(lambda *_: calls.append(dict(extract.named_parameters())))
    _, responses, descs = extract(image.double())
    assert descs.dtype == torch.float64
    for during in (*calls, dict(extract.named_parameters())):
        assert all(during[name] is parameter for name, parameter in before.items())
    (descs.sum() + responses.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in extract.parameters())


def test_threads_may_send_images_of_different_dtypes() -> None:
    extract, image = feature(20), texture(80, 90)
    with torch.inference_mode():
        expected = {d: extract(image.to(d))[2] for d in (torch.float32, torch.float64)}

    def describe(dtype: torch.dtype) -> tuple[torch.dtype, float]:
        with torch.inference_mode():
            found = extract(image.to(dtype))[2]
        # rounding depends on the threads of the library: one keypoint may give way to another
        near = torch.cdist(expected[found.dtype][0], found[0]).amin(1) < 1e-2
        return found.dtype, float(near.double().mean())

    sent = list(expected) * 6
    with ThreadPoolExecutor(4) as pool:
        for dtype, (found, share) in zip(sent, pool.map(describe, sent), strict=True):
            assert found == dtype
            assert share >= 0.9


def test_default_dtype_of_torch_changes_nothing() -> None:
    extract, image = feature(20), texture(80, 90)
    with torch.no_grad():
        expected = extract(image)
        torch.set_default_dtype(torch.float64)
        try:
            found = extract(image)
        finally:
            torch.set_default_dtype(torch.float32)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": None}, "pretrained expects .* got None"),
        ({"num_features": 100.0}, "num_features as a whole number, got 100.0"),
        ({"num_features": True}, "num_features as a whole number, got True"),
        ({"num_features": 10**9}, "num_features from 1 to 1000000, got 1000000000"),
        ({"num_features": 0}, "num_features from 1 to 1000000, got 0"),
        ({"config": "lift"}, "config expects a ScaleSpaceConfig"),
        ({"pooled_sizes": (1.0, 0.0)}, "one or more factors above 0"),
        ({"pooled_sizes": (1.0,), "descriptor": torch.nn.Identity()}, "either pooled_sizes or descriptor"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        LIFTFeature(**arguments)


def test_the_model_says_over_which_sizes_descriptors_are_pooled() -> None:
    image = texture(150, 160)
    with torch.inference_mode():
        one, pooled, same = (
            LIFTFeature(40, **options)(image)
            for options in ({}, {"pretrained": "lift-pooled"}, {"pretrained": "lift-pooled", "pooled_sizes": (1.0,)})
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


@pytest.mark.parametrize("pooled", [(1.0,), (0.8, 1.2)])
def test_recomputed_activations_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, pooled: tuple[float, ...]
) -> None:
    """In chunks, or all at once with everything kept: values, and gradients of weights and image."""
    image = texture(110, 120).double().requires_grad_()
    extract = LIFTFeature(30, config=DENSE, pooled_sizes=pooled, pretrained=False).double()
    calls = []
    original = _memory.checkpoint
    monkeypatch.setattr("kornia_lift._memory.checkpoint", lambda *a, **k: calls.append(a[0]) or original(*a, **k))

    def gradients() -> tuple[Tensor, list[Tensor]]:
        lafs, responses, descriptors = extract(image)
        loss = descriptors.pow(3).sum() + responses.sum() + lafs.square().sum() * 1e-4
        return loss, list(torch.autograd.grad(loss, [image, *extract.parameters()]))

    monkeypatch.setattr("kornia_lift.feature.patches.GRADIENT_CHUNK", 7)
    loss, found = gradients()
    assert len(calls) > 10  # levels of the response, and five chunks of orientation and of each description
    monkeypatch.setattr("kornia_lift.feature.patches.GRADIENT_CHUNK", 10**6)
    monkeypatch.setattr("kornia_lift.detector.detector.recompute", lambda function, *x: function(*x))
    calls.clear()
    expected_loss, expected = gradients()
    assert not calls
    torch.testing.assert_close(loss, expected_loss)
    for a, b in zip(found, expected, strict=True):
        assert b.abs().sum() > 0
        torch.testing.assert_close(a, b)


def test_recomputed_activations_need_little_memory() -> None:
    """What a graph keeps for a keypoint: its patch network's activations alone would be 2 MB."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    image = texture(200, 220)
    extract = LIFTFeature(300, config=DENSE, pretrained=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, _, descriptors = extract(image)
    assert descriptors[0].abs().sum(-1).gt(0).sum() > 200
    assert kept < 60e6
