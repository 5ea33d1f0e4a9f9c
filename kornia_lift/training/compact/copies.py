"""Keypoints of images and of their warped copies: pairs of detections whose exact relation is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kornia_lift._extras import require
from kornia_lift._gray import to_bytes
from kornia_lift.geometry import lafs_from_lift, rotation_matrix
from kornia_lift.networks.localization import PATCH_SIZE
from kornia_lift.training.compact.byte_patches import BytePatches
from kornia_lift.training.compact.detections import Detections, detect
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits
from kornia_lift.training.warped.homographies import CropConfig, random_homography
from kornia_lift.training.watch import Watch

FEWEST = 8  # pairs of an image below which it is left out


@dataclass(frozen=True)
class CopyConfig:
    """How images are copied, and which detections of image and copy are one keypoint.

    Args:
        copies: copies of each image.
        warp: the homographies; ``perspective`` is relative to 1000 pixels.
        photometric: photometric augmentation of the copies.
        distance: largest distance of a pair, sigmas of the copy's detection.
        least_distance: distance in pixels that is never too large.
        ratio: largest ratio of the scales, beyond what the homography says.
        seed: of the homographies.

    """

    copies: int = 2
    warp: CropConfig = field(
        default_factory=lambda: CropConfig(size=1000, scale=1.5, stretch=1.65, perspective=0.125, shift=0.0)
    )
    photometric: Photometric = field(
        default_factory=lambda: Photometric(gain=1.4, noise=0.02, blur=0.8, shadow=0.0, jpeg=0.3, jpeg_quality=50)
    )
    distance: float = 0.8
    least_distance: float = 1.5
    ratio: float = 1.7
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "copies", at_least=1)
        check_limits(self, "distance", above=0)
        check_limits(self, "least_distance", "seed", at_least=0)
        check_limits(self, "ratio", at_least=1)


class KeypointPairs(NamedTuple):
    """Detections of one image that are those of its copy.

    Args:
        image: uint8, shape (H, W).
        copy: likewise.
        xy: positions in the image, pixels, shape (N, 2).
        sigma: SIFT scales in the image, pixels, shape (N,).
        moved: where the copy shows the positions, shape (N, 2).
        jacobian: of that map at the positions, shape (N, 2, 2).
        copy_xy: positions of the detections of the copy, shape (N, 2).
        copy_sigma: their scales, shape (N,).

    """

    image: Tensor
    copy: Tensor
    xy: Tensor
    sigma: Tensor
    moved: Tensor
    jacobian: Tensor
    copy_xy: Tensor
    copy_sigma: Tensor


def copy_images(
    images: Sequence[Tensor], detector: nn.Module, config: CopyConfig, watch: Watch | None = None
) -> list[KeypointPairs]:
    """Warp images, detect keypoints in them and in the copies, and pair them.

    Args:
        images: gray images, uint8, shape (H, W) each.
        detector: ``(img, mask) -> (lafs, responses)``, as :class:`~kornia_lift.LIFTDetector`.
        config: how.
        watch: shows the progress.

    Returns:
        One entry for each copy that shows 8 keypoints of its image.

    Raises:
        ValueError: if there is none.

    """
    generator = torch.Generator().manual_seed(config.seed)
    pairs = []
    for image in (watch or Watch())(images, "images"):
        found = detect(image, detector)
        for _ in range(config.copies):
            copy, to_copy = _warp(image, config, generator)
            pair = _pair(image, copy, to_copy, found, detect(copy, detector), config)
            if len(pair.xy) >= FEWEST:
                pairs.append(pair)
    if not pairs:
        raise ValueError(
            f"no image shows {FEWEST} keypoints that are found again in a warped copy of it; use larger images, or "
            "some with texture"
        )
    return pairs


class PairedPatches:
    """Pairs of detections, and the patches around them.

    Args:
        pairs: the pairs of each image and its copy.

    """

    def __init__(self, pairs: Sequence[KeypointPairs]) -> None:
        self.pairs = pairs
        self._patches = BytePatches([view for pair in pairs for view in (pair.image, pair.copy)])

    def draw(
        self,
        chosen: Sequence[int],
        per_image: int,
        generator: Generator,
        jitter: float = 0.0,
        context: float = 1.0,
        rotate: bool = False,
    ) -> dict[str, Tensor]:
        """Cut patches of some images, and return the relation between their frames.

        Args:
            chosen: numbers of the images.
            per_image: largest number of pairs of each.
            generator: of the choice, and of the noise.
            jitter: standard deviation by which frames are moved, in sigmas, and rescaled, logarithmic.
            context: side of the patches over that of the frames.
            rotate: rotate every frame by an angle of its own; otherwise all are upright.

        Returns:
            ``first``, ``second``: patches (N, 1, 32, 32); ``offset``: from the second frame to where it shows the
            first, in sigmas of the second, (N, 2); ``jacobian``: of the map, from sigmas of the first to sigmas of the
            second, (N, 2, 2), both in the axes of the frames; ``log_ratio`` of the first scale, as the second view
            shows it, to the second, (N,).

        """
        parts = []
        for number in chosen:
            pair = self.pairs[number]
            take = torch.randperm(len(pair.xy), generator=generator)[:per_image]
            xy, sigma, moved, jacobian, copy_xy, copy_sigma = (values[take] for values in pair[2:])
            noise = jitter * torch.randn(2, len(take), 3, generator=generator)
            shift = noise[0, :, :2] * sigma[:, None]
            xy, moved = xy + shift, moved + (jacobian @ shift[:, :, None])[:, :, 0]
            copy_xy = copy_xy + noise[1, :, :2] * copy_sigma[:, None]
            sigma, copy_sigma = sigma * noise[0, :, 2].exp(), copy_sigma * noise[1, :, 2].exp()
            scale = jacobian.det().abs().sqrt() * sigma
            angles = (
                2 * math.pi * torch.rand(2 * len(take), generator=generator) if rotate else torch.zeros(2 * len(take))
            )
            axes = rotation_matrix(angles).view(2, len(take), 2, 2)
            offset = (moved - copy_xy) / copy_sigma[:, None]
            parts.append(
                {
                    "first": self._cut(2 * number, xy, context * sigma, axes[0]),
                    "second": self._cut(2 * number + 1, copy_xy, context * copy_sigma, axes[1]),
                    "offset": (axes[1].mT @ offset[:, :, None])[:, :, 0],
                    "jacobian": axes[1].mT @ jacobian @ axes[0] * (sigma / copy_sigma)[:, None, None],
                    "log_ratio": (scale / copy_sigma).log(),
                }
            )
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _cut(self, view: int, xy: Tensor, sigma: Tensor, axes: Tensor) -> Tensor:
        lafs = lafs_from_lift(xy[None], sigma[None])[0]
        lafs = torch.cat([lafs[:, :, :2] @ axes, lafs[:, :, 2:]], 2)
        return self._patches.cut(torch.full((len(xy),), view), lafs, PATCH_SIZE)


def _warp(image: Tensor, config: CopyConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return a copy of an image, and the homography from the image to it (3, 3)."""
    cv2 = require("cv2", extra="train")
    height, width = image.shape
    to_image = random_homography(generator, config.warp, (width, height))
    # the part of the scale that shrinks would alias
    shrinks = float(torch.linalg.det(to_image[:2, :2]).abs().sqrt())
    source = cv2.GaussianBlur(image.numpy(), (0, 0), 0.5 * shrinks) if shrinks > 1.1 else image.numpy()
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    copy = torch.from_numpy(cv2.warpPerspective(source, to_image.double().numpy(), (width, height), flags=flags))
    changed = augment(copy[None, None].float() / 255, config.photometric, generator)
    return to_bytes(changed)[0, 0], torch.linalg.inv(to_image.double())


