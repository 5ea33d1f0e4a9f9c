"""The compact networks behind LF-Net's detector: the feature `lf-net-plus`, and the recipe that trains it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kornia.feature import PassLAF

from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.detector.localizer import LAFLocalizer
from kornia_lift.feature import LFNetFeature, feature_of
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import Store
from kornia_lift.weights import load_tensors, network_family
from tests.helpers.pictures import texture
from tests.helpers.tiny_recipes import tiny_compact
from tests.helpers.training import train_pictures

LOOP = LoopConfig(steps=2, validate_every=2, log_every=1, learning_rate=1e-3)
CONFIG = tiny_compact(LOOP, detector="lf-net", use_detections=False)


def test_the_recipe_makes_a_feature_with_lfnets_detector(
    hard_store: Store, tmp_path: Path, small_validation: None
) -> None:
    recipe = CompactRecipe(hard_store, tmp_path / "run", CONFIG, hard_store)
    results = recipe.run(progress=False)
    assert set(results) == {"localization", "orientation", "descriptor", "refine"}
    recipe.save(own := tmp_path / "own.safetensors")
    assert network_family(own) == "lfnet-plus"

    feature = feature_of(own, 40)
    assert type(feature) is LFNetFeature and not feature.training
    shipped = LFNetDetector(1, True).maps.state_dict()
    assert all(torch.equal(feature.detector.maps.state_dict()[name], value) for name, value in shipped.items())
    assert isinstance(feature.detector.localizer, LAFLocalizer)
    # training data are localized as keypoints are at run time
    assert feature.detector.localizer.passes == recipe._localizer().passes == 2
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


@pytest.mark.parametrize("stage", ["localization", "shape"])
def test_the_shipped_networks_are_trained_further_from_a_folder(
    stage: str, tmp_path: Path, small_validation: None
) -> None:
    out = train_pictures(tmp_path, "lf-net-plus", stage)
    assert "shipped lf-net-plus" in (out / "held_out.md").read_text()
    kept, start = (load_tensors(model)[0] for model in (out / "weights.safetensors", "lf-net-plus"))
    for name, tensor in start.items():
        if not name.startswith(stage):
            torch.testing.assert_close(kept[name].float(), tensor.float())


def test_what_does_not_belong_together_is_refused(hard_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use the recipe lfnet"):
        CompactRecipe(hard_store, tmp_path / "a", CONFIG, hard_store, init="lf-net")
    recipe = CompactRecipe(hard_store, tmp_path / "b", replace(CONFIG, train_response=True), hard_store)
    with pytest.raises(ValueError, match="the recipe lfnet trains"):
        recipe.make_stage("response")
