"""Modern recipe, detector through the frozen rest: rank first the keypoints that the whole pipeline matches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.feature import extract_patches_from_pyramid, get_laf_center, laf_is_filled, scale_laf
from torch import Generator, Tensor, nn

from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, level_resize
from kornia_lift.networks.layers import ghh
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.batches import to_device_of
from kornia_lift.training.modern.crops import WarpedCrops
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage

#: from a LAF at descriptor scale to the frame whose 25 cells are the pixels that the filter sees at the LAF's level
WINDOW_PER_LAF = FILTER_SIZE / 2 / level_resize(1.0) / LAF_SCALE_PER_SIGMA


class MatchableDetectorStage:
    """Train the response on its own detections in warped photographs, labelled by the run-time pipeline.

    A detection is right when its nearest descriptor in the other image lies where the homography says. Right ones
    are pushed above, wrong ones below, a common score; every second batch repeats the repeatability stage, which
    keeps the peaks sharp.

    Args:
        feature: the whole pipeline with ``response`` inside; describes as many candidates as are to be ranked.
        response: the network to train.
        repeatable: stage whose loss is kept; it trains the same network.
        crops: large pairs of crops, one per photograph.
        weight: factor of the ranking loss.
        tolerance: a match is right within this many pixels.

    """

    name = "response"
    divisible = False  # right and wrong detections are weighed against each other

    def __init__(
        self,
        feature: nn.Module,
        response: LIFTResponse,
        repeatable: RepeatableDetectorStage,
        crops: WarpedCrops,
        weight: float = 0.2,
        tolerance: float = 3.0,
    ) -> None:
        self.feature = feature
        self.network: nn.Module = response
        self.response = response
        self.repeatable = repeatable
        self.crops = crops
        self.weight = weight
        self.tolerance = tolerance

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        if step % 2 == 0:
            return self.repeatable.batch(generator, step)
        with torch.no_grad():
            drawn = to_device_of(self.network, self.crops.draw(generator, 1))
            return self._labelled(drawn)

    def _labelled(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the pipeline on both crops; windows of the visible detections and whether each was matched rightly."""
        sides = []
        for key in ("first", "second"):
            lafs, _, descriptors = self.feature(drawn[key])
            filled = laf_is_filled(lafs)[0]
            sides.append((lafs[:, filled], descriptors[0, filled]))
        windows, labels = [], []
        for one, two, image, other in (
            (sides[0], sides[1], "first", "second"),
            (sides[1], sides[0], "second", "first"),
        ):
            if not one[0].shape[1] or not two[0].shape[1]:
                continue
            moved, visible = _transfer(
                get_laf_center(one[0])[0], drawn[f"to_{other}"][0], drawn[f"inside_{other}"][0, 0]
            )
            nearest = (one[1] @ two[1].mT).argmax(1)
            error = (get_laf_center(two[0])[0, nearest] - moved).norm(dim=1)
            frames = scale_laf(one[0], WINDOW_PER_LAF)
            frames = _upright(frames)
            # the edge of the photograph itself is nothing that another photograph would show
            seen = extract_patches_from_pyramid(drawn[f"inside_{image}"], frames, FILTER_SIZE)[0]
            on_edge = seen.amin((1, 2, 3)) < 0.5
            judged = visible | on_edge
            windows.append(extract_patches_from_pyramid(drawn[image], frames, FILTER_SIZE)[0][judged])
            labels.append(((error < self.tolerance) & visible & ~on_edge)[judged].float())
        if not windows:
            return {
                "window": drawn["first"].new_zeros(0, 1, FILTER_SIZE, FILTER_SIZE),
                "label": drawn["first"].new_zeros(0),
            }
        return {"window": torch.cat(windows), "label": torch.cat(labels)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if "label" not in batch:
            return self.repeatable.loss(batch)
        window, label = batch["window"], batch["label"]
        if len(label) < 2:
            return self.response.conv.weight.sum() * 0, {}
        z = (window.flatten(1) - self.response.mean) / self.response.std
        score = ghh(F.linear(z, self.response.conv.weight.flatten(1), self.response.conv.bias))[:, 0]
        # the common score that the right ones have to exceed: between the mean scores of both kinds
        right, wrong = label > 0.5, label < 0.5
        if not right.any() or not wrong.any():
            return score.sum() * 0, {}
        level = (score[right].mean() + score[wrong].mean()).detach() / 2
        share = label.mean()
        weight = torch.where(right, 0.5 / share, 0.5 / (1 - share))
        loss = F.binary_cross_entropy_with_logits(score - level, label, weight)
        return self.weight * loss, {"matched": float(share)}

    def validate(self) -> dict[str, float]:
        return self.repeatable.validate()


def _transfer(xy: Tensor, matrix: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Carry points (N, 2) over by a homography; also whether they land inside the other crop and photograph."""
    moved = F.pad(xy, (0, 1), value=1.0) @ matrix.mT
    front = moved[:, 2] > 1e-6
    moved = moved[:, :2] / moved[:, 2:].clamp(min=1e-6)
    column, row = moved.round().long().unbind(1)
    height, width = inside.shape
    visible = front & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    visible &= inside[row.clamp(0, height - 1), column.clamp(0, width - 1)] > 0
    return moved, visible


def _upright(lafs: Tensor) -> Tensor:
    """The same frames with their x axis along the image's: the detector sees images upright."""
    scale = torch.linalg.det(lafs[..., :2]).abs().sqrt()[..., None, None]
    return torch.cat([scale * torch.eye(2, dtype=lafs.dtype, device=lafs.device), lafs[..., 2:]], dim=-1)
