"""Train the affine shapes: detections of images and of warped copies must get shapes that the warp explains.

    python experiments/2026-11-28/shape/train.py STORES --out RUN --minutes 40

STORES is the folder that `scripts/remake_weights.py` fills: train-*.npz, validation/validation.npz.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Generator, Tensor

from kornia_lift import LIFTDetector
from kornia_lift.geometry import lafs_from_lift, rotation_matrix
from kornia_lift.networks.shape import PATCH_SIZE, KeypointShape, stretch
from kornia_lift.training.compact.byte_patches import BytePatches
from kornia_lift.training.compact.copies import CopyConfig, KeypointPairs, copy_images
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.data.store import load_store
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.weights import save_model

COPIES = CopyConfig(copies=2, warp=CropConfig(size=1000, scale=1.5, stretch=3.0, perspective=0.125, shift=0.0))
MILD = Photometric(gain=1.2, noise=0.01, blur=0.0, shadow=0.0, jpeg=0.0)
CHANGES = Photometric(gain=1.4, gamma=1.3, noise=0.015, blur=0.5, shadow=0.1, jpeg=0.0)
IMAGES, PAIRS = 6, 64  # of a batch
JITTER = 0.05  # of the frames, in sigmas, and of the logarithm of their scales
RATE, EMA = 3e-3, 0.99
BANDS = (0.0, math.log(1.2), math.log(1.6), math.inf)  # of the anisotropy of the warp, for the validation


class Batches:
    """Patches of pairs of detections, each in a random rotation, and the map between their frames."""

    def __init__(self, pairs: Sequence[KeypointPairs], context: float) -> None:
        self.pairs, self.context = pairs, context
        self.patches = BytePatches([view for pair in pairs for view in (pair.image, pair.copy)])

    def draw(
        self, chosen: Sequence[int], count: int, generator: Generator, jitter: float = 0.0, rotate: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return patches (N, 1, 32, 32) of both views, and maps of determinant 1 between their frames (N, 2, 2)."""
        parts = []
        for number in chosen:
            pair = self.pairs[number]
            take = torch.randperm(len(pair.xy), generator=generator)[:count]
            noise = jitter * torch.randn(2, len(take), 3, generator=generator)
            rotation = rotation_matrix(2 * math.pi * rotate * torch.rand(2 * len(take), generator=generator))
            views = []
            for side, (xy, sigma) in enumerate(((pair.xy, pair.sigma), (pair.copy_xy, pair.copy_sigma))):
                at, size = xy[take], sigma[take]
                at = at + noise[side, :, :2] * size[:, None]
                lafs = lafs_from_lift(at[None], (size * noise[side, :, 2].exp())[None])[0]
                axes = self.context * lafs[:, :, :2] @ rotation.chunk(2)[side]
                image = torch.full((len(take),), 2 * number + side)
                views.append(self.patches.cut(image, torch.cat([axes, lafs[:, :, 2:]], 2), PATCH_SIZE))
            first, second = rotation.chunk(2)
            between = second.mT @ pair.jacobian[take] @ first
            parts.append((*views, between / between.det().abs().sqrt()[:, None, None]))
        one, two, maps = (torch.cat(part) for part in zip(*parts, strict=True))
        return one, two, maps


def unexplained(first: Tensor, second: Tensor, between: Tensor) -> Tensor:
    """Return half the logarithm of the anisotropy that is left between two frames with these shapes, (N,)."""
    left = stretch(-second) @ between @ stretch(first)
    return torch.acosh((left.square().sum((1, 2)) / 2).clamp(min=1 + 1e-6)) / 2


def pairs_of(paths: Sequence[Path], config: CopyConfig, images: int) -> list[KeypointPairs]:
    """Detections of ``lift-plus``, with its localization, in images and copies."""
    detector = LIFTDetector(700, pretrained="lift-plus").eval()
    stored = [image for path in paths for image in load_store(path).images[:images]]
    with torch.inference_mode():
        pairs = copy_images([image.decode() for image in stored], detector, config)
    return [KeypointPairs(*(part.clone() for part in pair)) for pair in pairs]


def main() -> None:
    """Prepare the pairs, train, write log and weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--context", type=float, default=2.0)
    parser.add_argument("--images", type=int, default=300, help="of each store, at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    judged = replace(COPIES, copies=1, photometric=MILD, seed=9)
    held_out = Batches(pairs_of([args.stores / "validation" / "validation.npz"], judged, args.images), args.context)
    train = sorted(args.stores.glob("train-*.npz"))
    batches = Batches(pairs_of(train, replace(COPIES, seed=1), args.images), args.context)
    one, two, between = held_out.draw(range(len(held_out.pairs)), 80, torch.Generator().manual_seed(0))
    network = KeypointShape(False).train()
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    generator, begun, step = torch.Generator().manual_seed(1), time.monotonic(), 0
    nothing = unexplained(*torch.zeros(2, len(one), 2), between)

    def validate() -> None:
        judge = KeypointShape(False, precision="float32").eval()
        judge.load_state_dict(average)
        with torch.no_grad():
            left = unexplained(judge(one), judge(two), between)
        bands = [(2 * nothing >= low) & (2 * nothing < high) for low, high in pairwise(BANDS)]
        figures = {
            "step": step,
            "seconds": round(time.monotonic() - begun),
            "left": round(float(left.mean()), 4),
            "without": round(float(nothing.mean()), 4),
            "left_by_warp": [round(float(left[band].mean()), 4) for band in bands],
            "without_by_warp": [round(float(nothing[band].mean()), 4) for band in bands],
        }
        with (args.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(figures) + "\n")
        print(figures, flush=True)

    shown = 0.0
    while (done := (time.monotonic() - begun) / 60 / args.minutes) < 1:
        if done >= shown:
            validate()
            shown += 0.1
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 30) * (1 - done)
        chosen = torch.randint(len(batches.pairs), (IMAGES,), generator=generator).tolist()
        *views, maps = batches.draw(chosen, PAIRS, generator, JITTER, rotate=True)
        found = network(torch.cat([augment(view, CHANGES, generator) for view in views]))
        loss = unexplained(*found.chunk(2), maps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        keep = min(EMA, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
            else:
                average[name] = value.clone()
    validate()
    network.load_state_dict(average)
    save_model(args.out / "shape.safetensors", {"shape": network}, {"record": "experiments/2026-11-28/shape"})


if __name__ == "__main__":
    main()
