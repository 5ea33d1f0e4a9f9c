"""Pairs of views from scenes with measured depth: warps by depth and pose, visible where the depths agree."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import VISIBLE
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.images import to_gray
from kornia_lift.training.lfnet.config import ViewPairConfig
from kornia_lift.training.lfnet.losses import inplane_rotation
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

ATTEMPTS = 400  # points of the first image among which one is looked for that the second image shows


class PosedViews:
    """Views of two images of a scene with depth maps, around a point that both show.

    Args:
        scenes: the scenes.
        config: options.

    Raises:
        ValueError: if no scene has a pair of images; when views are drawn, if a depth map has another size than its
            image.

    """

    def __init__(self, scenes: Sequence[PosedScene], config: ViewPairConfig) -> None:
        self.config = config
        self.pairs = [(scene, pair.i, pair.j) for scene in scenes for pair in scene.pairs]
        if not self.pairs:
            raise ValueError("no scene has a pair of images with depth")
        self._banks: dict[tuple[str, int], ImageBank] = {}

    def with_rotation(self, limit: float) -> PosedViews:
        """Return a source of the same images that adds another largest rotation, degrees."""
        other = copy.copy(self)
        other.config = replace(self.config, rotation=limit)
        return other

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        drawn = [self._draw_pair(generator) for _ in range(count)]
        return augment_views(join_views(drawn), self.config.photometric, generator)

    def _draw_pair(self, generator: Generator) -> Views:
        c = self.config
        scene, i, j = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=generator))]
        if bool(torch.rand(1, generator=generator) < 0.5):
            i, j = j, i
        u = float(torch.rand(1, generator=generator))
        step = c.min_step ** (1 - u) * c.max_step**u
        here, there, zoom = self._common_point(scene, i, j, generator)
        rotation = inplane_rotation(torch.from_numpy(scene.relative_pose(i, j)[0])[None])
        added = random_similarity(generator, c.scale, c.rotation)
        linear = [torch.eye(2) * step, zoom * rotation_matrix(rotation)[0].float() @ added * step]
        banks = [self._bank(scene, image) for image in (i, j)]
        views, maps, inside = cut_around(banks, (here, there), linear, c.size, generator)
        views |= self._warp(scene, (i, j), (maps[0], maps[1]), inside[0], "first", "second")
        views |= self._warp(scene, (j, i), (maps[1], maps[0]), inside[1], "second", "first")
        return views

    def _common_point(self, scene: PosedScene, i: int, j: int, generator: Generator) -> tuple[Tensor, Tensor, float]:
        """Draw a point of image i that image j shows; its positions in both, and the change of size there."""
        size, other = (torch.tensor(scene.camera_size(k)) - 1.0 for k in (i, j))
        points = (torch.rand(ATTEMPTS, 2, generator=generator) * size).double().numpy()
        moved = scene.transfer(i, j, points)
        good = np.flatnonzero(moved.status == VISIBLE)
        if not len(good):  # hardly any overlap: the middles of both images, where nothing may be seen
            return size / 2, other / 2, 1.0
        n = good[0]
        zoom = math.sqrt(abs(float(np.linalg.det(scene.local_affine(i, j, points[n : n + 1])[0]))))
        return torch.from_numpy(points[n]).float(), torch.from_numpy(moved.points[n]).float(), zoom

    def _warp(
        self,
        scene: PosedScene,
        images: tuple[int, int],
        maps: tuple[Tensor, Tensor],
        inside: Tensor,
        name: str,
        to: str,
    ) -> Views:
        size = self.config.size
        here = pixel_positions(size, torch.float64) @ maps[0][:2, :2].double().mT + maps[0][:2, 2]
        moved = scene.transfer(*images, here.numpy())
        back = torch.linalg.inv(maps[1].double())
        xy = torch.from_numpy(moved.points).nan_to_num(nan=-9.0) @ back[:2, :2].mT + back[:2, 2]
        affine = torch.from_numpy(scene.local_affine(*images, here.numpy())).nan_to_num(nan=1.0)
        angle = inplane_rotation(torch.from_numpy(scene.relative_pose(*images)[0])[None])
        whole = back[:2, :2] @ (rotation_matrix(angle)[0].double() * affine[:, :1, :1].abs()) @ maps[0][:2, :2].double()
        seen = torch.from_numpy(moved.status == VISIBLE) & is_inside(xy, (size, size)) & inside.flatten()
        square = (1, size, size)
        return {
            f"to_{to}": xy.float().view(*square, 2),
            f"seen_{name}": seen.view(square),
            f"zoom_{name}": torch.linalg.det(whole).abs().sqrt().clamp(min=1e-6).float().view(square),
            f"rotation_{name}": torch.atan2(whole[:, 1, 0], whole[:, 0, 0]).float().view(square),
        }

    def _bank(self, scene: PosedScene, image: int) -> ImageBank:
        key = str(scene.root), image
        if key not in self._banks:
            self._banks[key] = crop_bank([to_gray(scene.image(image))])
        return self._banks[key]
