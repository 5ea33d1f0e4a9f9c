"""The ranking stage: what the run-time pipeline matches rightly is pushed above what it does not."""

from __future__ import annotations

import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor, nn

from kornia_lift import LIFTResponse
from kornia_lift.training.modern.crops import CropConfig, WarpedCrops
from kornia_lift.training.modern.matchable import MatchableDetectorStage
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage

from ..pictures import texture

SIZE = 160
EDGE = 40  # the second image is black to the left of this column


class Prescribed(nn.Module):
    """A feature that finds the same six places in every image; the last two have each other's descriptors."""

    PLACES = ((100.0, 40.0), (100.0, 120.0), (EDGE + 3.0, 80.0), (8.0, 80.0), (60.0, 120.0), (130.0, 80.0))

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xy = torch.tensor(self.PLACES)[None]
        lafs = laf_from_center_scale_ori(xy, torch.full((1, len(xy[0]), 1, 1), 14.0))
        vectors = torch.eye(len(xy[0]))
        if self.calls % 2:
            vectors = vectors[[0, 1, 2, 3, 5, 4]]
        self.calls += 1
        return lafs, torch.ones(1, len(xy[0])), vectors[None]


def stage() -> MatchableDetectorStage:
    config = CropConfig(size=72, per_photo=1)
    crops = WarpedCrops([[(texture(200, 200)[0, 0] * 255).to(torch.uint8)]], config)
    network = LIFTResponse(False)
    return MatchableDetectorStage(Prescribed(), network, RepeatableDetectorStage(network, crops, crops), crops)


def drawn() -> dict[str, Tensor]:
    """Two equal images, the left of the second one cut off."""
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


def test_right_matches_are_positive_and_edges_of_the_photograph_negative() -> None:
    batch = stage()._labelled(drawn())
    # first image: the place at x = 8 is not in the second one, hence not judged; the others as they match
    assert batch["label"][:5].tolist() == [1, 1, 1, 0, 0]
    # second image: both places at the black edge are worthless there, although one is found again
    assert batch["label"][5:].tolist() == [1, 1, 0, 0, 0, 0]
    assert batch["window"].shape == (11, 1, 25, 25)


def test_the_loss_raises_right_over_wrong() -> None:
    torch.manual_seed(0)
    ranking = stage()
    batch = ranking._labelled(drawn())
    optimizer = torch.optim.Adam(ranking.network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss, figures = ranking.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert figures["matched"] == batch["label"].mean()


def test_a_share_of_the_second_crops_has_a_black_corner() -> None:
    photo = (texture(200, 200)[0, 0] * 255).to(torch.uint8)

    def draw(share: float) -> dict[str, Tensor]:
        config = CropConfig(size=64, per_photo=4, max_step=1.2, black_corner=share)
        return WarpedCrops([[photo]], config).draw(torch.Generator().manual_seed(4), 5)

    without, half, always = draw(0.0), draw(0.5), draw(1.0)
    assert torch.equal(without["first"], always["first"])
    cut = (without["inside_second"] > 0) & (always["inside_second"] == 0)
    assert (always["second"][cut] == 0).all()
    kept = always["inside_second"] > 0
    assert torch.equal(always["second"][kept], without["second"][kept])
    touched = [
        (batch["inside_second"] != without["inside_second"]).flatten(1).any(1).float().mean()
        for batch in (half, always)
    ]
    assert 0.2 < touched[0] < 0.8
    assert touched[1] > 0.8
    assert cut.flatten(1).float().mean(1).max() < 0.51
