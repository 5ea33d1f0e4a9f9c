"""Seconds of a call on a GPU, as in the table of README.md: ``python bench.py IMAGE`` with a gray or color image."""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from kornia_lift import LIFTFeature, load_image


def seconds(call: Callable[[], object], times: int = 8) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


torch.backends.cudnn.allow_tf32 = False
picture = load_image(sys.argv[1], gray=True)
large, small = (
    F.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1).cuda() for size in ((1200, 1600), (480, 640))
)
for model in ("lift", "lift-plus"):
    feature = LIFTFeature(1000, pretrained=model, device="cuda")
    with torch.inference_mode():
        print(model, "1600x1200", seconds(lambda: feature(large)), "detector", seconds(lambda: feature.detector(large)))
        print(model, "8 x 640x480", seconds(lambda: feature(small.expand(8, -1, -1, -1).contiguous())))
        feature.half()
        print(model, "1600x1200, float16", seconds(lambda: feature(large.half())))
