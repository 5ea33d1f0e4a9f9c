"""The shipped weights of LF-Net: how they are asked for, what they answer, what they keep when the image rotates."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kornia.feature import PassLAF, get_laf_center, get_laf_orientation, get_laf_scale
from torch import nn

from benchmarks.invariance import CHANGES, images, measure
from kornia_lift import LIFTFeature, mix_features
from kornia_lift._kornia import laf_is_filled
from kornia_lift.cli import build_parser
from kornia_lift.cli._feature import make_lift_feature, provenance
from kornia_lift.cli._options import CommandError
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.evaluation.deepdesc_protocol import load_descriptor
from kornia_lift.feature import LFNetFeature, feature_of
from kornia_lift.networks import LIFTDescriptor, LIFTResponse
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.initial import check_family
from kornia_lift.weights import LFNET_MODEL, WeightFileError, load_tensors
from kornia_lift.weights._registry import FOLDER, MODELS
from tests.helpers.pictures import texture

FILE = FOLDER / MODELS[LFNET_MODEL].file


def _last(name: str) -> str:
    """Name of a tensor below its part, the same in the file and in every module."""
    return re.sub(r"^(.*\b(maps|descriptor)\.)+", "", name)


def test_the_file_is_small_free_and_says_how_it_was_made() -> None:
    assert FILE.stat().st_size < 6e6
    assert MODELS[LFNET_MODEL].licence == "Apache-2.0"
    tensors, metadata = load_tensors(LFNET_MODEL)
    assert {name.partition(".")[0] for name in tensors} == {"detector", "descriptor"}
    assert metadata["networks"] == "lfnet" and "castle" not in metadata["config"]


@pytest.mark.parametrize("pretrained", [True, LFNET_MODEL, FILE], ids=["default", "name", "file"])
@pytest.mark.parametrize("kind", [lambda p: LFNetFeature(30, p), lambda p: LFNetDetector(30, p), LFNetDescriptor])
def test_every_network_takes_them(kind: Callable[[object], nn.Module], pretrained: bool | str | Path) -> None:
    network = kind(pretrained)
    assert not any(module.training for module in network.modules())
    tensors, _ = load_tensors(LFNET_MODEL)
    held = {_last(name): t for name, t in tensors.items()}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, held[_last(name)].to(tensor.dtype))


def test_a_feature_has_weights_unless_random_ones_are_asked_for() -> None:
    image = texture(96, 128)
    with torch.no_grad():
        first, second = LFNetFeature(20)(image), LFNetFeature.from_pretrained(num_features=20)(image)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert LFNetFeature(20, False).training and LFNetDetector(20).training and LFNetDescriptor().training


def test_known_answer() -> None:
    """Computed once, on a processor: weights, layers and conventions stay what they were."""
    with torch.no_grad():
        lafs, responses, descriptors = LFNetFeature(4)(texture(96, 128, seed=4))
    centres = torch.tensor([[21.0036, 58.9995], [35.9974, 73.0011], [90.9950, 73.0008], [109.9997, 53.9948]])
    assert torch.allclose(get_laf_center(lafs)[0], centres, atol=0.02)
    assert torch.allclose(responses[0], torch.tensor([0.4572, 0.3186, 0.3034, 0.2635]), atol=2e-3)
    assert torch.allclose(get_laf_scale(lafs).flatten(), torch.full((4,), 16.5161), atol=0.02)
    angles = get_laf_orientation(lafs).flatten()
    assert torch.allclose(angles, torch.tensor([-126.7715, 167.5167, 29.4293, -78.3166]), atol=0.5)
    begin = torch.tensor([[0.0003, -0.0071, -0.1432, 0.0423, -0.0310], [0.0190, 0.0669, -0.1304, 0.0219, 0.0297]])
    assert torch.allclose(descriptors[0, :2, :5], begin, atol=5e-3)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 0.9999), (torch.float16, 0.98), (torch.bfloat16, 0.9)])
def test_features_have_the_dtype_of_the_image(dtype: torch.dtype, close: float) -> None:
    feature, image = LFNetFeature(40), texture(96, 128)
    with torch.no_grad():
        lafs, _, descriptors = feature(image)
        lafs2, responses2, descriptors2 = feature(image.to(dtype))
    assert responses2.dtype == descriptors2.dtype == dtype
    assert all(t.dtype == torch.float32 for t in feature.parameters())
    keep = laf_is_filled(lafs)[0]
    distance, nearest = torch.cdist(get_laf_center(lafs).double()[0, keep], get_laf_center(lafs2).double()[0]).min(1)
    same = distance < 0.5
    assert same.float().mean() > close - 0.1
    alike = (descriptors[0, keep][same] * descriptors2[0, nearest[same]].float()).sum(1)
    assert alike.median() > close


@pytest.mark.parametrize(("picture", "share"), [("astronaut", 0.8), ("texture", 0.95)])
def test_rotated_by_90_degrees_most_keypoints_and_descriptors_return(picture: str, share: float) -> None:
    """It was trained for every rotation; measured: .85 and .99, 6.9 and 7.5 degrees, .21 and .19."""
    pytest.importorskip("skimage")
    moved = measure(LFNetFeature(600), images()[picture], CHANGES["rotated by 90°"])
    assert moved.keypoints >= 100
    assert moved.returned >= share
    assert moved.angle < 10
    assert moved.descriptor < 0.3


def test_rotated_image_is_matched() -> None:
    """Of the mutual nearest neighbours between a texture and its rotation, most are right."""
    image = texture(160, 160, seed=3)
    with torch.no_grad():
        (lafs, _, descs), (lafs2, _, descs2) = (LFNetFeature(200)(x) for x in (image, image.rot90(1, (-2, -1))))
    keep, keep2 = laf_is_filled(lafs)[0], laf_is_filled(lafs2)[0]
    similar = descs[0, keep] @ descs2[0, keep2].T
    there, back = similar.argmax(1), similar.argmax(0)
    mutual = back[there] == torch.arange(len(there))
    centres, centres2 = get_laf_center(lafs)[0, keep][mutual], get_laf_center(lafs2)[0, keep2][there[mutual]]
    error = (torch.stack([centres[:, 1], 159 - centres[:, 0]], 1) - centres2).norm(dim=1)
    assert mutual.sum() > 50
    assert (error < 3).float().mean() > 0.8


def test_parts_mix_by_name() -> None:
    image = texture(96, 128)
    feature = mix_features("lf-net", "upright", "lift", 20)
    assert torch.equal(feature.detector.maps.input.weight, LFNetDetector(20, True).maps.input.weight)
    with torch.no_grad():
        lafs, _, descriptors = feature(image)
        own, _, _ = LFNetFeature(20)(image)
        other = mix_features("lift", "lift", "lf-net", 20)(image)[2]
    assert descriptors.shape == (1, 20, 128) and other.shape == (1, 20, 256)
    angles, kept = (get_laf_orientation(each)[laf_is_filled(each)] for each in (lafs, own))
    assert torch.allclose(angles, kept, atol=1e-2)
    assert isinstance(feature.orienter, PassLAF)


def test_a_name_gives_the_feature_that_it_is_the_weights_of(tmp_path: Path) -> None:
    assert type(feature_of(LFNET_MODEL, 20)) is LFNetFeature and type(feature_of(FILE, 20)) is LFNetFeature
    assert type(feature_of("lift-plus", 20)) is LIFTFeature
    assert candidate(LFNET_MODEL).identity == candidate(f"mine={FILE}").identity
    with pytest.raises(
        ValueError, match="unknown pretrained model 'lfnet': expected one of .*, lift-dense-upright, lf-net, or the"
    ):
        feature_of("lfnet", 20)


def test_commands_take_the_name() -> None:
    command = ["extract", "images", "--out", "f.h5", "--model", LFNET_MODEL]
    args = build_parser().parse_args(command)
    assert type(make_lift_feature(args)) is LFNetFeature
    recorded = provenance(args)
    assert recorded["scale_space"] is None and recorded["weights_sha256"] == MODELS[LFNET_MODEL].sha256[:16]
    upright = make_lift_feature(build_parser().parse_args([*command, "--upright"]))
    assert upright.detector.upright and not make_lift_feature(args).detector.upright
    with pytest.raises(CommandError, match="leave affine out"):
        make_lift_feature(build_parser().parse_args([*command, "--affine"]))


def test_upright_frames_differ_by_their_angles_only() -> None:
    image = texture(96, 128)
    features = feature_of(LFNET_MODEL, 20), feature_of(LFNET_MODEL, 20, upright=True)
    with torch.no_grad():
        (lafs, responses, _), (upright, same, described) = (f(image) for f in features)
    assert torch.equal(responses, same)
    kept = laf_is_filled(lafs)
    assert get_laf_orientation(upright)[kept].abs().max() == 0 < get_laf_orientation(lafs)[kept].abs().max()
    assert torch.equal(get_laf_center(upright), get_laf_center(lafs))
    assert torch.allclose(get_laf_scale(upright), get_laf_scale(lafs), rtol=1e-5)
    with torch.no_grad():
        assert torch.allclose(features[0].descriptor(image, upright), described, atol=1e-6)


def test_networks_of_others_say_whose_weights_they_are() -> None:
    with pytest.raises(ValueError, match="'lf-net' are LF-Net's.*LFNetFeature.*feature_of"):
        LIFTFeature(20, pretrained=LFNET_MODEL)
    with pytest.raises(WeightFileError, match="of descriptor, detector, not of LIFTResponse"):
        LIFTResponse(LFNET_MODEL)
    with pytest.raises(WeightFileError, match="do not fit"):
        LIFTDescriptor(LFNET_MODEL)
    with pytest.raises(WeightFileError, match="of descriptor, orientation, response, not of LFNetDetector"):
        LFNetFeature(20, "lift")
    with pytest.raises(
        ValueError, match="'lfnet', those of this recipe of 'lift'; use the recipe lfnet, or weights of"
    ):
        check_family(LFNET_MODEL, "lift")
    with pytest.raises(ValueError, match="lf-net describes patches of normalised images"):
        load_descriptor(LFNET_MODEL)


def test_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, LFNET_MODEL, dataclasses.replace(MODELS[LFNET_MODEL], sha256="0" * 64))
    with pytest.raises(WeightFileError, match="install kornia_lift again"):
        LFNetFeature(20)
