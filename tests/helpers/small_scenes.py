"""Small scenes with exact geometry, and features whose scores are known beforehand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kornia_lift.features import Features
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.feature_files import writing

WIDTH, HEIGHT = 120, 90
K = np.array([[100.0, 0.0, 59.5], [0.0, 102.0, 44.5], [0.0, 0.0, 1.0]])
#: The plane n . X = d seen by the first camera.
NORMAL, DISTANCE = np.array([0.15, -0.1, 1.0]), 5.0


def rotation(degrees: float, axis: int) -> np.ndarray:
    vector = np.zeros(3)
    vector[axis] = np.radians(degrees)
    return cv2.Rodrigues(vector)[0]


def write_plane_scene(root: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Two cameras before one plane, with exact depth (up to the 16 bits of the file)."""
    width, height = size
    (root / "images").mkdir(parents=True)
    (root / "depth").mkdir()
    poses = [(np.eye(3), np.zeros(3)), (rotation(6, 1) @ rotation(2, 2), np.array([-0.5, 0.1, 0.2]))]
    scale = 1 / (65535 * 1.0)  # nearest depth 1 m
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(K).T
    generator = np.random.default_rng(0)
    for k, (r, t) in enumerate(poses):
        # Plane in the camera's frame: X = R^T (Y - t), so (R n) . Y = d + (R n) . t; a ray of z = 1 gives 1 / z.
        normal = r @ NORMAL
        inverse = rays @ normal / (DISTANCE + normal @ t)
        cv2.imwrite(
            str(root / "depth" / f"{k}.png"), np.round(inverse / scale).reshape(height, width).astype(np.uint16)
        )
        cv2.imwrite(str(root / "images" / f"{k}.png"), generator.integers(0, 255, (height, width), dtype=np.uint8))
    np.savez(
        root / "cameras.npz",
        K=np.stack([K, K]),
        R=np.stack([p[0] for p in poses]),
        t=np.stack([p[1] for p in poses]),
        names=np.array(["0", "1"]),
        width=width,
        height=height,
        depth_scale=scale,
    )
    return root


def plane_homography() -> np.ndarray:
    """From image 0 to image 1 of the plane scene: K (R + t n^T / d) K^-1."""
    r, t = rotation(6, 1) @ rotation(2, 2), np.array([-0.5, 0.1, 0.2])
    h = K @ (r + np.outer(t, NORMAL) / DISTANCE) @ np.linalg.inv(K)
    return h / h[2, 2]


def write_sequence(root: Path, homographies: dict[int, np.ndarray], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Images 1..n of noise with these homographies; evaluation from ready features never looks at them."""
    root.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number in (1, *homographies):
        cv2.imwrite(str(root / f"{number}.png"), generator.integers(0, 255, size[::-1], dtype=np.uint8))
    for number, homography in homographies.items():
        np.savetxt(root / f"H_1_{number}", homography)
    return root


def grid_points(step: int = 11, margin: int = 25) -> np.ndarray:
    """Points more than 6 px apart from each other, away from the border."""
    x, y = np.meshgrid(np.arange(margin, WIDTH - margin, step), np.arange(margin, HEIGHT - margin, step))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def features(points: np.ndarray, descriptors: np.ndarray, scales: float | None = 4.0) -> Features:
    sigma = None if scales is None else np.full(len(points), scales)
    return Features(points, descriptors, np.arange(len(points), 0, -1.0), sigma, np.zeros(len(points)), (WIDTH, HEIGHT))


def write_strecha(root: Path, scene: PosedScene) -> Path:
    """The scene in the layout of Strecha's data: images with a file of camera parameters each."""
    root.mkdir()
    for k, name in enumerate(scene.names):
        rotation, centre = scene.rotations[k].T, -scene.rotations[k].T @ scene.translations[k]
        lines = [*scene.intrinsics[k], np.zeros(3), *rotation, centre, scene.size]
        text = "\n".join(" ".join(f"{v:.17g}" for v in line) for line in lines)
        (root / f"{name}.png.camera").write_text(text + "\n")
        (root / f"{name}.png").write_bytes((scene.root / "images" / f"{name}.png").read_bytes())
    return root


def write_perfect(path: Path, scene: str, names: tuple[str, str] = ("1", "2"), noise: float = 0.0) -> Path:
    """Features of the two views of the plane at the same points of it, up to noise in pixels."""
    points = grid_points(7)
    moved = apply_homography(plane_homography(), points)
    moved += np.random.default_rng(0).normal(0, noise, moved.shape)
    with writing(path, {"feature": "perfect"}) as store:
        for name, p in zip(names, (points, moved), strict=True):
            store.write(f"{scene}/{name}", features(p, unit_vectors(len(p))))
    return path
