"""Compact recipe, localization: keypoints of an image and of its copy must agree on position and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.training.compact.copies import KeypointPairs, PairedPatches
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.stage import Measure

FAR = 0.2  # sigmas: pairs farther apart count as errors
LEAST_SPREAD = 0.02  # sigmas: no position is known better
POSITION_WEIGHT, SCALE_WEIGHT = 2.0, 20.0
ROBUST_SCALE = 0.1  # of the logarithm: beyond it the loss of the scale grows linearly


class LocalizationStage:
    r"""Train the localization on pairs of detections whose relation is known.

    With e the distance of the corrected positions in sigmas, s the difference of the logarithms of the scales and b the
    sum of both expected errors, the loss is

    .. math:: e / b + 2 \log b + 2 \min(e, 1) + 20 \, h(s)

    with h of Huber. The first part is the likelihood of a two-dimensional Laplace distribution: ambiguous
    patches, edges above all, may say so instead of pulling the others along.

    Args:
        network: the localization.
        pairs: training pairs.
        validation: held-out pairs.
        images: images of a batch.
        per_image: largest number of pairs of each.
        jitter: standard deviation by which training frames are moved, in sigmas, and rescaled, logarithmic.
        photometric: photometric augmentation of the patches.
        seed: of the validation batches.

    """

    name = "localization"

    def __init__(
        self,
        network: KeypointLocalization,
        pairs: Sequence[KeypointPairs],
        validation: Sequence[KeypointPairs],
        images: int = 6,
        per_image: int = 96,
        jitter: float = 0.15,
        photometric: Photometric | None = None,
        seed: int = 0,
    ) -> None:
        self.network: torch.nn.Module = network
        self.localization = network
        self.pairs, self.validation = PairedPatches(pairs), PairedPatches(validation)
        self.images, self.per_image, self.jitter, self.seed = images, per_image, jitter, seed
        self.photometric = photometric or Photometric()
        self._before = self._validation_batch()["offset"].norm(dim=1)

    @property
    def measure(self) -> Measure:
        """Without correction detections are as far apart as the detector leaves them."""
        far = float((self._before > FAR).float().mean())
        return Measure(f"keypoints more than {FAR} sigma from where the copy shows them", far, len(self._before))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        chosen = torch.randint(len(self.pairs.pairs), (self.images,), generator=generator).tolist()
        drawn = self.pairs.draw(chosen, self.per_image, generator, self.jitter)
        for side in ("first", "second"):
            drawn[side] = augment(drawn[side], self.photometric, generator)
        return drawn

    def _validation_batch(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return self.validation.draw(range(len(self.validation.pairs)), self.per_image, generator)

    def _compare(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Distance in sigmas of the corrected positions, difference of the log scales, expected distance; (N,) each."""
        found = self.localization(torch.cat([batch["first"], batch["second"]])).float()
        with torch.autocast(found.device.type, enabled=False):
            first, second = found.chunk(2)
            at, copy_at = first[:, :2] * LAF_SCALE_PER_SIGMA, second[:, :2] * LAF_SCALE_PER_SIGMA
            error = batch["offset"] + (batch["jacobian"] @ at[:, :, None])[:, :, 0] - copy_at
            zoom = batch["jacobian"].det().abs().sqrt()
            spread = LAF_SCALE_PER_SIGMA * (zoom * first[:, 3].exp() + second[:, 3].exp())
            distance = (error.square().sum(1) + 1e-4).sqrt()  # smooth at 0
            return distance, batch["log_ratio"] + first[:, 2] - second[:, 2], spread.clamp(min=LEAST_SPREAD)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        distance, scale, spread = self._compare(batch)
        with torch.autocast(distance.device.type, enabled=False):
            likelihood = distance / spread + 2 * spread.log()
            robust = F.huber_loss(scale, torch.zeros_like(scale), delta=ROBUST_SCALE)
            loss = likelihood.mean() + POSITION_WEIGHT * distance.clamp(max=1).mean() + SCALE_WEIGHT * robust
        return loss, {"sigmas": float(distance.detach().mean()), "log_scale": float(scale.detach().abs().mean())}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of pairs more than .2 sigma apart (``error``), medians, and of the half that is expected to be near."""
        self.network.eval()
        batch = self._validation_batch()
        parts = [
            self._compare(to_device_of(self.network, {key: value[rows] for key, value in batch.items()}))
            for rows in torch.arange(len(batch["offset"])).split(1024)
        ]
        distance, scale, spread = (torch.cat(column) for column in zip(*parts, strict=True))
        self.network.train()
        certain = distance[spread <= spread.median()]
        return {
            "error": float((distance > FAR).float().mean()),
            "median_sigmas": float(distance.median()),
            "median_log_scale": float(scale.abs().median()),
            "error_certain_half": float((certain > FAR).float().mean()),
        }
