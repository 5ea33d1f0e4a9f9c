"""The stage that trains LF-Net's detector and descriptor together, from pairs of whole images."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kornia_lift.detector.lfnet import ChosenPixels, LFNetDetector
from kornia_lift.networks.lfnet import PATCH_SIZE, LFNetDescriptor, normalise_maps
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.losses import (
    MAX_SCALE,
    draw_negatives,
    mean_over_images,
    orientation_loss,
    pair_loss,
    pool_size,
    scale_loss,
    score_loss,
    target_map,
    through_inputs,
    triplet_hinge,
)
from kornia_lift.training.lfnet.views import Views, ViewSource, fetch_bilinear, fetch_nearest
from kornia_lift.training.loop.batches import to_device_of


class LFNetNetworks(nn.Module):
    """What the stage trains: detector and descriptor.

    Args:
        detector: dense maps and keypoints.
        descriptor: of 32x32 patches of the normalised image.

    """

    def __init__(self, detector: LFNetDetector, descriptor: LFNetDescriptor) -> None:
        super().__init__()
        self.detector, self.descriptor = detector, descriptor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the dense maps of images, see :meth:`~kornia_lift.detector.lfnet.LFNetDetector.dense`."""
        maps: tuple[Tensor, Tensor, Tensor] = self.detector.dense(image)
        return maps


class _View(NamedTuple):
    """One view of a batch of pairs, its dense maps, and where it is seen in the other view.

    Attributes:
        image: normalised, shape (B, 1, S, S).
        score: shape (B, S, S).
        scale: shape (B, S, S).
        orientation: cosine and sine, shape (B, 2, S, S).
        landing: position of every pixel in the other view, shape (B, S, S, 2).
        seen: whether it is seen there, shape (B, S, S).
        zoom: how much larger it is there, shape (B, S, S).
        rotation: by how much it is rotated there, radians, shape (B, S, S).
        pool: from how many of the hardest a negative is drawn, shape (B,).
        share: the draws for each keypoint, shape (B, keypoints).

    """

    image: Tensor
    score: Tensor
    scale: Tensor
    orientation: Tensor
    landing: Tensor
    seen: Tensor
    zoom: Tensor
    rotation: Tensor
    pool: Tensor
    share: Tensor


class _PairScore(NamedTuple):
    """Scores of the keypoints of a held-out pair.

    Attributes:
        matching_score: share of the visible keypoints whose nearest neighbour is correct.
        by_chance: that share if the neighbour were a random keypoint.
        repeatability: share of the visible keypoints that have a keypoint of the other view near them.
        keypoints: of the first view.

    """

    matching_score: float
    by_chance: float
    repeatability: float
    keypoints: float


