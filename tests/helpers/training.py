"""Images and stores that the tests of the training make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.training.correspondences.data import MatchedPair
from kornia_lift.training.data.store import Store, encode_jpeg
from kornia_lift.training.tilde.stacks import Stack

SIZE = 420


def picture(seed: int = 1, size: int = SIZE) -> np.ndarray:
    """Blobs of several sizes, uint8."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 110.0, dtype=np.float32)
    for sigma, strength in ((3.0, 12), (6.0, 25)):
        noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigma)
        image += strength * noise / noise.std()
    return image.clip(0, 255).astype(np.uint8)


def do_not_match_single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read single images without asking whether they show one scene, which takes much longer than reading them."""
    read = "kornia_lift.training.data.prepare.read"
    monkeypatch.setattr(f"{read}.overlapping_pairs", lambda images, seed: (0, 0, len(images)))


def validate_on_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the compact recipe validation batches as small as those of a short training."""
    recipe = "kornia_lift.training.compact.recipe"
    monkeypatch.setattr(f"{recipe}.VALIDATION_PAIRS", (2, 16))
    monkeypatch.setattr(f"{recipe}.VALIDATION_ANGLES", (2, 8))


def train_pictures(folder: Path, init: str, stage: str) -> Path:
    """Train a stage of the compact recipe for a step, from a folder of three images, and return that of the run."""
    cv2 = pytest.importorskip("cv2")
    data, out, config = folder / "mine", folder / "run", folder / "tiny.toml"
    data.mkdir()
    for i in range(3):
        cv2.imwrite(str(data / f"holiday{i}.jpg"), picture(i, 200))
    config.write_text(
        f'recipe = "compact"\ndata = ["{data.as_posix()}"]\ninit = "{init}"\nstages = ["{stage}"]\n'
        "[held_out]\nnum_features = 150\nwarped = 2\n[held_out.crops]\nsize = 160\n"
        "[compact]\nlocalization_images = 2\nlocalization_pairs = 8\nshape_images = 2\nshape_pairs = 8\n"
        f"[compact.copies]\ncopies = 1\n[compact.shape_copies]\ncopies = 1\n[compact.{stage}]\nsteps = 1\n"
    )
    assert main(["train", str(config), "--out", str(out)]) == 0
    return out


def with_image(store: Store, index: int, image: np.ndarray, quality: int = 98) -> Store:
    """The same store with other pixels in one image."""
    images = list(store.images)
    images[index] = dataclasses.replace(images[index], jpeg=encode_jpeg(image, quality))
    return dataclasses.replace(store, images=tuple(images))


def as_single(store: Store) -> Store:
    """The first image of the store as a single one."""
    images = tuple(dataclasses.replace(image, kind="single", scene=image.name) for image in store.images)
    return dataclasses.replace(store, images=images, tracks=store.tracks.take(store.tracks.image == 0))


def matched_pair(seed: int, count: int = 100, outliers: float = 0.5) -> MatchedPair:
    """Points in front of two cameras, seen exactly, some of them matched at random."""
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    k = np.cross(np.eye(3), axis / np.linalg.norm(axis))
    angle = rng.uniform(0.1, 0.4)
    rotation = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    translation = rng.standard_normal(3) * [1, 1, 0.3]
    translation /= np.linalg.norm(translation)
    first = rng.uniform(-0.5, 0.5, (count, 2))
    points = np.concatenate([first, np.ones((count, 1))], 1) * rng.uniform(4, 8, (count, 1))
    moved = points @ rotation.T + translation
    second = moved[:, :2] / moved[:, 2:]
    wrong = rng.random(count) < outliers
    second[wrong] = rng.uniform(-0.5, 0.5, (int(wrong.sum()), 2))
    matches = torch.from_numpy(np.concatenate([first, second], 1)).float()
    side = torch.stack([torch.from_numpy(0.5 + 0.4 * wrong), torch.from_numpy(~wrong)], 1).float()
    return MatchedPair("made", matches, torch.from_numpy(rotation), torch.from_numpy(translation), side)


def aligned_stack(seed: int, count: int = 5, size: int = 160) -> Stack:
    """Dark dots on a background that changes from image to image."""
    rng = np.random.default_rng(seed)
    at = np.arange(size)
    positives = np.stack(np.meshgrid(np.arange(30, size - 25, 25), np.arange(30, size - 25, 25)), -1).reshape(-1, 2)
    square = (at[None, None] - positives[:, 0, None, None]) ** 2 + (
        at[None, :, None] - positives[:, 1, None, None]
    ) ** 2
    dots = np.exp(-square / (2 * 2.5**2)).sum(0)
    images = np.stack(
        [rng.uniform(0.5, 0.9) - rng.uniform(0.3, 0.5) * dots + rng.normal(0, 0.01, dots.shape) for _ in range(count)]
    )
    negatives = positives[:, :] + np.array([12, 12])
    inside = (negatives < size - 25).all(1)
    return Stack(
        f"dots{seed}",
        torch.from_numpy(images).float()[:, None].clamp(0, 1),
        positives.astype(np.float64),
        negatives[inside].astype(np.float64),
    )
