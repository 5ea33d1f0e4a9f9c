"""Modern recipe, detector: detections of the run-time pipeline, with a label that says whether they were matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.feature import get_laf_center, get_laf_scale
from torch import Generator, Tensor

from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.sampling import sampling_of
from kornia_lift.detector.scale_space import ScaleSpaceConfig, plan_levels
from kornia_lift.feature import LIFTFeature
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.data.images import to_float
from kornia_lift.training.data.posed_pairs import (
    PairConfig,
    PosedImage,
    PosedPair,
    epipolar_distance,
    is_seen,
    label_by_error,
)
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import NEAREST, depths, warp_points
from kornia_lift.training.watch import Watch


class Detections(NamedTuple):
    """Keypoints of one image.

    Args:
        xy: positions in pixels, shape (N, 2).
        sigma: SIFT scales in pixels, shape (N,).
        descriptors: unit vectors, shape (N, D).

    """

    xy: Tensor
    sigma: Tensor
    descriptors: Tensor


@dataclass
class RankingSet:
    """Windows of detections and whether they should rank high among those of their image.

    Args:
        windows: what the filters see, after :meth:`LIFTResponse.normalize`, float16, shape (M, 625).
        label: share of the other images in which the detection is matched correctly, shape (M,).
        weight: how much is known about that, in [0, 1], shape (M,).
        start: first detection of each image, and the end, shape (images + 1,).

    """

    windows: Tensor
    label: Tensor
    weight: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.start) - 1

    def draw(self, generator: Generator, images: int, per_image: int) -> dict[str, Tensor]:
        """Draw detections of some images.

        Returns:
            ``window`` (images, per_image, 625), ``label`` and ``rank_weight`` (images, per_image). An image with fewer
            detections repeats some of them.

        """
        rows = []
        for image in torch.randint(len(self), (images,), generator=generator).tolist():
            first, end = int(self.start[image]), int(self.start[image + 1])
            chosen = torch.randperm(end - first, generator=generator)[:per_image]
            if len(chosen) < per_image:
                chosen = chosen[torch.randint(len(chosen), (per_image,), generator=generator)]
            rows.append(first + chosen)
        index = torch.stack(rows)
        return {"window": self.windows[index].float(), "label": self.label[index], "rank_weight": self.weight[index]}


class RankingSetBuilder:
    """Run the pipeline on images and label its detections by the images' geometry.

    Args:
        feature: detector, orientation and descriptor; it finds as many candidates as are to be ranked.
        response: the response of its detector.
        watch: shows the progress.

    """

    def __init__(self, feature: LIFTFeature, response: LIFTResponse, watch: Watch | None = None) -> None:
        self._feature, self._response = feature, response
        self._watch = watch or Watch()
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def build(self) -> RankingSet:
        """Return what was added.

        Raises:
            ValueError: if nothing was.

        """
        if not self._parts:
            raise ValueError(
                "no detection could be labelled: the images need scenes with cameras whose images share points, or "
                "single images to be warped (modern.warped_pairs)"
            )
        windows, label, weight = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        count = torch.tensor([0] + [len(part[1]) for part in self._parts])
        return RankingSet(windows, label, weight, count.cumsum(0))

    def add_posed(self, images: Sequence[PosedImage], pairs: Sequence[PosedPair], config: PairConfig) -> None:
        """Add the detections of images with cameras: correct is a mutual nearest neighbour on both epipolar lines."""
        found = [self._detect(to_float(image.gray)) for image in self._watch(images, "images")]
        sums = [torch.zeros(2, len(f.xy)) for f in found]  # of label x weight, and of weight
        partners = torch.zeros(len(images))
        for pair in self._watch(pairs, "pairs of images"):
            one, two = found[pair.first], found[pair.second]
            if not len(one.xy) or not len(two.xy):
                continue
            a, b = mutual_neighbours(one.descriptors, two.descriptors)
            xy = [one.xy.double().numpy(), two.xy.double().numpy()]
            error = epipolar_distance(pair, images, xy[0][a.numpy()], xy[1][b.numpy()])
            correct = torch.from_numpy(label_by_error(error, config.exact, config.loose)).float()
            for side, (index, matched) in enumerate(((pair.first, a), (pair.second, b))):
                label = torch.zeros(len(xy[side])).index_put((matched,), correct)
                seen = torch.from_numpy(is_seen(pair, images, side, xy[side], config.reach)).float()
                # elsewhere it is not known whether the other image sees a detection, unless it is matched correctly
                weight = torch.maximum(seen, (label > 0).float())
                sums[index] += torch.stack([label * weight, weight])
                partners[index] += 1
        for image, f, (score, weight), count in zip(images, found, sums, partners.tolist(), strict=True):
            if count:
                self._add(to_float(image.gray), f, score / weight.clamp(min=1e-6), weight / count)

    def add_warped(self, crops: WarpedCrops, number: int, generator: Generator, exact: float, loose: float) -> None:
        """Add the detections of warped crops, one pair of each image: correct is where the homography says."""
        for _ in self._watch(range(number), "warped images"):
            drawn = crops.draw(generator, 1)
            found = [self._detect(drawn[key]) for key in ("first", "second")]
            if not all(len(f.xy) for f in found):
                continue
            matches = mutual_neighbours(found[0].descriptors, found[1].descriptors)
            for side, other, key in ((0, 1, "second"), (1, 0, "first")):
                moved, visible = transfer(found[side].xy, drawn[f"to_{key}"][0], drawn[f"inside_{key}"][0, 0])
                error = (moved[matches[side]] - found[other].xy[matches[other]]).norm(dim=1)
                correct = torch.from_numpy(label_by_error(error.double().numpy(), exact, loose)).float()
                label = torch.zeros(len(moved)).index_put((matches[side],), correct)
                image = ("first", "second")[side]
                inside = self._windows(drawn[f"inside_{image}"], found[side], False).amin(1) >= 0.5
                # no other image would show the edge of the image itself
                self._add(drawn[image], found[side], label * inside, torch.where(inside, visible.float(), 1.0))

    @torch.no_grad()
    def _detect(self, image: Tensor) -> Detections:
        lafs, _, descriptors = self._feature(image)
        filled = laf_is_filled(lafs)[0]
        lafs = lafs[:, filled]
        sigma = get_laf_scale(lafs)[0, :, 0, 0] / (LAF_SCALE_PER_SIGMA * self._feature.scaling_coef)
        return Detections(get_laf_center(lafs)[0], sigma, descriptors[0, filled])

    def _add(self, image: Tensor, found: Detections, label: Tensor, weight: Tensor) -> None:
        known = weight > 0
        if known.sum() < 2:
            return
        kept = Detections(found.xy[known], found.sigma[known], found.descriptors[known])
        self._parts.append((self._windows(image, kept, True).half(), label[known].float(), weight[known].float()))

    @torch.no_grad()
    def _windows(self, image: Tensor, found: Detections, normalize: bool) -> Tensor:
        """Cut the windows (N, 625) that the filters see at the detections, at the pixel of the level with the score."""
        config: ScaleSpaceConfig = self._feature.detector.config
        height, width = image.shape[-2:]
        levels = plan_levels(height, width, config, self._feature.detector.num_features)
        sampling = sampling_of(config)
        resize = sampling.resizer(image)
        steps = torch.tensor([level.sigma for level in levels]).log()
        nearest = (found.sigma.log()[:, None] - steps).abs().argmin(1)
        windows = found.xy.new_zeros(len(found.xy), FILTER_SIZE**2)
        half = FILTER_SIZE // 2
        for number, level in enumerate(levels):
            mine = (nearest == number).nonzero()[:, 0]
            gray = resize(level)
            if not len(mine):
                continue
            z = self._response.normalize(gray) if normalize else gray
            col = sampling.to_other_level(found.xy[mine, 0].double(), width, level.size[1]).round().long()
            row = sampling.to_other_level(found.xy[mine, 1].double(), height, level.size[0]).round().long()
            row, col = row.clamp(half, level.size[0] - 1 - half), col.clamp(half, level.size[1] - 1 - half)
            if normalize:
                row, col = best_of_neighbours(
                    F.pad(self._response.score_normalized(z)[0, 0], (1,) * 4, value=-1e9), row, col
                )
                row, col = row.clamp(half, level.size[0] - 1 - half), col.clamp(half, level.size[1] - 1 - half)
            cut = z[0, 0].unfold(0, FILTER_SIZE, 1).unfold(1, FILTER_SIZE, 1)[row - half, col - half]
            windows[mine] = cut.flatten(1)
        return windows


def best_of_neighbours(padded: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Move pixels to the best of their 3x3 neighbourhood, in a score map padded by 1."""
    offset = torch.arange(3)
    around = padded[row[:, None, None] + offset[:, None], col[:, None, None] + offset].flatten(1)
    best = around.argmax(1)
    return row + best // 3 - 1, col + best % 3 - 1


