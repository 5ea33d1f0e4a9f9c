"""Training of the correspondence network: losses against the oracle, data of a real scene, stage, weight file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import DescriptorMatcher, LocalFeatureMatcher, laf_from_center_scale_ori
from torch import Tensor, nn

from kornia_lift.geometry.epipolar import weighted_eight_point
from kornia_lift.matching.filtering import CorrespondenceFilter, FilteredMatcher
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.data import MatchedPair, collate, match_pairs
from kornia_lift.training.correspondences.losses import classification_loss, epipolar_labels, essential_loss
from kornia_lift.training.correspondences.recipe import WEIGHTS, CorrespondenceRecipe, save_correspondence
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.loop import fit
from kornia_lift.training.loop.checkpoint import CheckpointError
from tests.helpers.training import matched_pair


def test_losses_reproduce_the_oracle(shared: Path) -> None:
    with np.load(shared / "oracles" / "cne_losses.npz") as file:
        o = {k: torch.from_numpy(file[k]) for k in file.files}
    x, y, z = o["t"].tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    matches = torch.cat([o["x1"], o["x2"]], 1)[None]
    labels = epipolar_labels(matches, (cross @ o["R"])[None], float(o["label_threshold"]))
    assert (labels[0] == o["label"]).all()
    per_pair = classification_loss(o["logits"], o["labels"])
    assert (per_pair - o["classification_per_pair"]).abs().max() < 1e-12
    assert abs(per_pair.mean() - o["classification"]) < 1e-12
    e, true = o["e_hat"].view(3, 3, 3), o["e_gt"].view(1, 3, 3).expand(3, -1, -1)
    assert (essential_loss(e, true) - o["essential_per_pair"]).abs().max() < 1e-12
    c = CorrespondenceConfig()
    total = c.classification_weight * per_pair.mean() + c.essential_weight * essential_loss(e, true).mean()
    assert abs(total - o["total_step_20000"]) < 1e-12
    assert c.essential_from == 20_000 and abs(per_pair.mean() - o["total_step_19999"]) < 1e-12


def test_classification_survives_large_logits_and_padding() -> None:
    logits = torch.tensor([[-500.0, 500.0, 3.0]])
    labels = torch.tensor([[True, False, True]])
    whole = classification_loss(logits, labels, torch.tensor([[True, True, False]]))
    assert whole.item() == pytest.approx(500.0)
    assert classification_loss(logits, labels, torch.zeros(1, 3, dtype=torch.bool)).item() == 0


def test_true_essential_matrix_is_that_of_the_inliers() -> None:
    pair = matched_pair(3, outliers=0.0)
    found = weighted_eight_point(pair.matches[None].double(), torch.ones(1, 100)).essential
    assert essential_loss(found, pair.essential[None]).item() < 1e-8
    assert epipolar_labels(pair.matches[None].double(), pair.essential[None]).all()


def test_batches_pad_what_is_short() -> None:
    pairs = [matched_pair(0, count=30), matched_pair(1, count=60)]
    batch = collate(pairs, 40, torch.Generator().manual_seed(0))
    assert batch["mask"].sum(1).tolist() == [30, 40]
    assert (batch["matches"][0, 30:] == 0).all()
    rows = {tuple(row) for row in pairs[1].matches.tolist()}
    assert all(tuple(row) in rows for row in batch["matches"][1].tolist())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorrespondenceNet, Path, float]:
    """A small network that learned from made pairs, its file, and its validation loss before training."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("correspondences")
    network = CorrespondenceNet(channels=16, blocks=2)
    loop = LoopConfig(steps=60, learning_rate=5e-3, validate_every=60, checkpoint_every=60, log_every=10)
    config = CorrespondenceConfig(pairs_per_batch=6, matches_per_pair=80, essential_from=40, loop=loop)
    stage = CorrespondenceStage(
        network, [matched_pair(n) for n in range(60)], [matched_pair(n) for n in range(90, 96)], config
    )
    before = stage.validate()["classification"]
    result = fit(stage, loop, folder, progress=False)
    path = folder / "correspondence.safetensors"
    save_correspondence(path, network, config, result)
    assert (folder / "log.jsonl").read_text().count('"essential"') >= 2  # the second loss has set in
    return network, path, before


def test_training_lowers_the_loss_on_held_out_pairs(trained: tuple[CorrespondenceNet, Path, float]) -> None:
    _, path, before = trained
    lines = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
    after = [line["classification"] for line in lines if line.get("kind") == "validation"][-1]
    assert after < 0.9 * before


def test_weight_file_gives_the_network_back(trained: tuple[CorrespondenceNet, Path, float]) -> None:
    network, path, _ = trained
    again = CorrespondenceNet(path, channels=16, blocks=2)
    assert not again.training
    matches = matched_pair(5).matches[None]
    with torch.no_grad():
        assert torch.equal(network.eval()(matches).logits, again(matches).logits)


