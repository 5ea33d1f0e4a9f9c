"""The stages of the recipes that begin from folders, trained on a GPU; those of the others are in ``training/loop``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage
from kornia_lift.training.lfnet.views import WarpedViews
from kornia_lift.training.loop import fit
from kornia_lift.training.stage import Stage
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.stage import TildeStage, make_response
from tests.helpers.training import aligned_stack, matched_pair, picture

pytestmark = pytest.mark.gpu


def correspondences(device: torch.device) -> Stage:
    config = CorrespondenceConfig(pairs_per_batch=3, matches_per_pair=40, essential_from=1)
    pairs = [matched_pair(n, count=60) for n in range(8)]
    return CorrespondenceStage(CorrespondenceNet(channels=16, blocks=2).to(device), pairs[:6], pairs[6:], config)


def tilde(device: torch.device) -> Stage:
    config = TildeConfig(num_sum=2, num_max=2, filter_size=11, map_size=7, locations_per_batch=8)
    return TildeStage(make_response(config).to(device), [aligned_stack(0)], [aligned_stack(2)], config)


def lfnet(device: torch.device) -> Stage:
    networks = LFNetNetworks(LFNetDetector(40), LFNetDescriptor()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    views = [WarpedViews([[torch.from_numpy(picture(seed))]], 96, rotation=180.0) for seed in (1, 2)]
    config = LFNetConfig(size=96, pairs_per_batch=2, keypoints=40, validation_pairs=2)
    return LFNetStage(networks, views[0], views[1], config)


@pytest.mark.parametrize("make", [correspondences, tilde, lfnet])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stages_train_and_go_on(
    make: Callable[[torch.device], Stage], precision: str, tmp_path: Path, cuda: torch.device
) -> None:
    pytest.importorskip("cv2")
    loop = LoopConfig(steps=3, precision=precision, validate_every=2, checkpoint_every=1)  # type: ignore[arg-type]
    for _ in range(2):  # the second time from the checkpoint
        stage = make(cuda)
        result = fit(stage, loop, tmp_path, progress=False)
        assert result.step == 3 and 0 <= result.error < 10
        assert {p.device.type for p in stage.network.parameters()} == {cuda.type}
