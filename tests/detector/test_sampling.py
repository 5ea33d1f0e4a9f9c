"""Where the pixels of a level lie: by the centred sampling of the library, and by that of LIFT's release."""

from __future__ import annotations

import pytest
import torch

from kornia_lift import ScaleSpaceConfig
from kornia_lift.detector.sampling import CentredSampling, LevelMaps, ReleasedSampling, Sampling, sampling_of
from kornia_lift.detector.scale_space import Level


def ramp(size: int) -> torch.Tensor:
    """An image whose value at a pixel is its column, shape (1, 1, size, size)."""
    return torch.arange(size, dtype=torch.float64).expand(1, 1, size, size).clone()


def test_options_choose_the_sampling() -> None:
    assert isinstance(sampling_of(ScaleSpaceConfig()), CentredSampling)
    assert isinstance(sampling_of(ScaleSpaceConfig.lift()), ReleasedSampling)


@pytest.mark.parametrize("size", [150, 100, 50, 31, 13])
def test_centred_levels_show_what_lies_at_their_positions(size: int) -> None:
    """A pixel away from the border has the value that a linear image has where the pixel is said to lie."""
    sampling = CentredSampling()
    level = sampling.resizer(ramp(100))(Level(1.0, size / 100, (size, size)))[0, 0, size // 2]
    index = torch.arange(size, dtype=torch.float64)
    expected = sampling.to_image(index, size, 100, size / 100)
    inner = slice(size // 4, -(size // 4))
    # the triangle filter has few weights at some sizes: a tenth of a pixel of the image at most
    torch.testing.assert_close(level[inner], expected[inner], atol=0.1, rtol=0)


def test_released_sampling_is_off_by_half_a_pixel_of_both() -> None:
    """The corners of levels coincide, and positions in the image are those of a level over its resize factor."""
    sampling = ReleasedSampling()
    ends = torch.tensor([0.0, 49.0])
    assert sampling.to_other_level(ends, 50, 30).tolist() == [0.0, 29.0]
    assert sampling.to_image(ends, 50, 100, 0.5).tolist() == [0.0, 98.0]
    offset = CentredSampling().to_image(ends, 50, 100, 0.5) - sampling.to_image(ends, 50, 100, 0.5)
    assert offset.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("sampling", "expected"), [(CentredSampling(), 2.4), (ReleasedSampling(), 2.0)])
def test_levels_are_read_in_between_or_at_the_nearest_pixel(sampling: Sampling, expected: float) -> None:
    at = torch.tensor([3.3], dtype=torch.float64), torch.tensor([2.4], dtype=torch.float64)
    assert sampling.read(ramp(9)[0], torch.tensor([0]), *at).tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("sampling", "expected"), [(CentredSampling(), 7.5), (ReleasedSampling(), 20.0)])
def test_reported_scores_are_fitted_or_those_of_the_nearest_pixel_and_level(
    sampling: Sampling, expected: float
) -> None:
    scores = [torch.full((1, 9, 9), value) for value in (10.0, 15.0, 20.0)]
    position = torch.tensor([[4.2, 3.9, 0.7]])
    reported = sampling.report(LevelMaps(scores), torch.tensor([1]), torch.tensor([0]), position, torch.tensor([7.5]))
    assert reported.tolist() == [expected]
