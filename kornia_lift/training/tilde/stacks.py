"""Locations of aligned stacks: where keypoints are found under every illumination, and where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_lift.evaluation.features.peers import Extractor
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.scenes.static import StaticSequence
from kornia_lift.training.data.distances import nearest_square
from kornia_lift.training.tilde.config import TildeConfig


@dataclass(frozen=True)
class Stack:
    """Images of a camera that does not move, and locations in them.

    Args:
        name: name of the scene.
        images: gray or RGB, values in [0, 1], shape (T, C, H, W).
        positives: (x, y) in pixels of locations with a keypoint in most of the images, the most repeated first, shape
            (P, 2).
        negatives: of locations without any, shape (N, 2).

    """

    name: str
    images: Tensor
    positives: FloatArray
    negatives: FloatArray


def read_stack(folder: Path, extract: Extractor, config: TildeConfig, seed: int = 0) -> Stack:
    """Read the images of a folder, Webcam layout or plain, and find the locations.

    Args:
        folder: the scene.
        extract: gives the features of an image (1, C, H, W), such as
            :func:`~kornia_lift.evaluation.features.peers.opencv_sift`; TILDE takes SIFT's.
        config: options.
        seed: of the negatives.

    Raises:
        FileNotFoundError: if the folder holds fewer than two images.
        ValueError: if the images have different sizes, or no location is repeated.

    """
    scene = StaticSequence.load(folder)
    return make_stack(scene.name, [scene.image(k) for k in range(len(scene.names))], extract, config, seed)


def make_stack(name: str, images: Sequence[Tensor], extract: Extractor, config: TildeConfig, seed: int = 0) -> Stack:
    """Find the locations of images (1, C, H, W) in memory, see :func:`read_stack`; ``name`` is that of the scene."""
    sizes = {tuple(image.shape[-2:]) for image in images}
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h}" for h, w in sorted(sizes))
        raise ValueError(f"{name} is not an aligned stack: its images have the sizes {shown}")
    points = [extract(image).top(config.keypoints).keypoints for image in images]
    channels = max(image.shape[1] for image in images)
    stacked = torch.cat([image.expand(-1, channels, -1, -1) for image in images])
    positives = repeated_locations(points, config.repeated, config.within)
    margin = config.filter_size // 2 + config.map_size // 2
    width, height = stacked.shape[-1], stacked.shape[-2]
    inner = ((positives >= margin) & (positives < [width - margin, height - margin])).all(1)
    positives = positives[inner][: config.locations]
    if not len(positives):
        raise ValueError(
            f"{name}: no location has a keypoint in {100 * config.repeated:.0f} % of the {len(images)} images"
        )
    negatives = empty_locations(np.concatenate(points), (width, height), margin, config, seed)
    return Stack(name, stacked, positives, negatives)


def repeated_locations(points: Sequence[FloatArray], share: float, within: float) -> FloatArray:
    """Return the locations that have a keypoint in at least ``share`` of the images, the most repeated first.

    Args:
        points: keypoints of every image, shape (N_t, 2).
        share: of the images.
        within: pixels; also the least distance of two locations.

    Returns:
        Positions of shape (P, 2).

    """
    every = np.concatenate(points)
    if not len(every):
        return every.reshape(0, 2)
    found = np.zeros(len(every), dtype=np.int64)
    for mine in points:
        found += nearest_square(every, mine) <= within**2
    chosen: list[int] = []
    for n in np.argsort(-found, kind="stable"):
        if found[n] < share * len(points):
            break
        if all(((every[n] - every[m]) ** 2).sum() > within**2 for m in chosen):
            chosen.append(int(n))
    return every[chosen]


def empty_locations(
    points: FloatArray, size: tuple[int, int], margin: int, config: TildeConfig, seed: int
) -> FloatArray:
    """Draw locations at least ``config.apart`` pixels from every keypoint of the stack, and ``margin`` from the border.

    Returns:
        Positions of shape (N, 2); fewer than ``config.locations`` where the images are full of keypoints.

    """
    rng = np.random.default_rng(seed)
    low, high = np.array([margin, margin]), np.array(size) - margin
    drawn = rng.integers(low, np.maximum(high, low + 1), (20 * config.locations, 2)).astype(np.float64)
    return drawn[nearest_square(drawn, points) >= config.apart**2][: config.locations]
