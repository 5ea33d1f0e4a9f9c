"""Patches of the same place: cut once from the photographs, warped and lit anew for every batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kornia.feature import extract_patches_from_pyramid, laf_from_center_scale_ori
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.geometry import DESCRIPTOR_SIZE, LAF_SCALE_PER_SIGMA
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.images import PhotoSources, ScenePart, read_bracket, read_gray, to_float
from kornia_lift.training.data.posed_frames import posed_observations
from kornia_lift.training.data.sfm_frames import SfmObservations, nearest_similarity, read_sfm
from kornia_lift.training.limits import check_limits

CONTEXT = 1.625  # side of the stored patch over that of the descriptor's: room for any rotation and 15 % of zoom
STORED_SIZE = round(DESCRIPTOR_SIZE * CONTEXT)


@dataclass(frozen=True)
class PatchTracks:
    """Stored patches, grouped in tracks (all views of one place) and by image.

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
    """How places are chosen.

    Args:
        points_per_scene: 3-D points taken from each reconstruction or posed scene, at most.
        views_per_point: observations of each point, at most.
        points_per_photo: places taken from each single photograph.
        min_sigma: smallest scale in pixels of the view that sees the place smallest.
        max_sigma: largest scale in pixels.
        photo_size: larger side of single photographs and brackets in pixels; larger ones are scaled down, as
            reconstructed ones are.
        seed: seed of the choice.

    """

    points_per_scene: int = 2500
    views_per_point: int = 4
    points_per_photo: int = 150
    min_sigma: float = 1.3
    max_sigma: float = 9.0
    photo_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "points_per_scene", "points_per_photo", at_least=1)
        check_limits(self, "views_per_point", at_least=2)
        check_limits(self, "min_sigma", above=0)
        check_limits(self, "max_sigma", at_least=self.min_sigma)
        check_limits(self, "photo_size", at_least=2 * STORED_SIZE)


def cut_tracks(sources: PhotoSources, config: CutConfig) -> PatchTracks:
    """Cut the patches of all sources into memory (about 11 KiB each).

    Raises:
        ValueError: if no source shows a place to learn from, or a photograph cannot be read.

    """
    rng = np.random.default_rng(config.seed)
    parts: list[PatchTracks] = []
    for scene in sources.sfm:
        parts.append(_cut_scene(read_sfm(scene), scene, config, rng))
    for part in sources.parts:
        parts.append(_cut_scene(_observations(part), part.scene, config, rng))
    for folder in sources.posed:
        seen = posed_observations(PosedScene.load(folder), config.points_per_scene, rng)
        parts.append(_cut_scene(seen, folder, config, rng))
    for path in sources.photos:
        parts.append(_cut_photo([read_gray(path, config.photo_size)], config, rng))
    for folder in sources.brackets:
        parts.append(_cut_photo(read_bracket(folder, config.photo_size), config, rng))
    return join_tracks(parts)


