"""Patches of one location: cut once from the images, warped and augmented again for every batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from kornia.feature import extract_patches_from_pyramid, laf_from_center_scale_ori
from torch import Tensor

from kornia_lift._gray import to_bytes
from kornia_lift.geometry import DESCRIPTOR_SIZE, LAF_SCALE_PER_SIGMA
from kornia_lift.training.data.images import to_float
from kornia_lift.training.data.store import Observations, Store
from kornia_lift.training.limits import check_limits

CONTEXT = 1.625  # side of the stored patch over that of the descriptor's: room for any rotation and 15 % of zoom
STORED_SIZE = round(DESCRIPTOR_SIZE * CONTEXT)


@dataclass(frozen=True)
class PatchTracks:
    """Stored patches, grouped in tracks (all views of one location) and by image.

    Args:
        pixels: uint8 patches, shape (M, 104, 104), in frames that agree within a track.
        track: track of each patch, shape (M,).
        image: image of each patch, shape (M,).
        frame: x, y, sigma in pixels of its image, shape (M, 3).

    """

    pixels: Tensor
    track: Tensor
    image: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class CutConfig:
    """How locations are chosen.

    Args:
        points_per_scene: largest number of locations taken from each scene.
        views_per_point: largest number of observations of each location.
        points_per_image: largest number of locations taken from each single image or set of exposures.
        min_sigma: smallest scale in pixels of the view that shows the location smallest.
        max_sigma: largest scale in pixels.
        seed: seed of the choice.

    """

    points_per_scene: int = 2500
    views_per_point: int = 4
    points_per_image: int = 150
    min_sigma: float = 1.3
    max_sigma: float = 9.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "points_per_scene", "points_per_image", at_least=1)
        check_limits(self, "views_per_point", at_least=2)
        check_limits(self, "min_sigma", above=0)
        check_limits(self, "seed", at_least=0)
        check_limits(self, "max_sigma", at_least=self.min_sigma)


def cut_tracks(store: Store, config: CutConfig) -> PatchTracks:
    """Cut patches of the locations of a store into memory (about 11 KiB each).

    Raises:
        ValueError: if no image shows a location to learn from.

    """
    rng = np.random.default_rng(config.seed)
    parts = []
    scene_of = store.scene_numbers
    for number in range(len(store.scenes)):
        table = store.tracks.take(scene_of[store.tracks.image] == number)
        parts.append(_cut_scene(store, table, config, rng))
    return join_tracks(parts)


def join_tracks(parts: Iterable[PatchTracks]) -> PatchTracks:
    """Concatenate, renumbering tracks and images so that they stay distinct."""
    tracks: list[Tensor] = []
    images: list[Tensor] = []
    kept = [part for part in parts if len(part)]
    if not kept:
        raise ValueError(
            "they show no location to learn from: none has SIFT keypoints whose support lies inside the image; use "
            "larger images, or some with texture"
        )
    next_track = next_image = 0
    for part in kept:
        tracks.append(part.track + next_track)
        images.append(part.image + next_image)
        next_track = int(tracks[-1].max()) + 1
        next_image = int(images[-1].max()) + 1
    return PatchTracks(
        torch.cat([p.pixels for p in kept]), torch.cat(tracks), torch.cat(images), torch.cat([p.frame for p in kept])
    )


def _cut(image: Tensor, xy: np.ndarray, sigma: np.ndarray, angle: np.ndarray) -> Tensor:
    """Cut stored patches (uint8) at clockwise angles out of one gray image."""
    lafs = laf_from_center_scale_ori(
        torch.from_numpy(xy).float()[None],
        torch.from_numpy(sigma * LAF_SCALE_PER_SIGMA * CONTEXT).float()[None, :, None, None],
        torch.from_numpy(-np.rad2deg(angle)).float()[None, :, None],
    )
    return to_bytes(extract_patches_from_pyramid(to_float(image), lafs, STORED_SIZE)[0, :, 0])


def _cut_scene(store: Store, seen: Observations, config: CutConfig, rng: np.random.Generator) -> PatchTracks:
    numbers = np.unique(seen.image)
    images = {int(n): store.decode(int(n)) for n in numbers}
    size = np.zeros((len(store.images), 2))
    for number, image in images.items():
        size[number] = image.shape[1], image.shape[0]
    kinds = {store.images[n].kind for n in images}
    limit = config.points_per_scene if kinds - {"single", "exposures"} else config.points_per_image
    least = 1 if kinds == {"single"} else 2
    # frames of one track share the arbitrary basis of the plane; the batch rotates both views anyway
    chosen = rng.permutation(np.unique(seen.point))
    order = np.argsort(seen.point, kind="stable")
    bounds = np.searchsorted(seen.point[order], [chosen, chosen + 1])
    rows: list[tuple[int, int, float]] = []  # observation, track, sigma
    tracks = 0
    for begin, end in bounds.T:
        views = rng.permutation(order[begin:end])[: config.views_per_point]
        sigma = math.exp(rng.uniform(math.log(config.min_sigma), math.log(config.max_sigma)))
        sigmas = seen.zoom[views] / seen.zoom[views].min() * sigma
        # the descriptor's own support, not its context, has to lie in the image
        reach = (sigmas * LAF_SCALE_PER_SIGMA)[:, None]
        inside = ((seen.xy[views] > reach) & (seen.xy[views] < size[seen.image[views]] - 1 - reach)).all(1)
        good = inside & (sigmas < 2.5 * config.max_sigma)
        if good.sum() >= least:
            rows.extend((int(v), tracks, float(s)) for v, s in zip(views[good], sigmas[good], strict=True))
            tracks += 1
        if tracks == limit:
            break
    table = np.array(rows).reshape(-1, 3)
    observation, track_id, sigma_all = table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2]
    pixels = torch.empty((len(table), STORED_SIZE, STORED_SIZE), dtype=torch.uint8)
    for index, image in images.items():
        mine = np.flatnonzero(seen.image[observation] == index)
        if len(mine):
            at = observation[mine]
            pixels[torch.from_numpy(mine)] = _cut(image, seen.xy[at], sigma_all[mine], seen.angle[at])
    frame = np.column_stack([seen.xy[observation], sigma_all])
    image_of = np.searchsorted(numbers, seen.image[observation])
    return PatchTracks(
        pixels, torch.from_numpy(track_id), torch.from_numpy(image_of).long(), torch.from_numpy(frame).float()
    )
