"""Angles and time of the orientation of `lift-plus` in every number format, on keypoints of an image.

python experiments/2026-11-28/integers/angles.py IMAGE > experiments/2026-11-28/integers/angles.json
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from kornia.feature import scale_laf

from kornia_lift import LIFTFeature, load_image
from kornia_lift._gray import as_gray
from kornia_lift.geometry.pyramid import extract_patches
from kornia_lift.networks import PolarOrientation

torch.set_num_threads(1)
image = as_gray(load_image(sys.argv[1]))
with torch.inference_mode():
    detector = LIFTFeature(1000, pretrained="lift-plus").detector
    patches = extract_patches(image, scale_laf(detector(image)[0], 3.0), 32)[0]
    exact = PolarOrientation("lift-plus", precision="float32")(patches)
    found = {}
    for precision in ("float32", "bfloat16", "int8"):
        network = PolarOrientation("lift-plus", precision=precision)
        off = ((network(patches) - exact + math.pi) % (2 * math.pi) - math.pi).abs()
        seconds = []
        for _ in range(5):
            start = time.process_time()
            network(patches)
            seconds.append(time.process_time() - start)
        found[precision] = {
            "within 5 degrees": round(float((off < math.radians(5)).float().mean()), 4),
            "median, degrees": round(math.degrees(float(off.median())), 4),
            "processor seconds, best of 5": round(min(seconds), 4),
        }
print(json.dumps({"image": Path(sys.argv[1]).name, "patches": len(patches), "formats": found}, indent=1))
