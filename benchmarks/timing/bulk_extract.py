"""Images per second of `kornia-lift extract` over a folder, against the bare feature on images in memory.

Writes a folder of JPEG files (scikit-image's astronaut and coffee, enlarged and cropped at different locations), runs
the command, then the feature alone on the same images, alternating, and prints the share of the bare rate that the
command reaches (at least 85 % is required).

    python -m benchmarks.timing.bulk_extract --images 12 --out benchmarks/results/speed/bulk_extract.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data

from kornia_lift import LIFTFeature, __version__
from kornia_lift._io import atomic_write, load_image
from kornia_lift.cli import main as kornia_lift
from kornia_lift.matching import extract_features


def write_images(folder: Path, count: int, width: int, height: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        source = (data.astronaut(), data.coffee())[index % 2]
        scale = 1.15 * max(width / source.shape[1], height / source.shape[0])
        large = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        y, x = (rng.integers(0, room + 1) for room in (large.shape[0] - height, large.shape[1] - width))
        paths.append(folder / f"{index:03d}.jpg")
        cv2.imwrite(str(paths[-1]), large[y : y + height, x : x + width, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--num-features", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()

    feature = LIFTFeature(args.num_features).to(args.device).eval()
    rates: dict[str, list[float]] = {"extract": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        paths = write_images(folder, args.images, *args.size)
        images = [load_image(path, gray=True) for path in paths]
        extract_features(feature, images[0].to(args.device))  # the first call pays for compilation and memory
        for round_ in range(args.rounds):
            start = time.perf_counter()
            options = ["--num-features", str(args.num_features), "--resize", "0", "--device", args.device]
            code = kornia_lift(
                ["extract", str(folder), "--out", str(Path(name) / f"{round_}.h5"), *options],
                make_feature=lambda _: feature,
            )
            if code != 0:
                raise SystemExit(code)
            rates["extract"].append(args.images / (time.perf_counter() - start))
            start = time.perf_counter()
            for image in images:
                extract_features(feature, image.to(args.device))
            rates["bare"].append(args.images / (time.perf_counter() - start))
    median = {key: statistics.median(values) for key, values in rates.items()}
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "cpu"
    result = {
        "metadata": {
            "kornia_lift": __version__,
            "torch": torch.__version__,
            "device": device,
            "threads": torch.get_num_threads(),
            "images": args.images,
            "size": list(args.size),
            "num_features": args.num_features,
        },
        "results": {
            "images_per_second": rates,
            "median": median,
            # of runs that follow each other: the speed of these machines changes within minutes
            "share_of_bare_rate": statistics.median(
                e / b for e, b in zip(rates["extract"], rates["bare"], strict=True)
            ),
        },
    }
    print(json.dumps(result["results"], indent=1))
    if args.out is not None:
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