class LFNetStage:
    """Train LF-Net (Ono et al., NeurIPS 2018, Sec. 3.3).

    One view supplies the target and is not optimised, the other one is; then the other way round. The detector does not
    learn from the triplet loss, the descriptor from nothing else.

    Args:
        networks: detector and descriptor.
        views: training pairs.
        validation: held-out pairs.
        config: options.

    """

    name = "lfnet"
    divisible = False  # batch normalisation sees all pairs

    def __init__(
        self, networks: LFNetNetworks, views: ViewSource, validation: ViewSource, config: LFNetConfig | None = None
    ) -> None:
        self.network: nn.Module = networks
        self.networks, self.views, self.validation = networks, views, validation
        self.config = config or LFNetConfig()

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        batch = self.views.draw(generator, self.config.pairs_per_batch)
        count = len(batch["first"])
        draws = {
            f"share_{name}": torch.rand(count, self.config.keypoints, generator=generator)
            for name in ("first", "second")
        }
        return {
            **batch,
            **draws,
            "pool": torch.full((count,), pool_size(step, self.config.pool, self.config.pool_rate)),
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        c = self.config
        first, second = self._view(batch, "first", "second"), self._view(batch, "second", "first")
        both = [self._direction(here, there) for here, there in ((first, second), (second, first))]
        parts = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        detector = (
            c.score * parts["score"]
            + c.pair * parts["pair"]
            + c.orientation * parts["orientation"]
            + c.consistent_scale * parts["scale"]
        )
        # a flat map has no strict maxima, and training collapses silently: hence the counts
        return detector + parts["triplet"], _read(parts)

    def _view(self, batch: dict[str, Tensor], mine: str, other: str) -> _View:
        image = batch[mine]
        score, scale, orientation = self.networks(image)
        return _View(
            image=normalise_maps(image),
            score=score,
            scale=scale,
            orientation=orientation,
            landing=batch[f"to_{other}"],
            seen=batch[f"seen_{mine}"],
            zoom=batch[f"zoom_{mine}"],
            rotation=batch[f"rotation_{mine}"],
            pool=batch["pool"],
            share=batch[f"share_{mine}"],
        )

    def _direction(self, here: _View, there: _View) -> dict[str, Tensor]:
        """Losses of one direction, and counts of an image: view ``here`` is optimised, ``there`` supplies its target.

        Only the number of keypoints is read by Python: it makes the descriptor's batch, whose normalisation sees no
        empty slots.
        """
        c = self.config
        target = target_map(fetch_bilinear(there.score.detach(), here.landing) * here.seen, c.keypoints)
        seen_there = torch.stack([fetch_nearest(part, here.landing) for part in there.orientation.unbind(1)], 1)
        # orientations of the other view at the pixels of this one, and the scale that this view predicts there
        expected = fetch_nearest((here.scale.detach() * here.zoom).clamp(1 / MAX_SCALE, MAX_SCALE), there.landing)
        losses = {
            "score": score_loss(here.score, target, here.seen),
            "orientation": orientation_loss(here.orientation, seen_there, -here.rotation, here.seen),
            "scale": scale_loss(there.scale, expected, there.seen & (expected > 0)),
            "impulses": (target == 1).sum() / len(target),
        }
        return losses | self._descriptors(here, there)

    def _descriptors(self, here: _View, there: _View) -> dict[str, Tensor]:
        """Triplet loss, for the descriptor, and distance of positives, for the detector."""
        c, network = self.config, self.networks.descriptor
        found = self.networks.detector.choose(here.score, here.score, c.keypoints)
        nothing = here.score.sum() * 0
        count = nothing.detach() + len(found.image) / len(here.score)
        if len(found.image) < 2:
            return {"triplet": nothing, "pair": nothing, "keypoints": count}
        frames = self.networks.detector.frames(here.score, here.scale, here.orientation, found)
        positions = here.landing[found.image, found.row, found.column]
        visible = here.seen[found.image, found.row, found.column]
        size = here.score.shape[-1]
        landed = positions.nan_to_num(nan=-1.0).clamp(0, size - 1)
        column, row = landed.long().unbind(1)  # cut off, as in the authors' code
        partners = self.networks.detector.frames_at(
            landed, there.scale[found.image, row, column], there.orientation[found.image, :, row, column]
        )
        patches = _patches(here.image, found, frames, c.keypoints)
        others = _patches(there.image, found, partners, c.keypoints)
        leaves = [p.detach().requires_grad_() for p in (patches, others)]
        anchor, positive = (network(p) for p in leaves)
        losses = {"pair": through_inputs(pair_loss(anchor, positive, visible), leaves, (patches, others))}
        image = found.image
        negative = draw_negatives(
            anchor, positive, landed, here.pool[image], here.share[image, found.slot], c.apart, image
        )
        hinge = triplet_hinge(anchor, positive, positive[negative], c.margin)
        return losses | {"triplet": mean_over_images(hinge, visible, image, len(here.score)), "keypoints": count}

    @cached_property
    def _held_out(self) -> list[Views]:
        """The pairs of every validation."""
        generator = torch.Generator().manual_seed(0)
        return [self.validation.draw(generator, 1) for _ in range(self.config.validation_pairs)]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Matching score of held-out pairs: the share of visible keypoints whose nearest neighbour is correct."""
        self.networks.eval()
        scores = [self._score_pair(views) for views in self._held_out]
        self.networks.train()
        mean = _PairScore(*(sum(values) / len(values) for values in zip(*scores, strict=True)))
        return {"error": 1 - mean.matching_score, **mean._asdict()}

    def _score_pair(self, views: Views) -> _PairScore:
        c, detector = self.config, self.networks.detector
        views = to_device_of(self.networks, views)
        points, descriptors = [], []
        for name in ("first", "second"):
            score, scale, orientation = self.networks(views[name])
            found = detector.choose(score, score, c.keypoints)
            if not len(found.image):
                return _PairScore(0.0, 0.0, 0.0, 0.0)
            frames = detector.frames(score, scale, orientation, found)
            patches = _patches(normalise_maps(views[name]), found, frames, c.keypoints)
            descriptors.append(self.networks.descriptor(patches))
            points.append((found, frames[:, :, 2]))
        found = points[0][0]
        visible = views["seen_first"][0, found.row, found.column]
        if not bool(visible.any()):
            return _PairScore(0.0, 0.0, 0.0, float(len(found.image)))
        expected = views["to_second"][0, found.row, found.column][visible]
        distance = torch.cdist(expected, points[1][1])
        partner = torch.cdist(descriptors[0][visible], descriptors[1]).argmin(1)
        close = (distance <= c.correct_within).float()
        correct, repeated = close.gather(1, partner[:, None]), close.amax(1)
        return _PairScore(float(correct.mean()), float(close.mean()), float(repeated.mean()), float(len(found.image)))


def _read(figures: dict[str, Tensor]) -> dict[str, float]:
    """Read figures in one piece: each that is read alone would wait for the device."""
    values: list[float] = torch.stack([value.detach().float() for value in figures.values()]).tolist()
    return dict(zip(figures, values, strict=True))


def _patches(image: Tensor, found: ChosenPixels, frames: Tensor, count: int) -> Tensor:
    """Cut the patch of every frame from its image, bilinearly, without smoothing; gradients reach the frames.

    Args:
        image: normalised images, shape (B, 1, S, S).
        found: the N keypoints of the frames.
        frames: LAFs, shape (N, 2, 3).
        count: keypoints of an image at most.

    Returns:
        Patches (N, 1, 32, 32).

    """
    at, side = (found.image, found.slot), image.shape[-1]
    lafs = frames.new_zeros(len(image), count, 2, 3).index_put(at, frames)
    # as kornia's extract_patches_simple, which sends the size of the image to the device and waits, four times a call,
    # and whose grid autocast rounds to half precision, which moves pixels
    unit = (torch.arange(PATCH_SIZE, dtype=lafs.dtype, device=lafs.device) * 2 + 1) / PATCH_SIZE - 1
    v, u = (x[..., None] for x in torch.meshgrid(unit, unit, indexing="ij"))
    along, down, centre = lafs[:, :, None, None].unbind(-1)
    grid = (along * u + down * v + centre) * (2 / side) + (1 / side - 1)
    grid = grid.view(len(image), count * PATCH_SIZE, PATCH_SIZE, 2)
    patches = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return patches.view(len(image), count, 1, PATCH_SIZE, PATCH_SIZE)[at]
