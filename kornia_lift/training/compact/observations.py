"""Locations seen in images: what the compact recipe draws its views from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kornia_lift.training.data.store import Store
from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class ViewConfig:
    """Which locations are used, and at which sizes.

    Args:
        min_reach: smallest half side of the support region in pixels of the view that shows the location smallest.
        max_reach: largest half side in that view.
        largest_view: largest half side in any view.
        region: side of the described region over the paper's 12 sigma, for locations that have a scale of their own.
        points_per_image: locations taken from each single image.
        seed: seed of the choice of locations.

    """

    min_reach: float = 11.0
    max_reach: float = 70.0
    largest_view: float = 140.0
    region: float = 2.0
    points_per_image: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "min_reach", "region", above=0)
        check_limits(self, "max_reach", at_least=self.min_reach)
        check_limits(self, "largest_view", at_least=self.max_reach)
        check_limits(self, "points_per_image", at_least=1)
        check_limits(self, "seed", at_least=0)


@dataclass(frozen=True)
class Observations:
    """Locations seen in images.

    Args:
        images: gray images, uint8, shape (H, W) each.
        image: index of the image, shape (M,).
        track: number of the location, shape (M,).
        xy: position in pixels, pixel centres at integers, shape (M, 2).
        zoom: pixels per unit of length at the location, shape (M,).
        angle: clockwise angle of the common frame of the track in this image, radians, shape (M,).
        sigma: SIFT scale of a detection in pixels; 0 where any size may be drawn. Shape (M,).

    """

    images: tuple[Tensor, ...]
    image: Tensor
    track: Tensor
    xy: Tensor
    zoom: Tensor
    angle: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.image)

    @property
    def num_locations(self) -> int:
        """Number of different locations."""
        return len(self.track.unique())


def load_observations(store: Store, config: ViewConfig) -> Observations:
    """Decode the images of a store and choose among the locations that they show.

    Raises:
        ValueError: if no image shows a location.

    """
    rng = np.random.default_rng(config.seed)
    table = store.tracks
    if not len(table):
        raise ValueError("the images show no location to learn from: use larger ones, or some with texture")
    scene_of = store.scene_numbers[table.image]
    alone = np.array([image.kind in ("single", "exposures") for image in store.images])[table.image]
    # all locations of scenes, some of single images and exposures
    chosen = [np.unique(table.point[~alone])]
    for scene in np.unique(scene_of[alone]):
        chosen.append(rng.permutation(np.unique(table.point[scene_of == scene]))[: config.points_per_image])
    seen = table.take(np.isin(table.point, np.concatenate(chosen)))
    return Observations(
        tuple(image.decode() for image in store.images),
        torch.from_numpy(seen.image).long(),
        torch.from_numpy(np.unique(seen.point, return_inverse=True)[1]).long(),
        torch.from_numpy(seen.xy),
        torch.from_numpy(seen.zoom),
        torch.from_numpy(seen.angle),
        torch.zeros(len(seen)),
    )


def join_observations(
    images: tuple[Tensor, ...], parts: Sequence[Observations], same_tracks: bool = False
) -> Observations:
    """Concatenate observations of the same images.

    Args:
        images: the images.
        parts: the observations.
        same_tracks: the tracks of all parts are the same; otherwise those of each part are renumbered.

    """
    if not parts:
        none, real = torch.zeros(0, dtype=torch.long), torch.zeros(0)
        return Observations(images, none, none, torch.zeros(0, 2), real, real, real)
    counts = [0 if same_tracks or not len(part) else int(part.track.max()) + 1 for part in parts]
    firsts = np.cumsum([0, *counts[:-1]])
    parts = [dataclasses.replace(part, track=part.track + int(n)) for part, n in zip(parts, firsts, strict=True)]
    names = ("image", "track", "xy", "zoom", "angle", "sigma")
    return Observations(images, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def connected_images(image: Tensor, track: Tensor, count: int) -> Tensor:
    """Label images so that those that show a common location, directly or through others, have one label.

    Args:
        image: image of each observation, shape (M,).
        track: location of each observation, shape (M,).
        count: number of images.

    Returns:
        Labels, shape (count,).

    """
    label = torch.arange(count)
    tracks = int(track.max()) + 1 if len(track) else 0
    while True:
        # the smallest label of the images of a track, and then of the tracks of an image
        of_track = torch.full((tracks,), count).scatter_reduce(0, track, label[image], "amin")
        smaller = label.scatter_reduce(0, image, of_track[track], "amin")
        if torch.equal(smaller, label):
            return label
        label = smaller
