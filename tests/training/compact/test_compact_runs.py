"""Runs of the compact recipe: a model at the end, and what they start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kornia.feature import PassLAF

from kornia_lift import LIFTDetector, LIFTFeature
from kornia_lift.cli import main
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.compact.response.stage import SCALE_CROPS, ScaleSpaceResponseStage
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store
from kornia_lift.training.loop.checkpoint import LAST
from kornia_lift.weights import load_tensors, save_model
from kornia_lift.weights._safetensors import write_safetensors
from tests.helpers.pictures import texture
from tests.helpers.training import picture

TINY = """
recipe = "compact"
data = ["{data}"]
table = false
[compact]
{options}
response_shapes = 1
response_images = 1
localization_images = 2
localization_pairs = 8
orientation_images = 2
orientation_pairs = 4
descriptor_images = 2
descriptor_pairs = 4
[compact.views]
points_per_image = 12
[compact.copies]
copies = 1
[compact.response_crops]
size = 96
per_image = 2
[compact.response]
steps = 1
[compact.localization]
steps = 1
[compact.orientation]
steps = 1
[compact.descriptor]
steps = 1
[compact.refine]
steps = 1
"""


@pytest.mark.parametrize("trained", [False, True])
def test_a_whole_run_gives_a_model(
    trained: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_validation: None
) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("safetensors")
    data, out = tmp_path / "mine", tmp_path / "run"
    data.mkdir()
    for i in range(3):
        cv2.imwrite(str(data / f"holiday{i}.jpg"), picture(i, 200))
    config = tmp_path / "tiny.toml"
    config.write_text(TINY.format(data=data.as_posix(), options="train_response = true" * trained))
    done, said = main(["train", str(config), "--out", str(out)]), capsys.readouterr().err
    assert done == 0, said
    assert "too little for descriptor, orientation and refine of the compact recipe: " in said
    assert "paper" not in said
    assert (out / "response").is_dir() == trained
    feature = LIFTFeature(30, pretrained=out / "weights.safetensors").eval()
    assert isinstance(feature.detector.resp, LIFTResponse)
    assert isinstance(feature.orienter.angle_detector, PolarOrientation)
    assert isinstance(feature.descriptor.descriptor, CompactDescriptor)
    assert isinstance(feature.detector.localizer, LAFLocalizer)
    with torch.no_grad():
        lafs, _, descriptors = feature(texture(120, 140))
    assert lafs.shape == (1, 30, 2, 3) and descriptors.shape == (1, 30, 128)
    assert descriptors.isfinite().all()


def test_a_response_is_trained_where_the_options_say_so(tiny_store: Store, tmp_path: Path) -> None:
    assert "response" not in CompactRecipe.stages_of(CompactConfig())
    assert CompactRecipe.stages_of(CompactConfig(train_response=True))[0] == "response"
    recipe = CompactRecipe(
        tiny_store, tmp_path, CompactConfig(train_response=True, response_matcher="lift-upright"), validation=tiny_store
    )
    with pytest.raises(ValueError, match="a model with an orientation network, got the upright 'lift-upright'"):
        recipe.run(["response"], progress=False)


@pytest.mark.parametrize("init", ["lift-plus", None])
def test_the_response_of_a_model_is_trained_on(init: str | None, tiny_store: Store, tmp_path: Path) -> None:
    """That of the initial weights, else that of ``compact.detector``."""
    pytest.importorskip("safetensors")
    before = LIFTResponse("lift-plus")
    torch.nn.init.normal_(before.conv.weight, std=0.01)
    save_model(model := tmp_path / "own.safetensors", {"response": before})
    config = CompactConfig(
        detector=str(model),
        train_response=True,
        response_crops=replace(SCALE_CROPS, size=96),
        response_shapes=1,
        response_images=1,
        response=LoopConfig(steps=2, learning_rate=1e-3, warmup_steps=0),
    )
    recipe = CompactRecipe(tiny_store, tmp_path, config, validation=tiny_store, init=init)
    before = LIFTResponse(init or model)
    torch.testing.assert_close(recipe.response.conv.weight, before.conv.weight)
    recipe.run(["response"], progress=False)
    # the run keeps the initial weights where two steps have not made them better: its last state tells
    state = torch.load(tmp_path / "response" / LAST, weights_only=True)["network"]
    moved = (state["conv.weight"] - before.conv.weight.detach()).abs().max()
    assert 1e-5 < moved < 1e-2  # two steps of at most the learning rate each
    assert recipe.response.contrast == before.contrast


def test_crops_are_searched_on_the_levels_of_the_detector(tiny_store: Store, tmp_path: Path) -> None:
    config = CompactConfig(train_response=True, response_crops=replace(SCALE_CROPS, size=96), response_shapes=1)
    recipe = CompactRecipe(tiny_store, tmp_path, config, validation=tiny_store)
    stage = recipe.make_stage("response")
    assert isinstance(stage, ScaleSpaceResponseStage)
    localizer = LAFLocalizer(recipe.localization)
    levels = LIFTDetector(5, resp_module=recipe.response, localizer=localizer).config
    assert (stage.grid.per_octave, stage.radius) == (levels.levels_per_octave, levels.nms_radius)
    assert stage.grid.sides[0] == 96 and stage.grid.sides[-1] == 24


@pytest.mark.parametrize("begins_small", [False, True])
def test_small_networks_are_made_and_kept(begins_small: bool, tiny_store: Store, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    config = CompactConfig(small=begins_small)
    first = CompactRecipe(tiny_store, tmp_path / "first", config, validation=tiny_store)
    first.save(init := tmp_path / "own.safetensors")
    other = replace(config, small=not begins_small)  # what a run goes on from decides
    second = CompactRecipe(tiny_store, tmp_path / "second", other, validation=tiny_store, init=init)
    for recipe in (first, second):
        assert recipe.localization.blocks == recipe.orientation.small == begins_small
        assert len(recipe.descriptor.features.pairs()) == (5 if begins_small else 6)
    for one, two in zip(first.parts.values(), second.parts.values(), strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-3, atol=1e-3)
        assert all(weight.requires_grad for weight in two.parameters())


def test_a_run_goes_on_from_models_with_and_without_localization(tiny_store: Store, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    first = CompactRecipe(tiny_store, tmp_path / "first", validation=tiny_store)
    torch.nn.init.normal_(first.localization.heat.weight)
    torch.nn.init.normal_(first.response.conv.weight)
    for part in (first.response, first.localization, first.orientation, first.descriptor):
        part.eval()
    first.save(tmp_path / "with.safetensors")
    tensors, _ = load_tensors(tmp_path / "with.safetensors")
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("localization.")}
    write_safetensors(tmp_path / "without.safetensors", without, {"networks": "compact"})
    for name, has_it in (("with", True), ("without", False)):
        init = tmp_path / f"{name}.safetensors"
        assert isinstance(LIFTFeature(pretrained=init).detector.localizer, LAFLocalizer if has_it else PassLAF)
        recipe = CompactRecipe(tiny_store, tmp_path / name, validation=tiny_store, init=init)
        heat, conv = recipe.localization.heat.weight, recipe.descriptor.features[0].weight
        # the run's own response, not that of compact.detector
        torch.testing.assert_close(recipe.response.conv.weight, first.response.conv.weight.half().float())
        torch.testing.assert_close(heat, first.localization.heat.weight.half().float() * has_it)
        torch.testing.assert_close(conv, first.descriptor.features[0].weight.half().float())
        assert heat.requires_grad and conv.requires_grad
