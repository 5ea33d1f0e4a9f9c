"""Repeatability of keypoints under changing illumination: TILDE's filters beside LIFT's response and DoG.

    python -m benchmarks.parts.tilde STACK... --filters runs/tilde/tilde.safetensors Mexico.txt [--out FILE.md]

A stack is a folder of aligned images, or a sequence with homographies (Oxford). Every image is compared with every
other one (of a sequence, the first with the others): keypoints are assigned one-to-one, nearest first, within 3 and 5
pixels, and counted over the smaller number of keypoints that the other image shows. All detectors keep their best ones;
TILDE works on the image itself, at one scale, and so does a second row of LIFT's response; the others search scale
space. `runs/tilde/untrained.safetensors` are the filters that the training started from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_lift import LIFTFeature
from kornia_lift._gray import as_gray
from kornia_lift._io import atomic_write
from kornia_lift.convert import load_tilde
from kornia_lift.detector.soft_nms import strict_maxima
from kornia_lift.evaluation.features.peers import opencv_sift
from kornia_lift.evaluation.measures.one_to_one import greedy_one_to_one
from kornia_lift.scenes.homographies import HomographySequence, has_homographies, has_numbered_images
from kornia_lift.scenes.scene import VISIBLE, FloatArray
from kornia_lift.scenes.static import StaticSequence
from kornia_lift.training.data.posed_pairs import spread

BORDER, RADIUS = 21, 4  # pixels: the border the release leaves out, the neighbourhood of a maximum
WITHIN = (3.0, 5.0)
Detect = Callable[[Tensor], FloatArray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--filters", nargs="*", type=Path, default=[])
    parser.add_argument("-n", "--num-keypoints", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=36, help="pairs of a stack at most, spread over all")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [_scene(folder) for folder in args.stacks]
    rows = [f"| detector | {' | '.join(f'{s.name}, {w:.0f} px' for s in scenes for w in WITHIN)} |"]
    rows.append("|---|" + "---|" * (len(scenes) * len(WITHIN)))
    for name, detect in detectors(args.filters, args.num_keypoints).items():
        figures = [f"{v:.3f}" for s in scenes for v in repeatability(s, detect, args.pairs)]
        rows.append(f"| {name} | {' | '.join(figures)} |")
        print(rows[-1], flush=True)
    counts = ", ".join(f"{s.name}: {min(args.pairs, len(s.pairs))} pairs" for s in scenes)
    head = f"{args.num_keypoints} keypoints an image; {counts}."
    text = f"{head}\n\n" + "\n".join(rows) + "\n"
    print(text)
    if args.out is not None:
        with atomic_write(args.out) as temporary:
            temporary.write_text(f"Made by `benchmarks/parts/tilde.py`. {text}", encoding="utf-8")
    return 0


def detectors(filters: list[Path], count: int) -> dict[str, Detect]:
    """Functions from an image (1, C, H, W) to the best ``count`` positions (N, 2), by name."""
    sift = opencv_sift(count)
    lift = LIFTFeature(count, pretrained="lift").eval()
    response = lift.detector.resp
    found: dict[str, Detect] = {
        "DoG (OpenCV SIFT)": lambda x: sift(x).keypoints,
        "LIFT's detector": lambda x: lift.detector(as_gray(x))[0][0, :, :, 2].double().numpy(),
        "LIFT's response, one scale": lambda x: best_maxima(response(as_gray(x)), count),
    }
    for path in filters:
        network = load_tilde(path)
        found[f"TILDE, {path.name}"] = _scored(network, count)
    return found


def _scored(network: Callable[[Tensor], Tensor], count: int) -> Detect:
    return lambda x: best_maxima(network(x), count)


def best_maxima(score: Tensor, count: int, radius: int = RADIUS) -> FloatArray:
    """Positions (x, y) of the highest maxima of a score (1, 1, H, W)."""
    score = score[:, 0] - score.amin()  # maxima count where they are positive
    kept = strict_maxima(score, radius)
    kept[:, :BORDER] = kept[:, -BORDER:] = False
    kept[..., :BORDER] = kept[..., -BORDER:] = False
    best = torch.where(kept, score, 0).flatten().topk(count)
    index = best.indices[best.values > 0]
    width = score.shape[-1]
    return torch.stack([index % width, index // width], 1).double().numpy()


def repeatability(scene: HomographySequence, detect: Detect, pairs: int) -> list[float]:
    """Mean share of keypoints that are found again, for every threshold."""
    with torch.inference_mode():
        points = [detect(scene.image(k)) for k in range(len(scene.names))]
    values = []
    for pair in spread(scene.pairs, pairs):
        forward, backward = (
            scene.transfer(pair.i, pair.j, points[pair.i]),
            scene.transfer(pair.j, pair.i, points[pair.j]),
        )
        seen, there = forward.status == VISIBLE, points[pair.j][backward.status == VISIBLE]
        distance = np.linalg.norm(forward.points[seen][:, None] - there[None], axis=-1)
        least = max(min(distance.shape), 1)
        values.append([len(greedy_one_to_one(distance, within)) / least for within in WITHIN])
    return np.mean(values, axis=0).tolist()


def _scene(folder: Path) -> HomographySequence:
    aligned = not (has_numbered_images(folder) and has_homographies(folder))
    return StaticSequence.load(folder, all_pairs=True) if aligned else HomographySequence.load(folder)


if __name__ == "__main__":
    raise SystemExit(main())
