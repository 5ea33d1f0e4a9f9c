"""Images of a scene that anyone may have: a corner of two walls and a floor, papered with images of scikit-image.

    python docs/examples/corner.py photos/corner --views 8

The textures are scikit-image's astronaut (NASA) and its images of coffee, a cat, bricks, gravel and a cameraman, all
in the public domain. Views move around the corner, so that the images can be reconstructed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from skimage import data

SIZE = (640, 480)
FOCAL = 560.0


def textures(shuffle: int) -> list[np.ndarray]:
    """Return a gray image for each of three planes, a collage of scikit-image's own, in another order each time."""
    images = [data.astronaut(), data.coffee(), data.chelsea(), data.brick(), data.gravel(), data.camera()]
    gray = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) if i.ndim == 3 else i for i in images]
    tiles = [cv2.resize(i, (500, 400)) for i in gray]
    order = np.random.default_rng(shuffle).permutation(12) % len(tiles)
    return [np.block([[tiles[order[4 * k + 2 * r + c]] for c in range(2)] for r in range(2)]) for k in range(3)]


def camera(angle: float, height: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) of a camera that looks at the corner from an angle, radians."""
    centre = distance * np.array([math.cos(angle), math.sin(angle), height])
    target = np.array([0.6, 0.6, 0.7])
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation, -rotation @ centre


def render(rotation: np.ndarray, translation: np.ndarray, papers: list[np.ndarray]) -> np.ndarray:
    """Return the view (480, 640) of the three planes x = 0, y = 0, z = 0, each 2 units wide, in front of gray."""
    k = np.array([[FOCAL, 0, (SIZE[0] - 1) / 2], [0, FOCAL, (SIZE[1] - 1) / 2], [0, 0, 1]])
    image = np.full(SIZE[::-1], 128, np.uint8)
    for axis, paper in enumerate(papers):
        one, two = (np.eye(3)[a] for a in range(3) if a != axis)
        scale = 2.0 / max(paper.shape)
        # from the pixels of the paper to the image: a point of the plane is u * one + v * two
        plane = np.stack([one * scale, two * scale, np.zeros(3)], 1)
        homography = k @ (rotation @ plane + np.outer(translation, [0, 0, 1]))
        view = cv2.warpPerspective(paper, homography, SIZE, flags=cv2.INTER_AREA)
        mask = cv2.warpPerspective(np.full_like(paper, 255), homography, SIZE)
        image = np.where(mask > 254, view, image)
    return image


def write_views(folder: Path, views: int = 8, shuffle: int = 0) -> list[Path]:
    """Write the images of a corner to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    papers = textures(shuffle)
    rng = np.random.default_rng(shuffle)
    paths = []
    for number, angle in enumerate(np.linspace(0.45, 1.1, views)):
        image = render(*camera(angle, 0.45 + 0.05 * math.sin(3.0 * number), 2.6 + 0.3 * math.cos(2.0 * number)), papers)
        noisy = image + rng.normal(0, 2.0, image.shape)
        path = folder / f"{number:02d}.jpg"
        cv2.imwrite(str(path), noisy.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--shuffle", type=int, default=0, help="another scene of the same kind")
    args = parser.parse_args()
    for path in write_views(args.folder, args.views, args.shuffle):
        print(path)


if __name__ == "__main__":
    main()
