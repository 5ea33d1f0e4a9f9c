"""LF-Net's step on a device: every tensor is there, and Python rarely waits for it. Runs without a GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_lift.detector.lfnet import ChosenPixels, LFNetDetector
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.lfnet import stage as module
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage
from kornia_lift.training.lfnet.views import WarpedViews
from kornia_lift.training.loop import fit
from tests.helpers.training import picture

SIZE, KEYPOINTS = 96, 12


class Waits(TorchDispatchMode):
    """Counts the operations for which Python waits for a device, or sends it a number."""

    NAMES = ("_local_scalar_dense", "nonzero", "_unique", "masked_select", "lift_fresh", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(self.NAMES):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def stage(pairs: int) -> LFNetStage:
    config = LFNetConfig(size=SIZE, pairs_per_batch=pairs, keypoints=KEYPOINTS)
    views = WarpedViews([[torch.from_numpy(picture(1))]], SIZE)
    torch.manual_seed(0)
    return LFNetStage(LFNetNetworks(LFNetDetector(KEYPOINTS), LFNetDescriptor()), views, views, config)


def batch_of(made: LFNetStage) -> dict[str, Tensor]:
    return made.batch(torch.Generator().manual_seed(0), 0)


@pytest.mark.parametrize("pairs", [2, 5])
def test_a_step_waits_for_the_device_twice_however_many_images(pairs: int) -> None:
    made = stage(pairs)
    batch = batch_of(made)
    with Waits() as waits:
        made.loss(batch)[0].backward()
    assert waits.found.pop("nonzero") == 2  # which keypoints there are, in either direction
    assert waits.found.pop("lift_fresh", 0) <= 2  # the border is filled by a number
    assert not waits.found


@pytest.fixture
def without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``meta`` has shapes and no values: keypoints are given, figures are not read."""

    def choose(score: Tensor, worth: Tensor, count: int) -> ChosenPixels:
        slot, image = torch.meshgrid(torch.arange(count), torch.arange(len(score)), indexing="ij")
        at = [image.flatten(), slot.flatten(), 20 + slot.flatten(), 30 + slot.flatten()]
        return ChosenPixels(*(t.to(score.device) for t in at))

    monkeypatch.setattr(LFNetDetector, "choose", staticmethod(choose))
    monkeypatch.setattr(module, "_read", lambda figures: {name: float("nan") for name in figures})


@pytest.mark.usefixtures("without_values")
def test_all_tensors_of_a_step_are_on_the_device() -> None:
    made = stage(2)
    batch = {name: tensor.to("meta") for name, tensor in batch_of(made).items()}
    made.networks.to("meta")
    loss, figures = made.loss(batch)
    loss.backward()
    assert loss.device.type == "meta" and "triplet" in figures
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in made.networks.parameters())


@pytest.mark.gpu
def test_a_step_on_a_graphics_card_is_that_of_the_processor(tmp_path: Path) -> None:
    made = stage(3)
    batch = batch_of(made)
    loss, figures = made.loss(batch)
    made.networks.to("cuda")
    again, same = made.loss({name: tensor.cuda() for name, tensor in batch.items()})
    assert float(again) == pytest.approx(float(loss), rel=0.05)
    assert same == pytest.approx(figures, rel=0.1)
    loop = LoopConfig(steps=6, validate_every=6, log_every=1, workers=2, precision="bfloat16", ema_decay=0.9)
    result = fit(made, loop, tmp_path, progress=False)
    assert result.step == 6 and result.error < 1


@pytest.mark.usefixtures("without_values")
def test_a_tensor_left_elsewhere_is_noticed() -> None:
    made = stage(2)
    batch = {name: tensor.to("meta") for name, tensor in batch_of(made).items()}
    made.networks.to("meta")
    with pytest.raises(RuntimeError, match="device"):
        made.loss(batch | {"share_first": batch_of(made)["share_first"]})
