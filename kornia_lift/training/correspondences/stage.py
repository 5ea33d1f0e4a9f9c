"""The stage that trains the correspondence network: cross-entropy, later the essential matrix too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor, nn

from kornia_lift.evaluation.measures.learned_filter import POSE_SHARE
from kornia_lift.evaluation.measures.relative_pose import (
    NO_ROTATION,
    mean_accuracy,
    pose_from_essential,
    rotation_error,
    translation_error,
)
from kornia_lift.geometry.epipolar import MIN_MATCHES
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.data import MatchedPair, collate
from kornia_lift.training.correspondences.losses import classification_loss, epipolar_labels, essential_loss
from kornia_lift.training.stage import Measure

TIE_BREAK = 1e-3


class CorrespondenceStage:
    """Train the correspondence network on matched pairs (Yi et al., CVPR 2018, Sec. 3.4).

    Args:
        network: the network.
        pairs: training pairs.
        validation: held-out pairs.
        config: options.

    Raises:
        ValueError: if there is no pair to train on, or none to validate with.

    """

    name = "correspondence"
    divisible = False  # batch normalisation sees all pairs

    def __init__(
        self,
        network: CorrespondenceNet,
        pairs: Sequence[MatchedPair],
        validation: Sequence[MatchedPair],
        config: CorrespondenceConfig | None = None,
    ) -> None:
        for what, part in (("train on", pairs), ("validate with", validation)):
            if not part:
                raise ValueError(f"no pair of images to {what}: lower min_shared, or use scenes that share more points")
        self.network: nn.Module = network
        self.pairs, self.validation = pairs, validation
        self.config = config or CorrespondenceConfig()

    @property
    def measure(self) -> Measure:
        """Random relative poses are hardly ever within the limits."""
        return Measure("1 - mean accuracy of relative poses up to 20 degrees", 1.0, len(self.validation))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        chosen = torch.randperm(len(self.pairs), generator=generator)[: self.config.pairs_per_batch].tolist()
        c = self.config
        batch = collate([self.pairs[n] for n in chosen], c.matches_per_pair, generator, c.augmentation)
        # the loss does not know the step
        batch["regress"] = torch.full((len(chosen),), step >= self.config.essential_from)
        return batch

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        c = self.config
        # without padding a single pass of a fused kernel is enough
        mask = None if bool(batch["mask"].all()) else batch["mask"]
        found = self.network(batch["matches"], mask, side=batch["side"] if c.side else None)
        labels = epipolar_labels(batch["matches"], batch["essential"], c.label_threshold)
        classification = classification_loss(found.logits, labels, mask).mean()
        loss = c.classification_weight * classification
        figures = {"classification": float(classification.detach())}
        if bool(batch["regress"].all()):
            # selected rather than multiplied by 0, which would keep values that are not finite
            usable = ((found.weights > 0).sum(1) > MIN_MATCHES) & (found.gap > c.min_gap)
            if bool(usable.any()):
                distance = essential_loss(found.essential[usable], batch["essential"][usable])
                loss = loss + c.essential_weight * distance.sum() / len(usable)
                figures["essential"] = float(distance.detach().mean())
            figures["usable"] = float(usable.float().mean())
        return loss, figures

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures of the held-out pairs; the poses are those of the network's own essential matrix, no RANSAC."""
        self.network.eval()
        errors, hits, kept, inliers, classification = [], 0, 0, 0, 0.0
        device = next(self.network.parameters()).device
        for pair in self.validation:
            matches, side = pair.matches[None].to(device), pair.side[None].to(device)
            found = self.network(matches, side=side if self.config.side else None)
            labels = epipolar_labels(matches, pair.essential[None].to(matches), self.config.label_threshold)
            positive = found.logits > 0
            hits += int((positive & labels).sum())
            kept += int(positive.sum())
            inliers += int(labels.sum())
            classification += float(classification_loss(found.logits, labels))
            errors.append(_pose_error(pair, found.logits[0].cpu(), found.essential[0].cpu()))
        self.network.train()
        classification /= len(self.validation)
        return {
            # the cross-entropy distinguishes equal accuracies: at the start they are all 0
            "error": 1 - mean_accuracy(errors, 20) + TIE_BREAK * classification,
            "mAP5": mean_accuracy(errors, 5),
            "mAP20": mean_accuracy(errors, 20),
            "precision": hits / max(kept, 1),
            "recall": hits / max(inliers, 1),
            "classification": classification,
        }


def _pose_error(pair: MatchedPair, logits: Tensor, essential: Tensor) -> float:
    best = logits.topk(max(1, round(POSE_SHARE * len(logits)))).indices
    pose = pose_from_essential(essential.double().numpy(), pair.matches[best].double().numpy())
    if pose is None:
        return NO_ROTATION
    rotation, translation, _ = pose
    return float(
        np.maximum(
            rotation_error(rotation, pair.rotation.double().numpy()),
            translation_error(translation, pair.translation.double().numpy()),
        )
    )