def test_filter_agrees_with_the_network_and_stands_in_for_kornias_matcher(
    trained: tuple[CorrespondenceNet, Path, float],
) -> None:
    network = trained[0].eval()
    pair = matched_pair(7)
    k = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    pixels = pair.matches * 500 + torch.tensor([320.0, 240, 320, 240])
    descriptors = torch.eye(100)
    pairs = torch.arange(100)[:, None].expand(-1, 2)
    with torch.no_grad():
        found = CorrespondenceFilter(network)(pixels[:, :2], pixels[:, 2:], pairs, (k, k))
        direct = network(pair.matches[None])
        assert torch.allclose(found.logits, direct.logits[0], atol=1e-3)
        frames = [laf_from_center_scale_ori(p[None].contiguous()) for p in (pixels[:, :2], pixels[:, 2:])]
        matcher = FilteredMatcher(LocalFeatureMatcher(nn.Identity(), DescriptorMatcher("nn")), network)
        image = torch.zeros(1, 1, 480, 640)
        data = {
            "image0": image,
            "image1": image,
            "lafs0": frames[0],
            "lafs1": frames[1],
            "descriptors0": descriptors[None],
            "descriptors1": descriptors[None],
        }
        out = matcher({**data, "intrinsics0": k[None], "intrinsics1": k[None]})
        single = matcher({**data, "intrinsics0": k, "intrinsics1": k})
    assert torch.equal(out["keypoints0"], single["keypoints0"])
    assert torch.allclose(out["keypoints0"], pixels[found.logits > 0, :2], atol=1e-3)
    assert 0 < len(out["keypoints0"]) < 100


def test_filter_without_matches_is_empty() -> None:
    network = CorrespondenceNet(blocks=1).eval()
    none = torch.zeros(0, 2)
    found = CorrespondenceFilter(network)(none, none, torch.zeros(0, 2, dtype=torch.long), ((640, 480), (640, 480)))
    assert found.weights.shape == (0,) and (found.essential == 0).all()
    image = torch.zeros(2, 1, 48, 64)
    data = {"image0": image, "image1": image}
    for which in (0, 1):
        data |= {f"lafs{which}": torch.zeros(2, 5, 2, 3), f"descriptors{which}": torch.zeros(2, 5, 8)}  # empty slots
    out = FilteredMatcher(LocalFeatureMatcher(nn.Identity(), DescriptorMatcher("nn")), network)(data)
    assert out["keypoints0"].shape == (0, 2) and out["lafs0"].shape == (1, 0, 2, 3)


def test_pairs_of_a_real_scene_agree_with_their_cameras(shared: Path) -> None:
    """A share of SIFT's nearest neighbours far above chance lies on the epipolar lines of the reconstruction."""
    pytest.importorskip("pycolmap")
    pytest.importorskip("cv2")
    from kornia_lift.evaluation.features.peers import opencv_sift

    config = CorrespondenceConfig(keypoints=300, max_pairs=4, max_size=512)
    pairs = match_pairs([shared / "data/train/sfm/castle_facade"], opencv_sift(300), config)
    assert len(pairs) == 4

    def share(pair: MatchedPair, matches: Tensor) -> float:
        return float(epipolar_labels(matches[None].double(), pair.essential[None]).double().mean())

    for pair in pairs:
        assert pair.matches.shape[1] == 4 and 50 < len(pair.matches) <= 300
        assert abs(float(pair.translation.norm()) - 1) < 1e-9
    shuffled = [torch.cat([p.matches[:, :2], p.matches.flip(0)[:, 2:]], 1) for p in pairs]
    found = np.mean([share(p, p.matches) for p in pairs])
    assert found > 2 * np.mean([share(p, m) for p, m in zip(pairs, shuffled, strict=True)])


def test_stage_without_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="to train on"):
        CorrespondenceStage(CorrespondenceNet(blocks=1), [], [matched_pair(0)])


def test_recipe_runs_from_scenes_to_a_weight_file(shared: Path, tmp_path: Path) -> None:
    """On a scene to train on and one that the split of our data holds out; started again, it does not train again."""
    pytest.importorskip("pycolmap")
    pytest.importorskip("cv2")
    from kornia_lift.evaluation.features.peers import opencv_sift

    (tmp_path / "data" / "sfm").mkdir(parents=True)
    for name in ("castle_facade", "reichstag"):
        (tmp_path / "data" / "sfm" / name).symlink_to(shared / "data/train/sfm" / name)
    loop = LoopConfig(steps=2, validate_every=2, checkpoint_every=2)
    config = CorrespondenceConfig(
        keypoints=80, max_pairs=2, max_size=256, matches_per_pair=60, essential_from=1, loop=loop
    )
    results = []
    for _ in range(2):
        before = torch.get_rng_state()
        recipe = CorrespondenceRecipe(tmp_path / "data", opencv_sift(80), tmp_path / "run", config)
        assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is left alone
        assert {p.scene for p in recipe.stage.pairs} == {"castle_facade"}
        assert {p.scene for p in recipe.stage.validation} == {"reichstag"}
        results.append(recipe.run())
    assert results[0].step == results[1].step == 2
    assert results[0].figures == results[1].figures
    network = CorrespondenceNet(tmp_path / "run" / WEIGHTS)
    assert torch.equal(network.input.weight, recipe.network.input.weight)
    written = (tmp_path / "run" / WEIGHTS).read_bytes()
    for other, names in ((replace(config, label_threshold=0.1), ()), (config, ("kornia-sift",))):
        recipe = CorrespondenceRecipe(tmp_path / "data", opencv_sift(80), tmp_path / "run", other, names=names)
        with pytest.raises(CheckpointError, match="label_threshold was|features was"):
            recipe.run()
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == written
