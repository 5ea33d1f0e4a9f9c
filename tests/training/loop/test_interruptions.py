"""Every stage of every recipe, interrupted by a signal and started again, ends as an undisturbed run does.

The measure that is promised: every batch and every random draw is the same as without the interruption, so that
losses agree up to the rounding of the machine's threads.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.compact.response.levels import LevelGrid
from kornia_lift.training.compact.response.stage import SCALE_CROPS, ScaleSpaceResponseStage
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.read import read_source
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.recipe import LFNetRecipe
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.loop.log import read_log
from kornia_lift.training.loop.signals import TrainingInterrupted
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.modern.tracks import CutConfig
from kornia_lift.training.paper.descriptor import DescriptorOptions
from kornia_lift.training.paper.detector import DetectorOptions
from kornia_lift.training.paper.orientation import OrientationOptions
from kornia_lift.training.paper.recipe import PaperConfig, PaperRecipe
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.stage import TildeStage, make_response
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from tests.helpers.tiny_recipes import tiny_compact
from tests.helpers.training import aligned_stack, matched_pair, picture
from tests.training.loop.toy_stage import ToyStage

STEPS, STOP = 3, 2
# SGD: Adam's first steps are all signs, which rounding flips where a gradient is nearly zero
LOOP = LoopConfig(steps=STEPS, optimizer="sgd", learning_rate=1e-4, validate_every=STEPS, log_every=1)
PAPER = PaperConfig(
    **dict.fromkeys((*PaperRecipe.STAGES, *PaperRecipe.OPTIONAL), LOOP),
    descriptor_options=DescriptorOptions(pairs=4, validation_pairs=8),
    orientation_options=OrientationOptions(pairs=3, validation_pairs=6),
    detector_options=DetectorOptions(quadruplets=2, mining_ratio=2, validation_quadruplets=6),
)
MODERN = ModernConfig(
    **dict.fromkeys(ModernRecipe.STAGES, LOOP),
    cut=CutConfig(points_per_image=12, max_sigma=2.0),
    images_per_batch=2,
    anchors_per_image=6,
    refine_images=2,
    refine_anchors=6,
    detector_images=1,
    candidates=30,
    warped_pairs=2,
    shapes=4,
    crops=CropConfig(size=80, per_image=2, max_step=1.5),
    views=CropConfig(size=110, per_image=1, min_step=1.0, max_step=1.2, scale=1.6),
)
LFNET = LFNetConfig(lfnet=LOOP, size=64, pairs_per_batch=1, keypoints=40, validation_pairs=2)
COMPACT = tiny_compact(LOOP)
WITH_RESPONSE = replace(
    COMPACT,
    train_response=True,
    response_crops=replace(SCALE_CROPS, size=96, per_image=2),
    response_shapes=1,
    response_images=1,
)


EVERY = [("paper", s) for s in (*PaperRecipe.STAGES, *PaperRecipe.OPTIONAL)]
EVERY += [("modern", s) for s in ModernRecipe.STAGES]
EVERY += [("compact", s) for s in CompactRecipe.stages_of(COMPACT)] + [("compact with response", "response")]
EVERY += [("lfnet", s) for s in LFNetRecipe.STAGES]
#: Stages that tell the errors of the parts of their held-out samples, besides those of `modern`.
PAIRED = [("compact", s) for s in ("orientation", "descriptor", "refine")]
#: Stages that no such recipe has: those that learn from folders, and one for scripts.
OTHERS = ("correspondences", "tilde", "response")


@pytest.fixture(scope="module")
def singles(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), picture(i, 200))
    return read_source(Source("single", "photos", folder), ReadOptions(points_per_image=60))


def losses(folder: Path) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in read_log(folder / "log.jsonl") if e["kind"] == "train"}


def make_recipe(kind: str, hard_store: Store, singles: Store, out: Path, device: torch.device | str = "cpu") -> Recipe:
    if kind == "paper":
        return PaperRecipe(hard_store, out, PAPER, hard_store, device)
    if kind.startswith("compact"):
        return CompactRecipe(singles, out, COMPACT if kind == "compact" else WITH_RESPONSE, None, device)
    if kind == "lfnet":
        return LFNetRecipe(singles, out, LFNET, None, device)
    return ModernRecipe(singles, out, replace(MODERN), None, device)


def run_stage(recipe: Recipe, stage: str) -> Result:
    """Train a stage through networks as they were made."""
    return recipe.run([stage], given=recipe.STAGES, progress=False)[stage]


def interrupted(make: Callable[[Path], Recipe], stage: str, out: Path, number: signal.Signals) -> None:
    """Train a stage whose batch of step ``STOP`` sends a signal."""
    recipe = make(out)
    build = recipe.make_stage

    def make_stage(name: str) -> Any:
        made = build(name)
        draw = made.batch

        def batch(generator: torch.Generator, step: int) -> dict[str, torch.Tensor]:
            if step == STOP:
                signal.raise_signal(number)
            return draw(generator, step)

        made.batch = batch  # type: ignore[method-assign]
        return made

    recipe.make_stage = make_stage  # type: ignore[method-assign]
    with pytest.raises(TrainingInterrupted) as stopped:
        run_stage(recipe, stage)
    assert stopped.value.number == number
    assert load_checkpoint(out / stage / "last.pt")["step"] <= STEPS


@pytest.mark.parametrize(("kind", "stage"), EVERY)
def test_a_signal_in_any_stage_changes_nothing(
    kind: str, stage: str, hard_store: Store, singles: Store, tmp_path: Path, small_validation: None
) -> None:
    def make(out: Path) -> Recipe:
        return make_recipe(kind, hard_store, singles, out)

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    undisturbed = run_stage(make(whole), stage)
    number = signal.SIGTERM if kind == "paper" else signal.SIGINT
    interrupted(make, stage, halves, number)
    result = run_stage(make(halves), stage)
    assert (result.interval is not None) == (kind == "modern" or (kind, stage) in PAIRED)
    if result.interval is not None:
        assert result.interval == pytest.approx(undisturbed.interval, rel=0.1, abs=1e-3)
    assert set(losses(whole / stage)) == set(range(1, STEPS + 1))
    assert losses(halves / stage) == pytest.approx(losses(whole / stage), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_signal_in_any_other_stage_changes_nothing(kind: str, singles: Store, tmp_path: Path) -> None:
    fit(make_stage(kind, singles, tmp_path / "a"), LOOP, tmp_path / "whole", progress=False)
    stage = make_stage(kind, singles, tmp_path / "b")
    draw = stage.batch

    def batch(generator: torch.Generator, step: int) -> Any:
        if step == STOP:
            signal.raise_signal(signal.SIGTERM)
        return draw(generator, step)

    stage.batch = batch
    with pytest.raises(TrainingInterrupted, match="the same command goes on"):
        fit(stage, LOOP, tmp_path / "halves", progress=False)
    fit(make_stage(kind, singles, tmp_path / "b"), LOOP, tmp_path / "halves", progress=False)
    assert set(losses(tmp_path / "halves")) == set(range(1, STEPS + 1))
    assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "stage"), EVERY)
def test_every_stage_trains_on_a_gpu(
    kind: str, stage: str, hard_store: Store, singles: Store, tmp_path: Path, cuda: torch.device
) -> None:
    recipe = make_recipe(kind, hard_store, singles, tmp_path, cuda)
    run_stage(recipe, stage)
    assert {p.device.type for p in recipe.network_of(stage).parameters()} == {cuda.type}
    assert set(losses(tmp_path / stage)) == set(range(1, STEPS + 1))


def make_stage(kind: str, singles: Store, out: Path) -> Any:
    torch.manual_seed(3)
    if kind == "correspondences":
        config = CorrespondenceConfig(pairs_per_batch=3, matches_per_pair=40, essential_from=4)
        pairs = [matched_pair(n, count=60) for n in range(8)]
        return CorrespondenceStage(CorrespondenceNet(channels=8, blocks=1), pairs[:6], pairs[6:], config)
    if kind == "tilde":
        few = TildeConfig(num_sum=2, num_max=2, channels=1, filter_size=11, map_size=7, locations_per_batch=8)
        return TildeStage(make_response(few), [aligned_stack(0), aligned_stack(1)], [aligned_stack(2)], few)
    if kind == "response":
        config = replace(SCALE_CROPS, size=96, per_image=1)
        crops = WarpedCrops([[singles.decode(n)] for n in range(3)], config)
        return ScaleSpaceResponseStage(LIFTResponse(False), crops, crops, 2, (8, 20), LevelGrid(96, count=3))
    if kind == "toy":
        return ToyStage()
    recipe = CompactRecipe(singles, out, COMPACT)
    return recipe.make_stage(kind)


@contextmanager
def signalled(stage: Any, chance: random.Random, wanted: bool) -> Iterator[Any]:
    """A stage whose training gets a signal up to 0.2 s after its first batch was drawn."""
    begun, ended, draw = threading.Event(), threading.Event(), stage.batch

    def batch(generator: torch.Generator, step: int) -> Any:
        begun.set()
        return draw(generator, step)

    def send() -> None:
        begun.wait(60)
        if not ended.wait(chance.uniform(0, 0.2)):
            os.kill(os.getpid(), chance.choice((signal.SIGINT, signal.SIGTERM)))

    stage.batch = batch
    sender = threading.Thread(target=send)
    if wanted:
        sender.start()
    try:
        yield stage
    finally:
        ended.set()
        begun.set()
        if wanted:
            sender.join()


@pytest.mark.parametrize("kind", ["toy", "correspondences", "orientation", "descriptor"])
def test_signals_at_random_moments_change_nothing(
    kind: str, singles: Store, tmp_path: Path, small_validation: None
) -> None:
    """Also while validating and saving, and several in one training; no delay is the same in two runs of the test."""
    loop = replace(LOOP, steps=12, validate_every=3, checkpoint_every=5, learning_rate=1e-3, prefetch=True)
    fit(make_stage(kind, singles, tmp_path), loop, tmp_path / "whole", progress=False)
    chance, interruptions = random.Random(), 0
    # a signal that comes when the training has just ended must not end the test
    before = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            try:
                with signalled(make_stage(kind, singles, tmp_path), chance, interruptions < 4) as stage:
                    fit(stage, loop, tmp_path / "parts", progress=False)
                break
            except TrainingInterrupted:
                interruptions += 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert set(whole) == set(range(1, 13))
    assert parts == pytest.approx(whole, rel=1e-3, abs=1e-5)
    errors = [
        {e["step"]: e["error"] for e in read_log(tmp_path / run / "log.jsonl") if e["kind"] == "validation"}
        for run in ("whole", "parts")
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3, abs=1e-5)