def join_tracks(parts: Iterable[PatchTracks]) -> PatchTracks:
    """Concatenate, renumbering tracks and images so that they stay distinct."""
    tracks: list[Tensor] = []
    images: list[Tensor] = []
    kept = [part for part in parts if len(part)]
    if not kept:
        raise ValueError(
            "the photographs show no place to learn from: none has SIFT keypoints whose support lies in it; use "
            "larger photographs, or some with texture"
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
    patches = extract_patches_from_pyramid(to_float(image), lafs, STORED_SIZE)[0, :, 0]
    return (patches * 255).round().clamp(0, 255).to(torch.uint8)


def _observations(part: ScenePart) -> SfmObservations:
    """The observations of a part's points in its photographs, of those that two of them show."""
    seen = read_sfm(part.scene)
    held_out = np.random.default_rng(part.seed).random(int(seen.point.max(initial=-1)) + 1) < part.share
    mine = np.array([name in part.images for name in seen.images], dtype=bool)
    keep = mine[seen.image] & (held_out[seen.point] == part.held_out)
    keep &= np.bincount(seen.point[keep], minlength=len(held_out))[seen.point] >= 2
    return SfmObservations(seen.images, seen.image[keep], seen.point[keep], seen.xy[keep], seen.jacobian[keep])


def _cut_scene(seen: SfmObservations, scene: Path, config: CutConfig, rng: np.random.Generator) -> PatchTracks:
    photos = [read_gray(scene / "images" / name) for name in seen.images]
    size = np.array([[p.shape[1], p.shape[0]] for p in photos])
    zoom, turn, proper = nearest_similarity(seen.jacobian)
    # frames of one track share the arbitrary basis of the plane; the batch turns both views anyway
    chosen = rng.permutation(np.unique(seen.point))[: config.points_per_scene]
    order = np.argsort(seen.point, kind="stable")
    bounds = np.searchsorted(seen.point[order], [chosen, chosen + 1])
    rows: list[tuple[int, int, float]] = []  # observation, track, sigma
    for track, (begin, end) in enumerate(bounds.T):
        views = rng.permutation(order[begin:end])[: config.views_per_point]
        sigma = math.exp(rng.uniform(math.log(config.min_sigma), math.log(config.max_sigma)))
        sigmas = zoom[views] / zoom[views].min() * sigma
        # the descriptor's own square, not its context, has to lie in the image
        reach = (sigmas * LAF_SCALE_PER_SIGMA)[:, None]
        inside = ((seen.xy[views] > reach) & (seen.xy[views] < size[seen.image[views]] - 1 - reach)).all(1)
        good = inside & proper[views] & (sigmas < 2.5 * config.max_sigma)
        if good.sum() >= 2:
            rows.extend((int(v), track, float(s)) for v, s in zip(views[good], sigmas[good], strict=True))
    table = np.array(rows).reshape(-1, 3)
    observation, track_id, sigma_all = table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2]
    pixels = torch.empty((len(table), STORED_SIZE, STORED_SIZE), dtype=torch.uint8)
    for index, photo in enumerate(photos):
        mine = np.flatnonzero(seen.image[observation] == index)
        if len(mine):
            at = observation[mine]
            pixels[torch.from_numpy(mine)] = _cut(photo, seen.xy[at], sigma_all[mine], turn[at])
    frame = np.column_stack([seen.xy[observation], sigma_all])
    return PatchTracks(
        pixels, torch.from_numpy(track_id), torch.from_numpy(seen.image[observation]), torch.from_numpy(frame).float()
    )


def _cut_photo(photos: list[Tensor], config: CutConfig, rng: np.random.Generator) -> PatchTracks:
    """Cut places of one photograph, or of aligned photographs of one scene; chosen where SIFT sees something."""
    cv2 = require("cv2", extra="train")
    height, width = photos[0].shape
    middle = photos[len(photos) // 2].numpy()
    keypoints = cv2.SIFT_create(nfeatures=20 * config.points_per_photo, contrastThreshold=0.02).detect(middle, None)
    candidates = np.array([k.pt for k in keypoints]).reshape(-1, 2)
    sigma = np.exp(rng.uniform(math.log(config.min_sigma), math.log(config.max_sigma), len(candidates)))
    reach = (sigma * LAF_SCALE_PER_SIGMA)[:, None]
    inside = ((candidates > reach) & (candidates < np.array([width, height]) - 1 - reach)).all(1)
    chosen = rng.permutation(np.flatnonzero(inside))[: config.points_per_photo]
    xy, sigma = candidates[chosen], sigma[chosen]
    if not len(xy):
        none = torch.zeros(0, dtype=torch.long)
        empty = torch.zeros((0, STORED_SIZE, STORED_SIZE), dtype=torch.uint8)
        return PatchTracks(empty, none, none, torch.zeros(0, 3))
    pixels, images, tracks = [], [], []
    for index in rng.permutation(len(photos))[: config.views_per_point]:
        pixels.append(_cut(photos[index], xy, sigma, np.zeros(len(xy))))
        images.append(torch.full((len(xy),), int(index)))
        tracks.append(torch.arange(len(xy)))
    frame = torch.from_numpy(np.column_stack([xy, sigma])).float().repeat(len(pixels), 1)
    return PatchTracks(torch.cat(pixels), torch.cat(tracks), torch.cat(images), frame)
