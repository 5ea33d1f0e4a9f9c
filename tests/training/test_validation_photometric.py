"""Held-out data have the photometric changes of use, whatever the training's are, and a run says when they changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.data.photometric import Photometric, as_in_use, for_validation
from kornia_lift.training.data.prepare.read import ReadOptions, read_source
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.recipe import LFNetRecipe
from kornia_lift.training.loop import fit
from kornia_lift.training.loop.checkpoint import CheckpointError
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.pairs import WarpConfig
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.run import read_run
from tests.helpers.training import picture
from tests.training.loop.toy_stage import ToyStage

#: Changes that no image has: everything is gray but for noise, so that a batch shows whether it was changed by it.
HEAVY = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.4, blur=0.0, shadow=0.0, jpeg=0.0)
NONE = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)


def heavy(warp: Any) -> Any:
    return for_validation(warp, HEAVY)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("singles")
    for n in range(4):
        image = picture(n, 260)
        image[:110] = image[:110] // 16 + 100  # smooth parts, which the paper's recipe needs
        cv2.imwrite(str(folder / f"{n}.png"), image)
    return read_source(Source("single", "mine", folder), ReadOptions(points_per_image=40, quality=98))


def recipe_of(name: str, store: Store, out: Path, validation: Any) -> Recipe[Any]:
    """A recipe whose training data are all noise."""
    chosen: dict[str, Any] = {"validation_photometric": validation}
    if name == "modern":
        modern = ModernConfig()
        warps = {
            key: heavy(getattr(modern, key)) for key in ("descriptor_warp", "orientation_warp", "crop_photometric")
        }
        options = dataclasses.replace(modern, images_per_batch=2, anchors_per_image=6, shapes=1, **warps, **chosen)
        return ModernRecipe(store, out, options)
    if name == "compact":
        compact = CompactConfig()
        keys = ("localization_photometric", "orientation_warp", "descriptor_warp", "refine_warp")
        warps = {key: heavy(getattr(compact, key)) for key in keys}
        copies = dataclasses.replace(compact.copies, photometric=HEAVY)
        return CompactRecipe(store, out, dataclasses.replace(compact, copies=copies, **warps, **chosen))
    if name == "lfnet":
        return LFNetRecipe(store, out, LFNetConfig(size=96, keypoints=40, photometric=HEAVY, **chosen))
    return PaperRecipe(store, out, PaperConfig(synthetic=heavy(PaperConfig().synthetic), **chosen))


def drawn(name: str, recipe: Recipe[Any], held_out: bool) -> torch.Tensor:
    """Patches or crops as a stage of the recipe draws them."""
    generator = torch.Generator().manual_seed(0)
    stage: Any = recipe.make_stage({"lfnet": "lfnet", "paper": "descriptor"}.get(name, "orientation"))
    if name == "paper":
        sampler = recipe.validation if held_out else recipe.train  # type: ignore[attr-defined]
        return sampler.draw(generator, 12).photometric[:, 1, 3].max()
    if name == "lfnet":
        views = (stage.validation if held_out else stage.views).draw(generator, 2)
        return views["first"]
    return stage._batch(stage.validation if held_out else stage.pairs, generator)["first"]


def roughness(x: torch.Tensor) -> float:
    """Mean difference of neighbours: noise of .2 in the mean makes it about .2."""
    return float((x[..., 1:] - x[..., :-1]).abs().mean()) if x.dim() else float(x)


@pytest.mark.parametrize("name", ["modern", "compact", "lfnet", "paper"])
def test_only_training_data_are_augmented_heavily(tmp_path: Path, images: Store, name: str) -> None:
    if name == "compact":
        pytest.importorskip("safetensors")
    rough = {}
    for key, validation in (("in use", as_in_use()), ("none", NONE), ("training", "training")):
        recipe = recipe_of(name, images, tmp_path / key, validation)
        rough[key] = tuple(roughness(drawn(name, recipe, held_out)) for held_out in (False, True))
    # the training is the same whatever the validation is
    assert rough["in use"][0] == rough["none"][0] == rough["training"][0] > 0.12
    assert max(rough["none"][1], rough["in use"][1]) < 0.5 * rough["training"][1]
    assert rough["training"][1] > 0.12


def test_frames_keep_their_noise() -> None:
    warp = WarpConfig(angle=0.3, stretch=2.0)
    held_out = for_validation(warp, as_in_use())
    assert (held_out.angle, held_out.stretch, held_out.shift) == (0.3, 2.0, warp.shift)
    assert (held_out.gain, held_out.blur, held_out.jpeg) == (1.1, 0.0, 0.0)
    assert for_validation(warp, "training") is warp


def test_the_option_is_read_from_a_file() -> None:
    table = {"recipe": "modern", "data": ["x"], "modern": {"validation_photometric": "training"}}
    assert read_run(table).options.validation_photometric == "training"
    table["modern"] = {"validation_photometric": {"noise": 0.01}}
    assert read_run(table).options.validation_photometric == dataclasses.replace(as_in_use(), noise=0.01)
    table["modern"] = {"validation_photometric": "none"}
    with pytest.raises(ValueError, match=r"modern\.validation_photometric"):
        read_run(table)


def test_a_run_that_was_validated_otherwise_is_not_gone_on_with_unnoticed(tmp_path: Path) -> None:
    loop = LoopConfig(steps=2, validate_every=1)
    before = {k: v for k, v in to_mapping(ModernConfig()).items() if k != "validation_photometric"}  # an older version
    fit(ToyStage(), loop, tmp_path, progress=False, resolved=before)
    with pytest.raises(CheckpointError, match="set the recipe's option validation_photometric to 'training'"):
        fit(ToyStage(), loop, tmp_path, progress=False, resolved=to_mapping(ModernConfig()))
    same = to_mapping(ModernConfig(validation_photometric="training"))
    assert fit(ToyStage(), loop, tmp_path, progress=False, resolved=same).step == 2
    assert fit(ToyStage(), loop, tmp_path, progress=False).step == 2  # what has no recipe
