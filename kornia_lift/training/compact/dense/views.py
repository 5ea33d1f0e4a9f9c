"""Pairs of views of which half may be rotated by any angle."""

from __future__ import annotations

import torch
from torch import Generator

from kornia_lift.training.compact.dense.config import DenseConfig
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.mixed import views_of
from kornia_lift.training.lfnet.views import Views, join_views


class RotatedViews:
    """Draws each pair of views with a slight rotation, or with a larger one.

    Args:
        store: training data.
        config: how the views are drawn, and the limits of both rotations.

    """

    def __init__(self, store: Store, config: DenseConfig) -> None:
        rotated = views_of(store, config)
        self.sources = [rotated.with_rotation(config.slight), rotated]

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        chosen = (torch.rand(count, generator=generator) < 0.5).long().tolist()
        return join_views([self.sources[n].draw(generator, 1) for n in chosen])
