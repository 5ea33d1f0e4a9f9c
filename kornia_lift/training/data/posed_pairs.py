"""Pairs of images with known cameras, without depth: where epipolar lines run, and which region both images see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.training.data.images import PhotoSources, ScenePart, read_gray
from kornia_lift.training.data.sfm_frames import model_folder, read_model
from kornia_lift.training.limits import check_limits


@dataclass(frozen=True)
class PairConfig:
    """Which pairs of a reconstructed scene are used, and how a match is judged.

    Args:
        partners: images that each image is paired with, spread evenly from the least to the largest common view.
        min_shared: least number of points that both images observe.
        min_overlap: least share of the points of the image with fewer points that both observe.
        max_overlap: largest such share: neighbours of a video differ by nothing.
        max_images: images used of a scene, evenly spread, so that no scene outweighs the others.
        max_size: larger side of the images, pixels; larger ones are scaled down.
        exact: a match within this many pixels of both epipolar lines is fully correct.
        loose: one beyond this many pixels of one of them is wrong; in between the label falls linearly.
        reach: a keypoint counts as seen by the other image when an observation of a common point lies within this
            share of the larger side.

    """

    partners: int = 4
    min_shared: int = 40
    min_overlap: float = 0.1
    max_overlap: float = 0.9
    max_images: int = 12
    max_size: int = 1024
    exact: float = 1.0
    loose: float = 2.5
    reach: float = 0.035

    def __post_init__(self) -> None:
        check_limits(self, "partners", "min_shared", "max_images", "max_size", at_least=1)
        check_limits(self, "min_overlap", "max_overlap", at_least=0, at_most=1)
        check_limits(self, "exact", "reach", above=0)
        check_limits(self, "loose", at_least=self.exact)


@dataclass(frozen=True)
class PosedPair:
    """Two images of one scene.

    Args:
        first: index of the first image, in the list that :func:`posed_pairs` gives.
        second: index of the second image.
        fundamental: F with x_2^T F x_1 = 0 for ideal points, shape (3, 3).
        shared: positions of the common points in the first and the second image, shape (2, M, 2), pixels.

    """

    first: int
    second: int
    fundamental: FloatArray
    shared: FloatArray


class PosedImage:
    """A gray image with its camera.

    Args:
        gray: the image, uint8, shape (H, W), possibly smaller than what the camera is for.
        scene: its scene.
        index: of the image in the scene.

    Convention: points are (x, y) in pixels of ``gray``, pixel centres at integers.
    """

    def __init__(self, gray: Tensor, scene: CalibratedScene, index: int) -> None:
        self.gray = gray
        self.factor = gray.shape[1] / scene.sizes[index][0]
        self._scene, self._index = scene, index

    def ideal(self, points: FloatArray) -> FloatArray:
        """Undistorted positions (N, 2), in pixels of the camera, of points of the image."""
        return self._scene.undistort(self._index, (points + 0.5) / self.factor - 0.5)


def posed_pairs(sources: PhotoSources, config: PairConfig | None = None) -> tuple[list[PosedImage], list[PosedPair]]:
    """List the pairs of all reconstructed scenes of a split and read their images.

    Args:
        sources: the split; its scenes and parts of scenes are used.
        config: which pairs.

    Returns:
        The images that are in a pair, and the pairs; both empty where there are no scenes with enough common points.

    Raises:
        ValueError: if a COLMAP model is damaged or an image cannot be read.

    """
    config = config or PairConfig()
    images: list[PosedImage] = []
    pairs: list[PosedPair] = []
    scenes: list[tuple[Path, ScenePart | None]] = [(folder, None) for folder in sources.sfm]
    scenes += [(part.scene, part) for part in sources.parts]
    for folder, part in scenes:
        found_images, found_pairs = _scene_pairs(folder, part, config)
        pairs += [
            PosedPair(p.first + len(images), p.second + len(images), p.fundamental, p.shared) for p in found_pairs
        ]
        images += found_images
    return images, pairs


def _scene_pairs(folder: Path, part: ScenePart | None, config: PairConfig) -> tuple[list[PosedImage], list[PosedPair]]:
    scene = CalibratedScene.from_colmap(model_folder(folder), folder / "images", name=folder.name, min_shared=1)
    observed = _observations(folder, scene.names)
    allowed = [
        k for k, name in enumerate(scene.names) if (part is None or name in part.images) and scene.paths[k].is_file()
    ]
    count = min(config.max_images, len(allowed))
    allowed = [allowed[n] for n in np.linspace(0, len(allowed) - 1, count).round().astype(int)]
    chosen = choose_partners([observed[k] for k in allowed], config)
    number: dict[int, int] = {}
    images: list[PosedImage] = []
    for k in sorted({allowed[n] for pair in chosen for n in pair}):
        number[k] = len(images)
        images.append(PosedImage(read_gray(scene.paths[k], config.max_size), scene, k))
    pairs = []
    for a, b in chosen:
        i, j = allowed[a], allowed[b]
        common = sorted(observed[i].keys() & observed[j].keys())
        shared = np.stack(
            [
                (np.array([observed[k][point] for point in common]) + 0.5) * images[number[k]].factor - 0.5
                for k in (i, j)
            ]
        )
        pairs.append(PosedPair(number[i], number[j], _fundamental(scene, i, j), shared))
    return images, pairs


def _observations(folder: Path, names: Sequence[str]) -> list[dict[int, FloatArray]]:
    """Return for each image the pixel position of each point that it observes."""
    images = {image.name: image for image in read_model(folder).images.values()}
    # COLMAP puts the centre of the first pixel at (0.5, 0.5)
    return [{p.point3D_id: p.xy - 0.5 for p in images[name].points2D if p.has_point3D()} for name in names]


def choose_partners(observed: Sequence[dict[int, FloatArray]], config: PairConfig) -> list[tuple[int, int]]:
    """Choose the pairs (i, j), i < j, of images by the points that both observe."""
    chosen: set[tuple[int, int]] = set()
    for i, mine in enumerate(observed):
        candidates = []
        for j, other in enumerate(observed):
            common = len(mine.keys() & other.keys())
            overlap = common / max(min(len(mine), len(other)), 1)
            if j != i and common >= config.min_shared and config.min_overlap <= overlap <= config.max_overlap:
                candidates.append((overlap, j))
        candidates.sort()
        count = min(config.partners, len(candidates))
        for n in np.linspace(0, len(candidates) - 1, count).round().astype(int):
            j = candidates[n][1]
            chosen.add((min(i, j), max(i, j)))
    return sorted(chosen)


def _fundamental(scene: CalibratedScene, i: int, j: int) -> FloatArray:
    rotation, t = scene.relative_pose(i, j)
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    inverse_i, inverse_j = np.linalg.inv(scene.intrinsics[i]), np.linalg.inv(scene.intrinsics[j])
    return np.asarray(inverse_j.T @ cross @ rotation @ inverse_i)


def epipolar_distance(
    pair: PosedPair, images: Sequence[PosedImage], first: FloatArray, second: FloatArray
) -> FloatArray:
    """Return the larger distance of each match from its two epipolar lines, in pixels of the images.

    Args:
        pair: the pair.
        images: the list that the pair belongs to.
        first: points of the first image, shape (N, 2).
        second: their matches in the second image, shape (N, 2).

    """
    one, two = images[pair.first], images[pair.second]
    a, b = (np.concatenate([p, np.ones((len(p), 1))], 1) for p in (one.ideal(first), two.ideal(second)))
    in_second, in_first = a @ pair.fundamental.T, b @ pair.fundamental
    product = np.abs((b * in_second).sum(1))
    lengths = (np.hypot(*line[:, :2].T).clip(1e-12) for line in (in_first, in_second))
    distances = [product / length * image.factor for length, image in zip(lengths, (one, two), strict=True)]
    return np.asarray(np.maximum(*distances))


def is_seen(
    pair: PosedPair, images: Sequence[PosedImage], side: int, points: FloatArray, reach: float
) -> NDArray[np.bool_]:
    """Say which points of one image (``side`` 0 or 1) lie near an observation of a common point, shape (N,)."""
    index = pair.second if side else pair.first
    radius = reach * max(images[index].gray.shape)
    shared = pair.shared[side]
    square = ((points[:, None] - shared[None]) ** 2).sum(-1)
    return np.asarray(square.min(1) < radius**2)


def label_by_error(error: FloatArray, exact: float, loose: float) -> FloatArray:
    """Map distances to labels: 1 up to ``exact``, 0 from ``loose`` on, linear in between."""
    return np.asarray(np.clip((loose - error) / max(loose - exact, 1e-9), 0, 1))
