"""Keypoints of every detector of the family on one image, for the page "The family".

    python -m benchmarks.pages.family --image ../shared/data/train/posed/castle-P30/images/0011.jpg \
        --tilde ../shared/weights_upstream/Mexico24.txt

Writes docs/images/family.jpg: OpenCV SIFT, TILDE with its published filters, LIFT, lift-dense and LF-Net with the
shipped weights. Circles are the detectors' scales; TILDE has one, and LF-Net's vary little.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.parts.tilde import best_maxima
from kornia_lift import LIFTFeature
from kornia_lift._gray import as_gray
from kornia_lift._io import atomic_write, load_image
from kornia_lift.convert.tilde_files import load_tilde
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.evaluation.features.peers import opencv_sift
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, lafs_from_lift
from kornia_lift.viz import draw_keypoints

ROOT = Path(__file__).parents[2]
COUNT, WIDTH, BAR = 300, 640, 24  # keypoints, pixels of a panel and of the line of text above it
TILDE_SIGMA = 10 / LAF_SCALE_PER_SIGMA  # radius 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--tilde", type=Path, help="a published filter file of TILDE")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "family.jpg")
    args = parser.parse_args()
    image = load_image(args.image)
    image = torch.nn.functional.interpolate(image, scale_factor=WIDTH / image.shape[-1], mode="area")
    detectors: dict[str, Callable[[Tensor], Tensor]] = {"SIFT": lambda x: opencv_sift(COUNT)(x).lafs}
    if args.tilde is not None:
        detectors["TILDE, published filters"] = lambda x: tilde_frames(args.tilde, x)
    lift = LIFTFeature(COUNT, pretrained="lift").eval().detector
    detectors["LIFT, shipped weights"] = lambda x: lift(as_gray(x))[0][0]
    dense = LIFTFeature(COUNT, pretrained="lift-dense").eval().detector
    detectors["lift-dense"] = lambda x: dense(as_gray(x))[0][0]
    lfnet = LFNetDetector(COUNT, True)
    detectors["LF-Net, shipped weights"] = lambda x: lfnet(as_gray(x))[0][0]
    panels = []
    with torch.inference_mode():
        for name, detect in detectors.items():
            lafs = detect(image)
            lafs = lafs[lafs[:, 0, 0].abs() + lafs[:, 0, 1].abs() > 0]
            panel = draw_keypoints(image, lafs, max_keypoints=len(lafs))
            panel = np.pad(panel, ((BAR, 8), (0, 8), (0, 0)), constant_values=255)
            title = f"{name}: {len(lafs)} keypoints"
            cv2.putText(panel, title, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
            panels.append(panel)
            print(title)
    if len(panels) % 2:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.concatenate(panels[k : k + 2], 1) for k in range(0, len(panels), 2)]
    picture = np.concatenate(rows)
    with atomic_write(args.out) as temporary:
        cv2.imwrite(str(temporary), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(args.out)
    return 0


def tilde_frames(filters: Path, image: Tensor) -> Tensor:
    """Frames of the best maxima of TILDE's score, as in the authors' release: one scale, no orientation."""
    at = torch.from_numpy(best_maxima(load_tilde(filters)(image), COUNT, radius=2)).to(image.dtype)
    return lafs_from_lift(at[None], torch.full((1, len(at)), TILDE_SIGMA))[0]


if __name__ == "__main__":
    raise SystemExit(main())
