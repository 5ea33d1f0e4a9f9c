"""The development scenes, by which options and weights are chosen. None of them is a test scene.

Each set shows something else: scenes with cameras and depth say most about wide baselines, degraded images show what
good ones hide, and many scenes show what a single one hides. A response that was better on the first four sets lost a
tenth of its matches on the test scenes (experiments/2026-11-26/finest_level).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from kornia.geometry.transform import warp_perspective
from numpy.typing import NDArray
from torch import Generator, Tensor

from kornia_lift._gray import to_bytes
from kornia_lift._io import load_image
from kornia_lift.evaluation.selection import spread_pairs
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.scene import Pair, Scene
from kornia_lift.training.data.images import scale_down, to_float
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.held_out.scenes import StoredPlanes
from kornia_lift.training.warped.homographies import CropConfig, random_homography

POSED = "posed/castle-P30"
#: Scenes that no network was trained on.
HELD_OUT = ("cyprus_arches", "golden_statue", "reichstag", "street2")
#: Prefixes of the names of single images that no network was trained on.
SINGLE = ("kodak", "pop-os")
COPIES = 2  # of each single image
LARGEST = 1024  # pixels, larger side of the single images
#: The differences of most pairs of images of one camera.
WARP = CropConfig(size=1000, scale=1.6, stretch=1.3, perspective=0.25, shift=30.0, full_circle=0.2)
MILD = Photometric(gain=1.2, gamma=1.5, offset=0.03, noise=0.01, blur=0.0, shadow=0.0, jpeg=0.0)

Bytes = NDArray[np.uint8]
Degradation = Callable[[Bytes, np.random.Generator], Bytes]


def compressed(image: Bytes, random: np.random.Generator) -> Bytes:
    """Compress as JPEG of a quality from 4 to 24."""
    done, stored = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(4, 25))])
    assert done
    return cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE)


def blurred(image: Bytes, random: np.random.Generator) -> Bytes:
    """Blur by a Gaussian of .8 to 2.5 pixels."""
    return cv2.GaussianBlur(image, (0, 0), float(random.uniform(0.8, 2.5)))


def darkened(image: Bytes, random: np.random.Generator) -> Bytes:
    """Leave .1 to .4 of the gray values, with noise of one of 255."""
    dark = (image / 255.0) ** random.uniform(0.8, 1.5) * random.uniform(0.1, 0.4) * 255
    return (dark + random.normal(0, 1, image.shape)).clip(0, 255).round().astype(np.uint8)


DEGRADED: Mapping[str, Degradation] = {
    "compressed": compressed,
    "blurred": blurred,
    "darkened": darkened,
}


def development_groups(train: Path) -> dict[str, list[Scene]]:
    """Return the scenes by group.

    Args:
        train: folder of the training data, with ``posed``, ``sfm`` and ``photos``.

    Returns:
        ``posed``: castle-P30; ``sfm``: four held-out scenes; ``sfm, trained on``: the other ones, for their variety;
        ``images``: held-out single images and warped copies; ``degraded images``: the same with compressed, blurred or
        darkened copies.

    """
    sfm = {folder.name: folder for folder in sorted((train / "sfm").iterdir())}
    others = [name for name in sfm if name not in HELD_OUT]
    good, degraded = warped_images(train / "photos")
    return {
        "posed": [_spread(train / POSED, 40, 0.35)],
        "sfm": [_spread(sfm[name], 12, 0.15) for name in HELD_OUT],
        "sfm, trained on": [_spread(sfm[name], 4, 0.15) for name in others],
        "images": good,
        "degraded images": degraded,
    }


def warped_images(folder: Path) -> tuple[list[Scene], list[Scene]]:
    """Make a scene of the held-out single images and their copies, and one for each kind of degraded copies."""
    generator, random = torch.Generator().manual_seed(5), np.random.default_rng(23)
    names: list[str] = []
    images: list[Tensor] = []
    maps: list[NDArray[np.float64]] = []
    for path in sorted(p for p in folder.glob("*.jpg") if p.name.startswith(SINGLE)):
        original = scale_down(to_bytes(load_image(path, gray=True))[0, 0], LARGEST)
        names.append(path.stem)
        images.append(to_float(original))
        maps.append(np.eye(3))
        for copy in range(COPIES):
            moved, matrix = _warped(images[-1 - copy], generator)
            names.append(f"{path.stem}@{copy}")
            images.append(moved)
            maps.append(matrix)
    originals = range(0, len(images), COPIES + 1)
    pairs = [Pair(n, n + 1 + copy) for n in originals for copy in range(COPIES)]
    good: list[Scene] = [StoredPlanes("images", names, images, maps, pairs)]
    degraded: list[Scene] = []
    for number, (kind, degrade) in enumerate(DEGRADED.items()):
        chosen = pairs[number :: len(DEGRADED)]
        used = sorted({k for pair in chosen for k in (pair.i, pair.j)})
        at = {k: n for n, k in enumerate(used)}
        degraded_images = [images[k] if k in originals else _degrade(images[k], degrade, random) for k in used]
        labels = [names[k] if k in originals else f"{names[k]}-{kind}" for k in used]
        moved_pairs = [Pair(at[pair.i], at[pair.j]) for pair in chosen]
        degraded.append(StoredPlanes(kind, labels, degraded_images, [maps[k] for k in used], moved_pairs))
    return good, degraded


def _spread(folder: Path, count: int, overlap: float) -> Scene:
    (scene,) = (scene for scenes in load_scenes([folder]).values() for scene in scenes)
    return spread_pairs(scene, count, min_overlap=overlap)


def _warped(image: Tensor, generator: Generator) -> tuple[Tensor, NDArray[np.float64]]:
    """Return a copy (1, 1, H, W) in [0, 1], and the homography from the image to it."""
    height, width = image.shape[-2:]
    to_copy = torch.linalg.inv(random_homography(generator, WARP, (width, height)).double())
    copy = warp_perspective(image, to_copy[None].float(), (height, width), align_corners=True)
    return augment(copy.clamp(0, 1), MILD, generator), (to_copy / to_copy[2, 2]).numpy()


def _degrade(image: Tensor, degrade: Degradation, random: np.random.Generator) -> Tensor:
    return to_float(torch.from_numpy(degrade(to_bytes(image)[0, 0].numpy(), random)))
