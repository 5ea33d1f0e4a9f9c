"""The ranking stage: what the run-time pipeline matches correctly is pushed above what it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor, nn

from kornia_lift import LIFTResponse
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.training.data.posed_pairs import PairConfig, PosedPair
from kornia_lift.training.modern.matchable import MatchableDetectorStage
from kornia_lift.training.modern.ranking import (
    RankingSet,
    RankingSetBuilder,
    concordance,
    mutual_neighbours,
    ranking_loss,
)
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from tests.helpers.pictures import texture

SIZE = 160
EDGE = 40  # the second image is black to the left of this column


class Prescribed(nn.Module):
    """A feature that finds the same six locations in every image; the last two have each other's descriptors."""

    LOCATIONS = ((100.0, 40.0), (100.0, 120.0), (EDGE + 3.0, 80.0), (16.0, 80.0), (60.0, 120.0), (130.0, 80.0))
    scaling_coef = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.detector = SimpleNamespace(config=ScaleSpaceConfig(), num_features=1000)
        self.calls = 0

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xy = torch.tensor(self.LOCATIONS)[None]
        lafs = laf_from_center_scale_ori(xy, torch.full((1, len(xy[0]), 1, 1), 2 * LAF_SCALE_PER_SIGMA))
        vectors = torch.eye(len(xy[0]))
        if self.calls % 2:
            vectors = vectors[[0, 1, 2, 3, 5, 4]]
        self.calls += 1
        return lafs, torch.ones(1, len(xy[0])), vectors[None]


class Drawn:
    """Two equal images, the left of the second one cut off."""

    def draw(self, generator: torch.Generator, num_images: int) -> dict[str, Tensor]:
        image = texture(SIZE, SIZE)
        inside = torch.ones(1, 1, SIZE, SIZE)
        inside[..., :EDGE] = 0
        same = torch.eye(3)[None]
        return {
            "first": image,
            "second": image * inside,
            "to_first": same,
            "to_second": same,
            "inside_first": torch.ones_like(inside),
            "inside_second": inside,
        }


def warped_set() -> RankingSet:
    builder = RankingSetBuilder(Prescribed(), LIFTResponse(False))  # type: ignore[arg-type]
    builder.add_warped(Drawn(), 1, torch.Generator(), exact=1.0, loose=3.0)  # type: ignore[arg-type]
    return builder.build()


def test_correct_matches_of_warped_crops_are_positive_and_the_edge_of_the_image_negative() -> None:
    ranking = warped_set()
    assert ranking.start.tolist() == [0, 5, 11]
    # first image: the location at x = 16 is not in the second one, hence not judged; the others as they match
    assert ranking.label[:5].tolist() == [1, 1, 1, 0, 0]
    # second image: both locations at the black edge are worthless there, although one is found again
    assert ranking.label[5:].tolist() == [1, 1, 0, 0, 0, 0]
    assert ranking.windows.shape == (11, 625) and ranking.weight.min() == 1


class FlatImage:
    """An image without lens distortion."""

    gray = (texture(SIZE, SIZE)[0, 0] * 255).to(torch.uint8)
    factor = 1.0

    def ideal(self, points: Tensor) -> Tensor:
        return points


def test_matches_of_posed_pairs_count_by_their_epipolar_lines_and_only_where_both_see() -> None:
    builder = RankingSetBuilder(Prescribed(), LIFTResponse(False))  # type: ignore[arg-type]
    # a camera that moves along x: matches lie in the same row. Common points lie near all locations but the fifth.
    rows = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]]).double().numpy()
    shared = torch.tensor(Prescribed.LOCATIONS).double()[[0, 1, 2, 3, 5]] + 2
    pair = PosedPair(0, 1, rows, torch.stack([shared, shared]).numpy())
    images = [FlatImage(), FlatImage()]
    builder.add_posed(images, [pair], PairConfig(reach=0.05))  # type: ignore[arg-type]
    ranking = builder.build()
    # the last two are matched with each other, 40 rows apart; of the fifth nobody knows whether the other image sees it
    assert ranking.label.tolist() == [1, 1, 1, 1, 0] * 2
    assert ranking.weight.tolist() == [1, 1, 1, 1, 1] * 2
    assert ranking.start.tolist() == [0, 5, 10]


def test_windows_are_those_that_the_detector_scored() -> None:
    from kornia_lift import LIFTDetector, LIFTFeature

    torch.manual_seed(1)
    response = LIFTResponse(pretrained=True)
    feature = LIFTFeature(40, detector=LIFTDetector(40, resp_module=response)).eval()
    builder = RankingSetBuilder(feature, response)
    image = texture(200, 240)
    found = builder._detect(image)
    with torch.no_grad():
        scored = response.score_windows(builder._windows(image, found, True).view(-1, 1, 25, 25))
        _, expected = feature.detector(image)
    assert len(found.xy) == 40
    # the detector interpolates the maximum between pixels; its scale may be nearer to the next level
    assert ((scored - expected[0]) / expected[0]).abs().max() < 0.1


def test_a_drawn_batch_repeats_what_an_image_lacks() -> None:
    drawn = warped_set().draw(torch.Generator().manual_seed(0), images=3, per_image=8)
    assert drawn["window"].shape == (3, 8, 625) and drawn["label"].shape == drawn["rank_weight"].shape == (3, 8)


def test_ranking_loss_counts_pairs_of_one_image() -> None:
    score = torch.tensor([[3.0, 1.0, 2.0], [0.0, 50.0, 50.0]])
    label = torch.tensor([[1.0, 0.0, 0.5], [0.5, 0.5, 0.5]])
    weight = torch.ones(2, 3)
    pairs = torch.tensor([2.0, 1.0, 1.0])  # score differences 3-1, 3-2, 2-1, with weights 1, .5, .5
    expected = (torch.nn.functional.softplus(-pairs) * torch.tensor([1.0, 0.5, 0.5])).sum() / 2.0
    assert ranking_loss(score, label, weight) == pytest.approx(float(expected) / 2)  # the second image has no order
    assert concordance(score[:1], label[:1], weight[:1]) == 1.0
    assert concordance(-score[:1], label[:1], weight[:1]) == 0.0
    weight[0, 2] = 0.0
    assert ranking_loss(score[:1], label[:1], weight[:1]) == pytest.approx(
        float(torch.nn.functional.softplus(-pairs[0]))
    )


def test_mutual_neighbours() -> None:
    first = torch.eye(3)
    second = torch.stack([first[1], first[0], torch.nn.functional.normalize(first[0] + 0.1 * first[2], dim=0)])
    a, b = mutual_neighbours(first, second)
    assert a.tolist() == [0, 1] and b.tolist() == [1, 0]


def test_training_raises_correct_over_wrong() -> None:
    torch.manual_seed(0)
    crops = WarpedCrops([[(texture(200, 200)[0, 0] * 255).to(torch.uint8)]], CropConfig(size=72, per_image=1))
    network = LIFTResponse(False)
    repeatable = RepeatableDetectorStage(network, crops, crops, num_images=1, budget=(4, 4))
    ranking = warped_set()
    stage = MatchableDetectorStage(network, repeatable, ranking, ranking, per_image=6)
    before = stage.validate()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(12):
        loss, _ = stage.loss(stage.batch(torch.Generator().manual_seed(step), step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = stage.validate()
    assert before["concordance"] < 0.9 < after["concordance"]
    assert after["error"] == 1 - after["repeated_1px"]
