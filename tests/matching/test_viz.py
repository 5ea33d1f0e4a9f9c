"""The picture of matches shows what it says, where it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor

from kornia_lift._kornia import ShapeError
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.viz import CORRECT, WRONG, draw_keypoints, draw_matches

pytest.importorskip("cv2")


def frame(x: float, y: float, sigma: float, degrees: float) -> Tensor:
    """One LAF, shape (1, 2, 3); the angle in kornia's sense."""
    return laf_from_center_scale_ori(
        torch.tensor([[[x, y]]]), torch.full((1, 1, 1, 1), sigma * LAF_SCALE_PER_SIGMA), torch.tensor([[[degrees]]])
    )[0]


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(x, y) of the pixels of nearly this colour."""
    y, x = np.nonzero(np.abs(picture.astype(int) - colour).sum(2) < 110)
    return np.stack([x, y], 1)


def test_circle_has_its_location_radius_and_direction() -> None:
    black = torch.zeros(1, 1, 100, 120)
    lafs = frame(40, 50, 8, 90), frame(60, 30, 8, 0)
    picture = draw_matches(black, black, lafs, correct=np.array([True]), opacity=0.0)
    assert picture.shape == (100, 120 * 2 + 8, 3)
    points = coloured(picture, CORRECT)
    left, second = points[points[:, 0] < 120], points[points[:, 0] >= 128]
    for own, (x, y) in ((left, (40, 50)), (second, (128 + 60, 30))):
        radius = np.hypot(*(own - [x, y]).T)
        assert radius.max() == pytest.approx(
            8 * LAF_SCALE_PER_SIGMA / 3, abs=1.0
        )  # a third of the support region's half side
        assert (radius > 15.2).sum() > 20  # the rest of the circle is blended with the background
    # 90 degrees counter-clockwise on screen points up, 0 to the right.
    assert ((left[:, 0] == 40) & (left[:, 1] > 36) & (left[:, 1] < 48)).sum() >= 10
    assert ((left[:, 0] == 40) & (left[:, 1] > 52) & (left[:, 1] < 64)).sum() == 0
    assert ((second[:, 1] == 30) & (second[:, 0] > 190) & (second[:, 0] < 202)).sum() >= 10


def test_line_joins_the_ends_and_wrong_is_red() -> None:
    white = torch.ones(1, 3, 60, 60)
    lafs = torch.cat([frame(10, 10, 1, 0), frame(10, 50, 1, 0)]), torch.cat([frame(50, 10, 1, 0), frame(50, 50, 1, 0)])
    picture = draw_matches(white, white, lafs, correct=np.array([True, False]), opacity=1.0)
    assert set(coloured(picture, CORRECT)[:, 1]) <= set(range(7, 14))
    assert set(coloured(picture, WRONG)[:, 1]) <= set(range(47, 54))
    assert len(coloured(picture, CORRECT)) > 90


def test_images_are_shown_as_they_are() -> None:
    first, second = torch.rand(1, 3, 20, 30), torch.rand(1, 1, 35, 25)
    none = torch.zeros(0, 2, 3)
    picture = draw_matches(first, second, (none, none))
    assert picture.shape == (35, 30 + 8 + 25, 3)
    np.testing.assert_array_equal(picture[:20, :30], (first[0] * 255).round().byte().permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(picture[:, 38:, 1], (second[0, 0] * 255).round().byte().numpy())
    assert (picture[20:, :30] == 255).all()


def test_large_images_are_reduced_with_their_frames() -> None:
    black = torch.zeros(1, 1, 400, 796)
    lafs = (frame(399.5, 199.5, 20, 0),) * 2
    picture = draw_matches(black, black, lafs, max_width=800, opacity=0, correct=np.array([True]))
    assert picture.shape == (199, 800, 3)
    points = coloured(picture, CORRECT)
    left = points[points[:, 0] < 396]
    centre = (left.min(0) + left.max(0)) / 2
    np.testing.assert_allclose(centre, [198.5, 99], atol=1)
    assert np.ptp(left[:, 1]) == pytest.approx(2 * 2 * 20 * 792 / 1592, abs=3)


def test_tall_images_are_reduced_to_what_a_picture_file_holds() -> None:
    none = torch.zeros(0, 2, 3)
    assert draw_matches(torch.rand(1, 1, 20000, 40), torch.rand(1, 1, 50, 20), (none, none)).shape == (8000, 40, 3)


def test_lines_are_limited_and_spread() -> None:
    black = torch.zeros(1, 1, 300, 20)
    lafs = torch.cat([frame(10, y, 0.5, 0) for y in range(5, 295)])
    picture = draw_matches(black, black, (lafs, lafs), max_lines=10, opacity=1.0)
    rows = np.nonzero(picture[:, 22:26].reshape(300, -1).min(1) < 250)[0]  # across the white gap
    assert 10 <= len(rows) <= 30
    assert rows.min() < 10
    assert rows.max() > 290


def test_numbers_must_agree() -> None:
    black = torch.zeros(1, 1, 20, 20)
    with pytest.raises(ValueError, match="got 2 and 1 frames"):
        draw_matches(black, black, (torch.zeros(2, 2, 3), torch.zeros(1, 2, 3)))


def test_small_image_is_enlarged_towards_half_the_height_of_the_other() -> None:
    black = torch.zeros(1, 1, 400, 300)
    lafs = frame(150, 200, 4, 0), frame(19.5, 9.5, 2, 0)
    picture = draw_matches(black, torch.zeros(1, 1, 20, 40), lafs, correct=np.array([True]), opacity=0)
    assert picture.shape == (400, 300 + 8 + 300, 3)  # 150 x 300: not wider than the other
    points = coloured(picture, CORRECT)
    second = points[points[:, 0] >= 308]
    centre = (second.min(0) + second.max(0)) / 2  # the radius reaches the right end of the circle only
    np.testing.assert_allclose(centre, [308 + 149.5, 74.5], atol=1)
    assert np.ptp(second[:, 1]) == pytest.approx(2 * 7.5 * 2 * LAF_SCALE_PER_SIGMA / 3, abs=3)


def test_keypoints_are_circles_at_their_location() -> None:
    lafs = torch.cat([frame(40, 50, 8, 180), torch.zeros(1, 2, 3)])
    picture = draw_keypoints(torch.zeros(1, 1, 100, 120), lafs)
    y, x = np.nonzero(picture.astype(int).sum(2) > 250)
    assert (x.min() + x.max()) / 2 == pytest.approx(40, abs=1)
    assert (y.min() + y.max()) / 2 == pytest.approx(50, abs=1)
    assert np.ptp(y) == pytest.approx(2 * 8 * LAF_SCALE_PER_SIGMA / 3, abs=2)
    assert ((y == 50) & (x > 26) & (x < 38)).sum() >= 10  # 180 degrees point to the left
    assert ((y == 50) & (x > 42) & (x < 54)).sum() == 0
    assert picture[0, 0].sum() == 0  # the empty slot is left out
    with pytest.raises(ValueError, match=r"one image, \(N, 2, 3\), got \(2, 2, 2, 3\)"):
        draw_keypoints(torch.zeros(1, 1, 100, 120), lafs.expand(2, 2, 2, 3))


def test_the_first_keypoints_are_drawn() -> None:
    lafs = torch.cat([frame(20, 20, 2, 0), frame(80, 80, 2, 0)])
    picture = draw_keypoints(torch.zeros(1, 1, 100, 100), lafs, max_keypoints=1)
    assert picture[10:30, 10:30].any()
    assert not picture[70:90, 70:90].any()


def test_images_of_another_range_are_refused() -> None:
    image = torch.full((1, 1, 40, 40), 200.0)
    with pytest.raises(ValueError, match="draw_keypoints expects pixel values in .0, 1."):
        draw_keypoints(image, torch.zeros(0, 2, 3))
    with pytest.raises(ValueError, match="draw_matches expects pixel values"):
        draw_matches(image, image, (torch.zeros(0, 2, 3), torch.zeros(0, 2, 3)))


def test_a_batch_is_refused_instead_of_drawing_its_first_image() -> None:
    one, batch, lafs = torch.zeros(1, 1, 40, 50), torch.zeros(2, 1, 40, 50), frame(20, 20, 3, 0)
    with pytest.raises(ShapeError, match=r"draw_keypoints expects one image .* got \(2, 1, 40, 50\); take images"):
        draw_keypoints(batch, lafs)
    for images in ((one, batch), (batch, one)):
        with pytest.raises(ShapeError, match="draw_matches expects one image"):
            draw_matches(*images, (lafs, lafs))