def mutual_neighbours(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (K,), (K,) of descriptors that are nearest to each other; unit vectors (N, D), (M, D)."""
    similarity = first @ second.mT
    forth, back = similarity.argmax(1), similarity.argmax(0)
    mine = (back[forth] == torch.arange(len(first), device=first.device)).nonzero()[:, 0]
    return mine, forth[mine]


def transfer(xy: Tensor, matrix: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Carry points (N, 2) over by a homography; also whether they land inside the other crop and image."""
    moved = warp_points(matrix, xy)
    column, row = moved.round().long().unbind(1)
    height, width = inside.shape
    visible = (depths(matrix, xy) > NEAREST) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    visible &= inside[row.clamp(0, height - 1), column.clamp(0, width - 1)] > 0
    return moved, visible


def ranking_loss(score: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    r"""Pairwise logistic loss: of two detections of one image the one with the higher label should score higher.

    .. math:: L = \frac{\sum_{ij} w_i w_j (y_i - y_j)_+ \log(1 + e^{s_j - s_i})}{\sum_{ij} w_i w_j (y_i - y_j)_+}

    It depends on differences within an image only, as does the choice of the best keypoints of an image.

    Args:
        score: s, shape (B, N).
        label: y in [0, 1], shape (B, N).
        weight: w, shape (B, N).

    Returns:
        The mean over the B images, a scalar; 0 where all labels are the same.

    """
    better = (label[:, :, None] - label[:, None, :]).clamp(min=0) * weight[:, :, None] * weight[:, None, :]
    loss = F.softplus(score[:, None, :] - score[:, :, None]) * better
    return (loss.sum((1, 2)) / better.sum((1, 2)).clamp(min=1e-6)).mean()


def concordance(score: Tensor, label: Tensor, weight: Tensor) -> float:
    """Weighted share of pairs of detections of one image that are in the order of their labels; as ``ranking_loss``."""
    better = (label[:, :, None] - label[:, None, :]).clamp(min=0) * weight[:, :, None] * weight[:, None, :]
    right = (score[:, :, None] > score[:, None, :]).to(better.dtype)
    return float((better * right).sum() / better.sum().clamp(min=1e-6))
