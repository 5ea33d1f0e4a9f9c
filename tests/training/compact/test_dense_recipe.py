"""The compact recipe with a dense response: the model `lift-dense` and those that are trained from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kornia.feature import PassLAF

from kornia_lift import LIFTFeature
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.feature import feature_of
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.training.compact.dense.config import DenseConfig
from kornia_lift.training.compact.dense.stage import DenseResponseStage
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.compact.response.matches import KeypointMatcher
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store
from kornia_lift.weights import load_tensors, network_family
from tests.helpers.pictures import texture
from tests.helpers.tiny_recipes import tiny_compact
from tests.helpers.training import train_pictures

LOOP = LoopConfig(steps=2, validate_every=2, log_every=1, learning_rate=1e-3)
CONFIG = tiny_compact(LOOP, detector="lift-dense", use_detections=False)
DENSE = DenseConfig(size=96, pairs_per_batch=2, validation_pairs=2)


def test_the_recipe_makes_a_feature_with_the_response_of_a_model(
    hard_store: Store, tmp_path: Path, small_validation: None
) -> None:
    recipe = CompactRecipe(hard_store, tmp_path / "run", CONFIG, hard_store)
    assert set(recipe.run(progress=False)) == {"localization", "orientation", "descriptor", "refine"}
    recipe.save(own := tmp_path / "own.safetensors")
    assert network_family(own) == "compact"

    feature = feature_of(own, 40)
    assert type(feature) is LIFTFeature and not feature.training
    shipped = DenseResponse("lift-dense").state_dict()
    assert all(torch.equal(feature.detector.resp.state_dict()[name], value) for name, value in shipped.items())
    assert isinstance(feature.detector.localizer, LAFLocalizer)
    # training data are localized as keypoints are at run time, and on the same levels
    localizer = recipe._localizer()
    assert feature.detector.localizer.passes == localizer.passes
    assert recipe._make_detector(40, localizer).config == feature.detector.config
    image = texture(128, 160)
    with torch.no_grad():
        lafs, _, descriptors = feature(image)
    kept = laf_is_filled(lafs)
    assert kept.sum() > 10 and descriptors.shape == (1, 40, 128)
    assert (descriptors[kept].norm(dim=1) - 1).abs().max() < 1e-4
    assert isinstance(feature_of(own, 40, upright=True).orienter, PassLAF)

    again = CompactRecipe(hard_store, tmp_path / "again", CONFIG, hard_store, init=own)
    for name, part in recipe.parts.items():
        assert all(
            torch.allclose(again.parts[name].state_dict()[k], v, rtol=2e-3, atol=1e-4)
            for k, v in part.state_dict().items()
        )


def test_the_response_alone_is_trained_further(hard_store: Store, tmp_path: Path, small_validation: None) -> None:
    config = tiny_compact(LOOP, detector="lift-dense", train_response=True, use_detections=False, dense=DENSE)
    recipe = CompactRecipe(hard_store, tmp_path / "run", config, hard_store, init="lift-dense")
    stage = recipe.make_stage("response")
    assert isinstance(stage, DenseResponseStage) and stage.config == DENSE
    assert isinstance(stage.matcher, KeypointMatcher) and isinstance(stage.matcher.localizer, LAFLocalizer)
    assert set(recipe.run(["response"], progress=False)) == {"response"}
    recipe.save(own := tmp_path / "own.safetensors")
    before, after = (load_tensors(model)[0] for model in ("lift-dense", own))
    assert before.keys() == after.keys()
    changed = {n.partition(".")[0] for n in before if not torch.equal(before[n].float(), after[n].float())}
    assert changed <= {"response"}  # two steps may be worse than none, and are then undone


@pytest.mark.parametrize("stage", ["response", "localization", "shape"])
def test_the_shipped_networks_are_trained_further_from_a_folder(
    stage: str, tmp_path: Path, small_validation: None
) -> None:
    out = train_pictures(tmp_path, "lift-dense", stage)
    assert "shipped lift-dense" in (out / "held_out.md").read_text()
    kept, start = (load_tensors(model)[0] for model in (out / "weights.safetensors", "lift-dense"))
    for name, tensor in start.items():
        if not name.startswith(stage):
            torch.testing.assert_close(kept[name].float(), tensor.float())


def test_weights_of_lf_net_are_for_another_recipe(hard_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use the recipe lfnet"):
        CompactRecipe(hard_store, tmp_path / "a", CONFIG, hard_store, init="lf-net")
