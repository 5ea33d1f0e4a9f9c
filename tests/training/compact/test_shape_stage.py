"""The stage of the affine shapes: what is left between two frames, learning it, and runs that end with such shapes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTFeature
from kornia_lift.evaluation.report.results import FeatureResults
from kornia_lift.evaluation.runner import OK, PairResult
from kornia_lift.feature.shape import CONTEXT
from kornia_lift.geometry import rotation_matrix
from kornia_lift.networks.shape import KeypointShape, stretch
from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.copies import CopyConfig, KeypointPairs, copy_images
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.compact.shape import WRONG, ShapeStage, unexplained
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.data.store import Store
from kornia_lift.training.loop.checkpoint import LAST
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.weights import has_part, load_tensors
from tests.helpers.pictures import blob_response, texture
from tests.helpers.training import train_pictures

SAME = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)


def pairs(images: int = 2, stretched: float = 3.0) -> list[KeypointPairs]:
    warp = CropConfig(size=1000, scale=1.0, stretch=stretched, perspective=0.0, shift=0.0)
    detector = LIFTDetector(300, resp_module=blob_response()).eval()
    config = CopyConfig(copies=1, warp=warp, photometric=SAME)
    found = [(texture(220, 220, seed=seed)[0, 0] * 255).round().to(torch.uint8) for seed in range(images)]
    return copy_images(found, detector, config)


def test_a_stretch_that_the_shapes_explain_leaves_nothing() -> None:
    torch.manual_seed(0)
    first, second = 0.4 * torch.randn(2, 50, 2)
    turn = rotation_matrix(6 * torch.rand(50))
    # the frames differ by a rotation and a factor only
    between = 1.7 * stretch(second) @ turn @ stretch(-first)
    assert unexplained(first, second, between).max() < 2e-3
    # of a stretch by 2 that no shape explains, half the logarithm of the ratio of the axes is left
    none = torch.zeros(50, 2)
    left = unexplained(none, none, turn @ torch.diag(torch.tensor([2.0, 1.0])) @ turn.mT)
    torch.testing.assert_close(left, torch.full((50,), math.log(2) / 2))


def test_rotated_frames_know_the_map_between_them() -> None:
    """The patches of a batch are what the relation says: the stretched first one looks as the second."""
    stage = ShapeStage(KeypointShape(False), side := pairs(1), side, photometric=SAME)
    rotated, upright = (stage.pairs.draw([0], 40, torch.Generator().manual_seed(1), rotate=r) for r in (True, False))
    rotated_jacobian, jacobian = rotated["jacobian"], upright["jacobian"]
    torch.testing.assert_close(rotated_jacobian.det(), jacobian.det())
    lengths = [j.square().sum((1, 2)) for j in (rotated_jacobian, jacobian)]  # rotations keep them
    torch.testing.assert_close(*lengths)
    assert (rotated_jacobian - jacobian).abs().amax((1, 2)).median() > 0.3
    torch.testing.assert_close(rotated["offset"].norm(dim=1), upright["offset"].norm(dim=1))

    def seen(batch: dict[str, Tensor]) -> float:
        """Mean correlation of the second patches with what the map says of the first, in the inner half."""
        n = len(batch["first"])
        inverse = torch.linalg.inv(batch["jacobian"])
        # offsets are in sigmas, patches six sigmas to either side
        shift = -(inverse @ batch["offset"][:, :, None]) / 6
        grid = torch.nn.functional.affine_grid(torch.cat([inverse, shift], 2), [n, 1, 32, 32], align_corners=False)
        made = torch.nn.functional.grid_sample(batch["first"], grid, align_corners=False)
        parts = [p[:, 0, 10:22, 10:22].flatten(1) for p in (made, batch["second"])]
        one, two = ((p - p.mean(1, keepdim=True)) / p.std(1, keepdim=True) for p in parts)
        return float((one * two).mean(1).median())

    assert seen(rotated) > 0.8 and seen(upright) > 0.8
    assert seen(rotated | {"jacobian": jacobian}) < 0.6


def test_learning_explains_stretches() -> None:
    torch.manual_seed(0)
    side = pairs(3)
    stage = ShapeStage(KeypointShape(False), side, side, images=3, per_image=48, photometric=SAME)
    before = stage.validate()
    assert before["error"] == pytest.approx(stage.measure.chance)  # circles
    assert stage.measure.what.endswith(f"a stretch of more than {WRONG}")
    optimizer = torch.optim.AdamW(stage.network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        loss, _ = stage.loss(stage.batch(generator, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = stage.validate()
    assert after["left"] < 0.8 * before["left"]
    assert after["error"] < before["error"]
    assert len(stage.parts) == 6


TINY = CompactConfig(
    shape_images=2,
    shape_pairs=8,
    shape=LoopConfig(steps=2, learning_rate=1e-3, warmup_steps=0),
)


def test_a_run_trains_the_shapes_of_the_package_on(tiny_store: Store, tmp_path: Path) -> None:
    config = replace(TINY, shape_copies=replace(TINY.shape_copies, copies=1))
    recipe = CompactRecipe(tiny_store, tmp_path, config, validation=tiny_store, init="lift-plus")
    assert "shape" not in recipe.parts
    shipped = KeypointShape(True).state_dict()
    torch.testing.assert_close(recipe.shape.state_dict(), shipped)
    recipe.run(["shape"], progress=False)
    state = torch.load(tmp_path / "shape" / LAST, weights_only=True)["network"]
    assert 1e-5 < (state["head.weight"] - shipped["head.weight"]).abs().max() < 1e-2
    recipe.shape.head.bias.data.add_(0.5)  # as if it had learned something
    recipe.save(own := tmp_path / "own.safetensors")
    # the feature has the shapes of the file, and models without any those of the package
    for model, bias in ((own, recipe.shape.head.bias), ("lift-plus", shipped["head.bias"])):
        found = LIFTFeature(10, pretrained=model, affine=True).affine.network.head.bias
        torch.testing.assert_close(found, bias, atol=1e-3, rtol=1e-3)
    again = CompactRecipe(tiny_store, tmp_path / "again", config, validation=tiny_store, init=own)
    torch.testing.assert_close(again.shape.head.bias, recipe.shape.head.bias, atol=1e-3, rtol=1e-3)
    assert "shape" in again.parts  # a run of other stages keeps them


def test_a_rejected_stage_leaves_no_shapes_in_the_file(tiny_store: Store, tmp_path: Path) -> None:
    class Rejects:
        """A referee before whom every stage loses."""

        def measure(self, name: str, model: str | Path, affine: bool = False) -> FeatureResults:
            assert affine
            count = 9.0 if name.startswith("before") else 3.0
            pair = PairResult("scene", "a", "b", OK, "", {"correct_matches": count, "homography_auc_5": 0.5})
            return FeatureResults(name, {"warped": [pair]}, {})

    config = replace(TINY, shape_copies=replace(TINY.shape_copies, copies=1))
    recipe = CompactRecipe(tiny_store, tmp_path, config, validation=tiny_store)
    recipe.run(["shape"], progress=False, referee=Rejects())  # type: ignore[arg-type]
    recipe.save(own := tmp_path / "own.safetensors")
    assert not has_part(own, "shape")
    # the feature takes those of the package
    found = LIFTFeature(10, pretrained=own, affine=True).affine.network.head.weight
    torch.testing.assert_close(found, KeypointShape(True).head.weight)


def test_fine_tuned_shapes_are_measured_with_affine_frames(tmp_path: Path, small_validation: None) -> None:
    out = train_pictures(tmp_path, "lift-plus", "shape")
    report = (out / "held_out.md").read_text()
    assert "All models but SIFT were measured with affine shapes" in report
    # the response and all other networks are those of the start
    kept, start = (load_tensors(model)[0] for model in (out / "weights.safetensors", "lift-plus"))
    for name, tensor in start.items():
        torch.testing.assert_close(kept[name].float(), tensor.float())


def test_the_networks_see_the_region_that_the_feature_shows_them() -> None:
    """At run time the network sees CONTEXT times the frame; so it does in training."""
    stage = ShapeStage(
        KeypointShape(False), side := pairs(1), side, images=1, per_image=4, jitter=0.0, photometric=SAME
    )
    (pair,) = side
    pair.image.copy_(torch.arange(220)[None].expand(220, -1))  # gray values are columns
    stage.pairs = type(stage.pairs)(side)
    batch = stage.pairs.draw([0], 4, torch.Generator().manual_seed(0), context=CONTEXT)
    sigma = pair.sigma[torch.randperm(len(pair.xy), generator=torch.Generator().manual_seed(0))[:4]]
    for patch, size in zip(batch["first"][:, 0] * 255, sigma, strict=True):
        inner = patch[16, 12:20]  # columns that surely lie in the image
        assert float((inner[-1] - inner[0]) / 7 * 32) == pytest.approx(
            2 * CONTEXT * 6 * 64 / 63 * float(size), rel=0.15
        )
