"""Positions, scales and time of the localization of `lift-plus` in every number format, on keypoints of an image.

python experiments/2026-11-28/integers/positions.py IMAGE > experiments/2026-11-28/integers/positions.json
"""

import json
import sys
import time
from pathlib import Path

import torch
from kornia.feature import PassLAF

from kornia_lift import LIFTDetector, load_image
from kornia_lift._gray import as_gray
from kornia_lift.geometry.pyramid import extract_patches
from kornia_lift.networks.localization import KeypointLocalization

SIGMA = 64 / 63 * 6  # half the side of the patch of a keypoint of sigma 1, pixels

torch.set_num_threads(1)
image = as_gray(load_image(sys.argv[1]))
with torch.inference_mode():
    detector = LIFTDetector(1150, pretrained="lift-plus", localizer=PassLAF())
    patches = extract_patches(image, detector(image)[0], 32)[0]
    exact = KeypointLocalization("lift-plus", precision="float32")(patches)
    found = {"expected error of the positions, median, sigma": round(float(exact[:, 3].exp().median()) * SIGMA, 4)}
    for precision in ("float32", "bfloat16", "int8"):
        network = KeypointLocalization("lift-plus", precision=precision)
        off = network(patches) - exact
        position, scale = off[:, :2].square().mean().sqrt(), off[:, 2].square().mean().sqrt()
        seconds = []
        for _ in range(5):
            start = time.process_time()
            network(patches)
            seconds.append(time.process_time() - start)
        found[precision] = {
            "positions, root mean square along an axis, sigma": round(float(position) * SIGMA, 5),
            "logarithm of scales, root mean square": round(float(scale), 5),
            "processor seconds, best of 5": round(min(seconds), 4),
        }
print(json.dumps({"image": Path(sys.argv[1]).name, "patches": len(patches), "formats": found}, indent=1))
