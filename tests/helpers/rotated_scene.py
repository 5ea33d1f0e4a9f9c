"""A small world whose truth is known: one textured image, seen several times through known similarities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_lift.scenes.scene import VISIBLE, Pair, SkippedPair, Transferred, inside


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs of several sizes on a smooth ground, uint8."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    picture = np.full((height, width), 90.0, dtype=np.float32)
    for sigma, strength in ((2.0, 9), (4.0, 18), (8.0, 30)):
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), sigma)
        picture += strength * noise / noise.std()
    return picture.clip(0, 255).astype(np.uint8)


class RotatedScene:
    """A picture and copies of it that are rotated and zoomed about its middle."""

    name = "rotated"
    skipped: tuple[SkippedPair, ...] = ()

    def __init__(self, size: int = 400, rotations: tuple[float, ...] = (0.0, 30.0, 75.0), zoom: float = 1.25) -> None:
        cv2 = pytest.importorskip("cv2")
        self.size = size
        self.names = tuple(f"view{i}" for i in range(len(rotations)))
        self.pairs = tuple(Pair(i, j) for i in range(len(rotations)) for j in range(i + 1, len(rotations)))
        base = texture(size, size, 1)
        middle = (size - 1) / 2
        # OpenCV's positive angle is counter-clockwise on screen
        self.matrices = [
            np.vstack([cv2.getRotationMatrix2D((middle, middle), -t, zoom if i else 1.0), [0, 0, 1]])
            for i, t in enumerate(rotations)
        ]
        self.pictures = [
            cv2.warpAffine(base, m[:2], (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
            for m in self.matrices
        ]

    def image(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.pictures[index])[None, None].float() / 255

    def image_size(self, index: int) -> tuple[int, int]:
        return self.size, self.size

    def transfer(self, i: int, j: int, points: np.ndarray) -> Transferred:
        matrix = self.matrices[j] @ np.linalg.inv(self.matrices[i])
        moved = points @ matrix[:2, :2].T + matrix[:2, 2]
        # the border of a rotated copy is mirrored, not seen
        seen = np.hypot(*(moved - (self.size - 1) / 2).T) < self.size / 2
        status = np.where(inside(moved, (self.size, self.size)) & seen, VISIBLE, 0).astype(np.int8)
        return Transferred(moved, status)
