"""TILDE's training: locations of aligned stacks, each term of the loss, the stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.features import Features
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.loop.loop import fit
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.losses import classification_loss, peak, shape_loss, temporal_loss
from kornia_lift.training.tilde.stacks import read_stack, repeated_locations
from kornia_lift.training.tilde.stage import TildeStage, make_response
from tests.helpers.training import aligned_stack


def test_hinge_is_squared_and_balanced() -> None:
    score = torch.tensor([0.5, 2.0, -0.5, -3.0, 1.0])
    positive = torch.tensor([True, True, False, False, False])
    expected = ((0.5**2 + 0) / 2 + (0.5**2 + 0 + 2**2) / 3) / 2
    assert classification_loss(score, positive).item() == pytest.approx(expected)
    assert classification_loss(score[:2], positive[:2]).item() == pytest.approx(0.5**2 / 4)


def test_peak_has_no_shape_loss_at_any_height() -> None:
    shape = peak(15, 2.0, 4.0, torch.zeros(()))
    assert shape[7, 7] == 1
    assert shape.argmax() == 7 * 15 + 7
    assert abs(float(shape[7, 11])) < 1e-6  # 4 pixels away
    maps = torch.stack([3 * shape, -shape])
    assert shape_loss(maps, 2.0, 4.0) < 1e-12
    assert shape_loss(maps.roll(2, -1), 2.0, 4.0) > 0.05
    assert shape_loss(maps[:0], 2.0, 4.0) == 0


def test_temporal_loss_is_the_variance_of_each_location() -> None:
    score = torch.tensor([1.0, 3.0, 5.0, 5.0, 9.0])
    location = torch.tensor([0, 0, -1, -1, 7])
    assert temporal_loss(score, location).item() == pytest.approx(0.5)  # 7 is seen once and does not count
    assert temporal_loss(score[:1], location[:1]).item() == 0


def test_repeated_locations_are_found_once() -> None:
    rng = np.random.default_rng(0)
    fixed = np.array([[50.0, 60.0], [120.0, 40.0]])
    points = [
        np.concatenate([fixed + rng.normal(0, 0.3, fixed.shape), rng.uniform(200, 900, (20, 2))]) for _ in range(6)
    ]
    found = repeated_locations(points, 0.9, 3.0)
    assert len(found) == 2
    distance = np.linalg.norm(found[:, None] - fixed[None], axis=-1)
    assert distance.min(0).max() < 1.5
    assert repeated_locations([np.zeros((0, 2))], 0.5, 3.0).shape == (0, 2)


def config(**options: object) -> TildeConfig:
    loop = LoopConfig(steps=60, learning_rate=1e-3, validate_every=60, checkpoint_every=60, log_every=20)
    base: dict[str, object] = {
        "num_sum": 2,
        "num_max": 2,
        "channels": 1,
        "filter_size": 11,
        "map_size": 7,
        "locations_per_batch": 8,
        "tilde": loop,
    }
    return TildeConfig(**(base | options))  # type: ignore[arg-type]


def test_training_tells_dots_from_background_of_another_stack(tmp_path: Path) -> None:
    c = config()
    stage = TildeStage(make_response(c), [aligned_stack(0), aligned_stack(1)], [aligned_stack(2)], c)
    before = stage.validate()
    result = fit(stage, c.tilde, tmp_path, progress=False)
    assert result.figures["loss"] < 0.7 * before["loss"]
    assert result.figures["wrong"] < 0.1


def test_score_map_of_a_patch_is_that_of_the_image() -> None:
    c = config()
    stage = TildeStage(make_response(c), [aligned_stack(0)], [aligned_stack(1)], c)
    batch = stage._cut(stage.stacks[0], torch.Generator().manual_seed(0), 4)
    with torch.no_grad():
        maps = stage.scores(batch["patches"])
        response = stage.response()
        whole = [response(image[None])[0, 0] for image in stage.stacks[0].images]
    for n in range(len(maps)):
        number = int(batch["location"][n])
        points = stage.stacks[0].positives if number >= 0 else stage.stacks[0].negatives
        x, y = (int(v) for v in points[number if number >= 0 else -number - 1])
        assert any((maps[n] - w[y - 3 : y + 4, x - 3 : x + 4]).abs().max() < 1e-4 for w in whole)


def test_stack_of_real_images_has_locations(shared: Path) -> None:
    pytest.importorskip("cv2")
    from kornia_lift.evaluation.features.peers import opencv_sift

    folder = shared / "data/train/illumination/living_room1"
    found = read_stack(folder, opencv_sift(200), config(keypoints=200, repeated=0.4, locations=50))
    assert 5 < len(found.positives) <= 50
    assert len(found.negatives) > 0
    distance = np.linalg.norm(found.positives[:, None] - found.negatives[None], axis=-1)
    assert distance.min() > 5


def test_folders_that_are_no_aligned_stacks_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")

    def extract(pixels: torch.Tensor) -> Features:
        return Features(np.zeros((0, 2)), np.zeros((0, 4), np.float32))

    with pytest.raises(FileNotFoundError, match="fewer than two images"):
        read_stack(tmp_path, extract, config())
    for n, size in enumerate([(64, 48), (64, 40)]):
        image.new("L", size, 128).save(tmp_path / f"{n}.png")
    with pytest.raises(ValueError, match="not an aligned stack: its images have the sizes"):
        read_stack(tmp_path, extract, config())
    image.new("L", (64, 48), 128).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="no location has a keypoint in 50 %"):
        read_stack(tmp_path, extract, config())


@pytest.mark.parametrize(("name", "value"), [("filter_size", 20), ("map_size", 0), ("channels", 3), ("repeated", 1.5)])
def test_options_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        config(**{name: value})


def test_stage_without_stacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no aligned stack to train on"):
        TildeStage(make_response(config()), [], [aligned_stack(0)], config())
