"""Pairs of views from scenes with cameras but without depth: warps around common points, checked by epipolar lines.

A reconstruction knows where its points are in every image, and how much larger and how rotated their neighbourhoods
are (:class:`~kornia_lift.training.data.observations.Observations`). A pixel near a common point is carried to the other
image by the similarity of that point. If it lies on another surface it lands elsewhere: off its epipolar line, unless
it moved along it, and then counts as not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.training.data.images import scale_down
from kornia_lift.training.data.posed_pairs import (
    PairConfig,
    PosedImage,
    PosedPair,
    choose_partners,
    epipolar_distance,
    fundamental_matrix,
    images_with_cameras,
)
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import ViewPairConfig
from kornia_lift.training.lfnet.nearest import nearest_point
from kornia_lift.training.lfnet.views import (
    Views,
    augment_views,
    cut_around,
    is_inside,
    join_views,
    pixel_positions,
    random_similarity,
)
from kornia_lift.training.warped.crops import crop_bank


@dataclass(frozen=True)
class TrackedPair:
    """Two images of a scene and their common points.

    Args:
        geometry: the images and their fundamental matrix.
        points: positions of the common points in either image, pixels, shape (2, M, 2).
        similarity: linear part of the map of the neighbourhood of each point, from the first image to the second,
            shape (M, 2, 2).

    """

    geometry: PosedPair
    points: Tensor
    similarity: Tensor


class TrackedViews:
    """Views of two images of a scene, around a point that both show.

    Args:
        store: training data; only images with cameras are used. Where no two images of a scene have enough points in
            common, ``pairs`` is empty.
        config: options.

    """

    def __init__(self, store: Store, config: ViewPairConfig) -> None:
        self.config = config
        self.images: list[PosedImage] = []
        self.pairs: list[TrackedPair] = []
        for chosen in images_with_cameras(store, config.pairs):
            self._add_scene(store, chosen, config.pairs)
        self._banks = [crop_bank([image.gray]) for image in self.images]

    def _add_scene(self, store: Store, chosen: Sequence[int], config: PairConfig) -> None:
        tables = [store.tracks.take(store.tracks.image == k) for k in chosen]
        rows = [dict(zip(t.point.tolist(), range(len(t)), strict=True)) for t in tables]
        partners = choose_partners(rows, config)
        number = {}
        for n in sorted({n for pair in partners for n in pair}):
            number[n] = len(self.images)
            camera = store.images[chosen[n]].camera
            assert camera is not None
            self.images.append(PosedImage(scale_down(store.decode(chosen[n]), config.max_size), camera))
        for i, j in partners:
            common = sorted(rows[i].keys() & rows[j].keys())
            factors = [self.images[number[n]].factor for n in (i, j)]
            one, two = (tables[n].take(np.array([rows[n][p] for p in common])) for n in (i, j))
            points = np.stack([(t.xy + 0.5) * f - 0.5 for t, f in zip((one, two), factors, strict=True)])
            zoom = torch.from_numpy(two.zoom / one.zoom * np.float32(factors[1] / factors[0]))
            rotation = torch.from_numpy(two.angle - one.angle)
            first, second = (store.images[chosen[n]].camera for n in (i, j))
            assert first is not None
            assert second is not None
            geometry = PosedPair(number[i], number[j], fundamental_matrix(first, second), points.astype(np.float64))
            self.pairs.append(
                TrackedPair(
                    geometry,
                    torch.from_numpy(points).float(),
                    zoom[:, None, None] * rotation_matrix(rotation),
                )
            )

    def with_rotation(self, limit: float) -> TrackedViews:
        """Return a source of the same images that adds another largest rotation, degrees."""
        other = copy.copy(self)
        other.config = replace(self.config, rotation=limit)
        return other

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views.

        Raises:
            ValueError: if there are no pairs of images.

        """
        if not self.pairs:
            raise ValueError("no two images of a scene have enough points in common; lower pairs.min_shared")
        drawn = [self._draw_pair(generator) for _ in range(count)]
        return augment_views(join_views(drawn), self.config.photometric, generator)

    def _draw_pair(self, generator: Generator) -> Views:
        c = self.config
        pair = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=generator))]
        point = int(torch.randint(len(pair.similarity), (1,), generator=generator))
        u = float(torch.rand(1, generator=generator))
        step = c.min_step ** (1 - u) * c.max_step**u
        linear = [
            torch.eye(2) * step,
            pair.similarity[point] @ random_similarity(generator, c.scale, c.rotation) * step,
        ]
        banks = [self._banks[number] for number in (pair.geometry.first, pair.geometry.second)]
        views, maps, inside = cut_around(banks, pair.points[:, point].unbind(), linear, c.size, generator)
        return views | self._warp(pair, maps, inside, flip=False) | self._warp(pair, maps, inside, flip=True)

    def _warp(self, pair: TrackedPair, maps: Sequence[Tensor], inside: Sequence[Tensor], *, flip: bool) -> Views:
        """Carry the pixels of the first view to the second, or, with ``flip``, of the second to the first."""
        c = self.config
        mine, other = (1, 0) if flip else (0, 1)
        similarity = torch.linalg.inv(pair.similarity) if flip else pair.similarity
        pixels = pixel_positions(c.size)
        step = float(torch.linalg.det(maps[mine][:2, :2]).abs().sqrt())
        # points and their similarities in pixels of the views
        forth, back = (torch.linalg.inv(maps[side]) for side in (mine, other))
        here = pair.points[mine] @ forth[:2, :2].mT + forth[:2, 2]
        there = pair.points[other] @ back[:2, :2].mT + back[:2, 2]
        linear = back[:2, :2] @ similarity @ maps[mine][:2, :2]
        partner = nearest_point(here, c.size, c.reach)
        offset = pixels - here[partner]
        xy = there[partner] + (linear[partner] * offset[:, None]).sum(-1)
        seen = (offset.square().sum(1) <= c.reach**2) & is_inside(xy, (c.size, c.size)) & inside[mine].flatten()
        candidates = seen.nonzero()[:, 0]
        ends: list[FloatArray] = [
            (p[candidates] @ maps[side][:2, :2].mT + maps[side][:2, 2]).double().numpy()
            for p, side in ((pixels, mine), (xy, other))
        ]
        distance = epipolar_distance(pair.geometry, self.images, *(ends[::-1] if flip else ends))
        seen[candidates] = torch.from_numpy(distance <= c.epipolar * step)
        zoom = (linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]).abs().sqrt()
        rotation = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
        name, to = ("second", "first") if flip else ("first", "second")
        square = (1, c.size, c.size)
        return {
            f"to_{to}": xy.view(*square, 2),
            f"seen_{name}": seen.view(square),
            f"zoom_{name}": zoom[partner].view(square),
            f"rotation_{name}": rotation[partner].view(square),
        }
