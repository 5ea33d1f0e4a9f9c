"""Images of an unfamiliar kind: radar-like speckle. make.py IMAGES OUT LOOKS COUNT."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

images, out, looks, count = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
files = sorted(p for p in images.iterdir() if p.suffix.lower() in (".jpg", ".png"))[:count]
for path in files:
    gray = np.asarray(Image.open(path).convert("L"), float)
    noisy = gray * rng.gamma(looks, 1 / looks, gray.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out / f"{path.stem}.png")
