"""Pairs of views from all that the data hold: two images of a scene, and images and their synthetic warps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import ViewPairConfig
from kornia_lift.training.lfnet.posed import PosedViews
from kornia_lift.training.lfnet.tracked import TrackedViews
from kornia_lift.training.lfnet.views import ImageSource, Views, WarpedViews, join_views


class MixedViews:
    """Draws pairs of views from two kinds of sources.

    Args:
        scenes: pairs of two images of a scene; may be empty.
        warped: pairs of an image and its synthetic warp.
        share: of the pairs that come from the scenes, where there are any; which scene source is drawn at random.

    """

    def __init__(self, scenes: Sequence[ImageSource], warped: ImageSource, share: float) -> None:
        self.scenes, self.warped, self.share = scenes, warped, share if scenes else 0.0

    def with_rotation(self, limit: float) -> MixedViews:
        """Return the same sources, which share the images, with another largest rotation in degrees."""
        scenes = [source.with_rotation(limit) for source in self.scenes]
        return MixedViews(scenes, self.warped.with_rotation(limit), self.share)

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        parts = []
        for u in torch.rand(count, generator=generator).tolist():
            chosen = int(torch.randint(max(len(self.scenes), 1), (1,), generator=generator))
            source = self.scenes[chosen] if u < self.share else self.warped
            parts.append(source.draw(generator, 1))
        return join_views(parts)


def views_of(store: Store, config: ViewPairConfig, posed: Sequence[PosedScene] = ()) -> MixedViews:
    """Return what draws pairs of views from the data.

    Args:
        store: images, and the points that scenes have in common.
        config: how the views are drawn.
        posed: scenes with depth maps.

    """
    groups: dict[str, list[Tensor]] = {}
    for n, image in enumerate(store.images):
        # exposures of one scene are aligned: two of them are a pair; other images are alone
        key = image.scene if image.kind == "exposures" else image.name
        groups.setdefault(key, []).append(store.decode(n))
    scenes: list[ImageSource] = [PosedViews(posed, config)] if posed else []
    tracked = TrackedViews(store, config)
    if tracked.pairs:
        scenes.append(tracked)
    c = config
    warped = WarpedViews(list(groups.values()), c.size, (c.min_step, c.max_step), c.scale, c.rotation, c.photometric)
    return MixedViews(scenes, warped, c.tracked)
