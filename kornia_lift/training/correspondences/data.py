"""Putative matches of pairs of images with known cameras: the input and the truth of the correspondence network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kornia.geometry.epipolar import cross_product_matrix
from torch import Generator, Tensor

from kornia_lift.evaluation.features.peers import Extractor
from kornia_lift.feature import shrink
from kornia_lift.features import Features
from kornia_lift.matching.putative import putative_matches
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.colmap import model_folder
from kornia_lift.scenes.scene import FloatArray
from kornia_lift.training.correspondences.augmentation import choose_matches, move_cameras
from kornia_lift.training.correspondences.config import AugmentationConfig, CorrespondenceConfig

MIN_BASELINE = 1e-5  # of the reconstruction's unit: below, there is no direction of translation


@dataclass(frozen=True)
class MatchedPair:
    """Putative matches of two images, and their relative pose.

    Args:
        scene: name of the scene.
        matches: nearest neighbours in normalised coordinates without lens distortion, shape (N, 4).
        rotation: R, shape (3, 3), with X_2 = R X_1 + t.
        translation: t of unit length, shape (3,).
        side: what else is known of each match, see :data:`~kornia_lift.networks.correspondence.SIDE_COLUMNS`, shape
            (N, 2).

    """

    scene: str
    matches: Tensor
    rotation: Tensor
    translation: Tensor
    side: Tensor

    @property
    def essential(self) -> Tensor:
        """The true essential matrix of unit norm, shape (3, 3)."""
        e = cross_product_matrix(self.translation) @ self.rotation
        return e / e.norm()


def match_pairs(
    folders: Sequence[Path], extract: Extractor, config: CorrespondenceConfig | None = None
) -> list[MatchedPair]:
    """Match the pairs of reconstructed scenes by any feature.

    Args:
        folders: scenes with ``images/`` and a COLMAP model in ``sparse/``.
        extract: gives the features of an image (1, C, H, W); every image is extracted once.
        config: which pairs.

    Returns:
        The pairs in both orders, at most ``config.max_pairs`` of a scene; images without keypoints are left out.

    Raises:
        ValueError: if a model is damaged or an image cannot be read.

    """
    config = config or CorrespondenceConfig()
    found: list[MatchedPair] = []
    for folder in folders:
        scene = CalibratedScene.from_colmap(
            model_folder(folder), folder / "images", name=folder.name, min_shared=config.min_shared
        )
        found += match_scene(scene, extract, config)
    return found


def match_scene(scene: CalibratedScene, extract: Extractor, config: CorrespondenceConfig) -> list[MatchedPair]:
    """Match the pairs of one scene in both orders; see :func:`match_pairs`."""
    both = [(p.i, p.j) for p in scene.pairs] + [(p.j, p.i) for p in scene.pairs]
    order = np.random.default_rng(config.seed).permutation(len(both))[: config.max_pairs]
    chosen = [both[n] for n in sorted(order.tolist())]
    features: dict[int, tuple[Features, FloatArray]] = {}
    for index in sorted({k for pair in chosen for k in pair}):
        features[index] = _normalised(scene, index, extract, config)
    found = []
    for i, j in chosen:
        rotation, translation = scene.relative_pose(i, j)
        length = np.linalg.norm(translation)
        (first, points), (second, others) = features[i], features[j]
        if not len(first) or not len(second) or length < MIN_BASELINE:
            continue
        putative = putative_matches(*(torch.from_numpy(f.descriptors) for f in (first, second)))
        matches = np.concatenate([points, others[putative.pairs[:, 1].numpy()]], 1)
        found.append(
            MatchedPair(
                scene.name,
                torch.from_numpy(matches).float(),
                torch.from_numpy(rotation),
                torch.from_numpy(translation / length),
                putative.side,
            )
        )
    return found


def _normalised(
    scene: CalibratedScene, index: int, extract: Extractor, config: CorrespondenceConfig
) -> tuple[Features, FloatArray]:
    """Features of an image and their positions in normalised coordinates."""
    image = shrink(scene.image(index), config.max_size)
    features = extract(image).top(config.keypoints)
    factor = scene.sizes[index][0] / image.shape[-1]
    ideal = scene.undistort(index, (features.keypoints + 0.5) * factor - 0.5)
    k = scene.intrinsics[index]
    return features, np.asarray((ideal - k[:2, 2]) / np.diagonal(k)[:2])


def collate(
    pairs: Sequence[MatchedPair], count: int, generator: Generator, augmentation: AugmentationConfig | None = None
) -> dict[str, Tensor]:
    """Draw ``count`` matches of each pair and pad where there are fewer.

    Args:
        pairs: the pairs of the batch.
        count: matches of a pair.
        generator: decides which, and how they are augmented.
        augmentation: how; ``None`` takes the pairs as they are.

    Returns:
        ``matches`` (B, count, 4), ``side`` (B, count, 2), ``mask`` (B, count) and ``essential`` (B, 3, 3), float32.

    """
    matches = torch.zeros(len(pairs), count, 4)
    side = torch.zeros(len(pairs), count, 2)
    mask = torch.zeros(len(pairs), count, dtype=torch.bool)
    essential = torch.zeros(len(pairs), 3, 3)
    for row, pair in enumerate(pairs):
        moved, e = pair.matches, pair.essential.float()
        pool = torch.arange(len(moved))
        if augmentation is not None:
            pool = choose_matches(moved, pair.side, e, generator, augmentation)
            moved, e = move_cameras(moved, e, generator, augmentation)
        # at random: the first ones are the largest keypoints, or those of the highest response
        chosen = pool[torch.randperm(len(pool), generator=generator)[:count]]
        matches[row, : len(chosen)] = moved[chosen]
        side[row, : len(chosen)] = pair.side[chosen]
        mask[row, : len(chosen)] = True
        essential[row] = e
    return {"matches": matches, "side": side, "mask": mask, "essential": essential}
