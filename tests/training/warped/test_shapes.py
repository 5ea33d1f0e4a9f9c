"""Drawn shapes: most of their contrast lies on straight edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kornia_lift.training.warped.shapes import draw_shapes


def test_most_contrast_lies_on_straight_edges() -> None:
    pytest.importorskip("cv2")
    image = torch.stack(draw_shapes(3, seed=2)).float()[:, None]
    assert image.shape == (3, 1, 512, 512) and image.std() > 15
    dx, dy = image[..., 1:-1, 2:] - image[..., 1:-1, :-2], image[..., 2:, 1:-1] - image[..., :-2, 1:-1]
    xx, yy, xy = (F.avg_pool2d(product, 15, 1) for product in (dx * dx, dy * dy, dx * dy))
    root = ((xx - yy) ** 2 + 4 * xy**2).sqrt()
    weak, strong = (xx + yy - root) / 2, (xx + yy + root) / 2
    textured = strong > 100
    assert 0.03 < textured.float().mean() < 0.6
    assert (weak < 0.05 * strong)[textured].float().mean() > 0.6


def test_drawing_repeats_by_its_seed() -> None:
    pytest.importorskip("cv2")
    one, again, other = draw_shapes(1, seed=5)[0], draw_shapes(2, seed=5)[0], draw_shapes(1, seed=6)[0]
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert draw_shapes(0) == []