def _pair(
    image: Tensor, copy: Tensor, to_copy: Tensor, one: Detections, two: Detections, config: CopyConfig
) -> KeypointPairs:
    """Pair the detections that are each other's nearest, not far apart, and of nearly one scale."""
    xy, sigma, copy_xy, copy_sigma = (
        torch.from_numpy(np.asarray(values, np.float64)) for values in (one.xy, one.sigma, two.xy, two.sigma)
    )
    projected = F.pad(xy, (0, 1), value=1.0) @ to_copy.mT
    moved, depth = projected[:, :2] / projected[:, 2:], projected[:, 2]
    jacobian = (to_copy[:2, :2] - moved[:, :, None] * to_copy[2, :2]) / depth[:, None, None]
    if len(xy) and len(copy_xy):
        apart = torch.cdist(moved, copy_xy)
        nearest, at = apart.argmin(1), torch.arange(len(xy))
        ratio = (copy_sigma[nearest] / (sigma * jacobian.det().abs().sqrt())).log().abs()
        good = (apart.argmin(0)[nearest] == at) & (ratio < np.log(config.ratio)) & (depth > 0)
        good &= apart[at, nearest] < (config.distance * copy_sigma[nearest]).clamp(min=config.least_distance)
    else:
        nearest, good = torch.zeros(len(xy), dtype=torch.long), torch.zeros(len(xy), dtype=torch.bool)
    again = nearest[good]
    values = (xy[good], sigma[good], moved[good], jacobian[good], copy_xy[again], copy_sigma[again])
    return KeypointPairs(image, copy, *(value.float() for value in values))
