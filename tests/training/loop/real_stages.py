"""The stages whose losses look across the batch, small enough for seconds, and a script that trains them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.store import load_store
from kornia_lift.training.loop import distributed, fit
from kornia_lift.training.modern.descriptor import HardestDescriptorStage
from kornia_lift.training.modern.orientation import EquivariantOrientationStage
from kornia_lift.training.modern.pairs import PatchPairs
from kornia_lift.training.modern.tracks import STORED_SIZE, PatchTracks
from kornia_lift.training.paper.descriptor import DescriptorOptions, PaperDescriptorStage
from kornia_lift.training.paper.detector import DetectorOptions, OverlapDetectorStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from kornia_lift.training.stage import Stage

STAGES = ("modern", "modern_orientation", "paper", "overlap")
GRAY = {"mean": 0.43, "std": 0.11}
# SGD: Adam's first steps are all signs, which rounding flips where a gradient is nearly zero
LOOP = LoopConfig(steps=4, optimizer="sgd", learning_rate=1e-3, validate_every=4, checkpoint_every=4, log_every=1)


def patch_pairs(locations: int = 7) -> PatchPairs:
    """Noise, every location once."""
    pixels = torch.rand((locations, 1, 13, 13), generator=torch.Generator().manual_seed(1))
    pixels = torch.nn.functional.interpolate(pixels, STORED_SIZE, mode="bicubic").clamp(0, 1)
    row = torch.arange(locations)
    frame = torch.stack([100.0 * row, 100.0 * row, torch.full((locations,), 2.0)], 1)
    tracks = PatchTracks((pixels[:, 0] * 255).to(torch.uint8), row, torch.zeros(locations, dtype=torch.long), frame)
    return PatchPairs(tracks, groups=1, per_group=locations)


def real_stage(name: str, store: Path) -> Stage:
    torch.manual_seed(5)
    if name == "modern":
        return HardestDescriptorStage(LIFTDescriptor(False), patch_pairs(), patch_pairs())
    if name == "modern_orientation":
        return EquivariantOrientationStage(LIFTOrientation(False), patch_pairs(), patch_pairs())
    sampler = QuadrupletSampler(load_store(store))
    if name == "paper":  # mines from step 2 on
        options = DescriptorOptions(pairs=5, mining_every=2, mining_cap=2, validation_pairs=10)
        return PaperDescriptorStage(LIFTDescriptor(False, normalize=False, **GRAY), sampler, sampler, options)
    few = DetectorOptions(quadruplets=3, mining_ratio=3, validation_quadruplets=10)
    return OverlapDetectorStage(LIFTResponse(False, **GRAY), sampler, sampler, few)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("store", type=Path)
    args = parser.parse_args()
    with distributed.process_group():
        for name in STAGES:
            fit(real_stage(name, args.store), LOOP, args.out / name, progress=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
