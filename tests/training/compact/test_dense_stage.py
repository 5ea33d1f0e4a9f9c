"""The stage that trains a dense response: which keypoints count, and what counts as found again."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.training.compact.dense.config import DenseConfig
from kornia_lift.training.compact.dense.stage import DenseResponseStage
from kornia_lift.training.compact.dense.views import RotatedViews
from kornia_lift.training.compact.response.matches import KeypointMatcher
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.views import Views, pixel_positions
from kornia_lift.training.warped.degraded import DegradedCrops
from tests.helpers.pictures import texture

SIZE = 96
UNCHANGED = DegradedCrops(share=0.0)
CONFIG = DenseConfig(size=SIZE, pairs_per_batch=2, validation_pairs=2, fewest=2000, most=4000, degraded=UNCHANGED)


class Gray(nn.Module):
    """Scores pixels by their gray values, in a scale in which the best ones stand out."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(60.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shifted:
    """Pairs of views of which the second one is shifted by some pixels, and may show another image.

    Args:
        shift: pixels to the left.
        other: seed of the image of the second view; None for the same image.
        seen: columns of the first view that the second one shows.

    """

    def __init__(self, shift: int = 0, other: int | None = None, seen: slice = slice(None)) -> None:
        self.shift, self.other, self.seen = shift, other, seen

    def draw(self, generator: Generator, count: int) -> Views:
        wide = [texture(SIZE, SIZE + 20, seed=n) for n in range(count)]
        second = wide if self.other is None else [texture(SIZE, SIZE + 20, seed=n + self.other) for n in range(count)]
        at = pixel_positions(SIZE).view(1, SIZE, SIZE, 2).expand(count, -1, -1, -1)
        offset = torch.tensor([float(self.shift), 0.0])
        seen = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
        seen[..., self.seen] = True
        views = {"first": torch.cat(wide)[..., 10 : 10 + SIZE], "to_second": at - offset, "seen_first": seen}
        start = 10 + self.shift
        return views | {
            "second": torch.cat(second)[..., start : start + SIZE],
            "to_first": at + offset,
            "seen_second": seen.roll(-self.shift, 2),
        }


class Verdict(KeypointMatcher):
    """Says of all keypoints whether they are repeated, and matched."""

    def __init__(self, repeated: bool, matched: bool) -> None:
        nn.Module.__init__(self)
        self.answer = repeated, matched

    def forward(self, crops: Tensor, chosen: object, expected: object) -> tuple[Tensor, Tensor]:
        valid = chosen.valid  # type: ignore[attr-defined]
        return tuple(valid & answer for answer in self.answer)  # type: ignore[return-value]


def stage(views: Shifted, matcher: KeypointMatcher | None = None, network: nn.Module | None = None):
    return DenseResponseStage(network or Gray(), views, views, CONFIG, matcher)


def loss(views: Shifted, matcher: KeypointMatcher | None = None) -> float:
    made = stage(views, matcher)
    return made.loss(made.batch(torch.Generator().manual_seed(0), 0))[0].item()


def test_keypoints_of_the_same_image_are_found_again_and_those_of_another_are_not() -> None:
    same, other = loss(Shifted(5)), loss(Shifted(5, other=50))
    assert same < 0.65 and other > 0.85
    assert stage(Shifted(5)).validate()["error"] < 0.1  # the border of 12 pixels hides a few
    assert stage(Shifted(5, other=50)).validate()["error"] > 0.6


def test_a_warp_that_is_wrong_by_two_pixels_is_not_precise_enough() -> None:
    class Wrong(Shifted):
        def draw(self, generator: Generator, count: int) -> Views:
            views = super().draw(generator, count)
            wrong = torch.tensor([2.0, 0.0])
            return {**views, "to_second": views["to_second"] + wrong, "to_first": views["to_first"] - wrong}

    found = stage(Wrong(5)).validate()
    assert found["repeated"] < 0.1 and found["repeated_3px"] > 0.8
    assert loss(Wrong(5)) > loss(Shifted(5)) + 0.2


def test_what_is_matched_wrongly_counts_as_not_found_again() -> None:
    views = Shifted(5)
    assert loss(views, Verdict(True, True)) == pytest.approx(loss(views))
    assert loss(views, Verdict(False, False)) == pytest.approx(loss(views))  # not repeated anyway
    assert loss(views, Verdict(True, False)) > loss(views) + 0.3
    for matched, error in ((True, 0.0), (False, 1.0)):  # of the validation, too
        assert stage(views, Verdict(True, matched)).validate()["error"] == error
    made = stage(views, Verdict(True, False))
    assert made.loss(made.batch(torch.Generator(), 0))[1]["mismatched"] == 1.0


def test_only_pixels_that_both_views_show_get_keypoints() -> None:
    made = stage(Shifted(0, seen=slice(20, 50)))
    batch = made.batch(torch.Generator().manual_seed(0), 0)
    scores = made.network(torch.cat([batch["first"], batch["second"]]))
    probability, chosen, common = made._choose(scores, batch)
    assert probability[..., :20].max() == probability[..., 50:].max() == probability[..., :12, :].max() == 0
    x = chosen.xy[..., 0][chosen.valid]
    assert len(x) > 8 and x.min() >= 19 and x.max() <= 50
    # as many as the density says for the common area
    expected = (batch["density"] * common[:2].sum((1, 2, 3)) / 1e6).round()
    assert (chosen.valid[:2].sum(1) <= expected).all()


def test_without_common_pixels_the_loss_is_finite() -> None:
    made = stage(Shifted(0, seen=slice(0)))
    value, _ = made.loss(made.batch(torch.Generator().manual_seed(0), 0))
    value.backward()
    assert value.isfinite() and made.network.factor.grad.isfinite()
    assert made.validate()["error"] == 1.0


def test_training_finds_more_keypoints_again() -> None:
    torch.manual_seed(0)
    network = DenseResponse()
    made = stage(Shifted(7), network=network)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    values = []
    for step in range(40):
        value, _ = made.loss(made.batch(torch.Generator().manual_seed(step), step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) / 5 < sum(values[:5]) / 5 - 0.05


def test_half_of_the_pairs_are_rotated_strongly(hard_store: Store) -> None:
    config = DenseConfig(size=SIZE, tracked=0.0, slight=5.0, rotation=180.0, photometric=Photometric())
    views = RotatedViews(hard_store, config).draw(torch.Generator().manual_seed(2), 40)
    angle = views["rotation_first"][:, SIZE // 2, SIZE // 2].abs().rad2deg()
    slight = (angle < 20).float().mean()  # perspective rotates a little, too
    assert 0.35 < slight < 0.75 and angle.max() > 90


@pytest.mark.parametrize(
    ("option", "value"), [("size", 32), ("slight", 200), ("fewest", 0), ("most", 100), ("tolerance", 0), ("radius", 0)]
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        DenseConfig(**{option: value})  # type: ignore[arg-type]
