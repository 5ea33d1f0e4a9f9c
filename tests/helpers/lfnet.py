"""LF-Net's recipe in miniature."""

from __future__ import annotations

import torch

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.views import WarpedViews
from tests.helpers.training import picture

SIZE = 96


def config(**options: object) -> LFNetConfig:
    loop = LoopConfig(steps=2, validate_every=2, checkpoint_every=1, log_every=1)
    base: dict[str, object] = {
        "size": SIZE,
        "pairs_per_batch": 2,
        "keypoints": 40,
        "validation_pairs": 2,
        "lfnet": loop,
    }
    return LFNetConfig(**(base | options))  # type: ignore[arg-type]


def warped(seed: int = 1, rotation: float = 180.0) -> WarpedViews:
    return WarpedViews([[torch.from_numpy(picture(seed))]], SIZE, rotation=rotation)
