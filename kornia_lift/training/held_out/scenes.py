"""The pairs of the held-out images of a store, as scenes that the evaluation reads."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.homographies import HomographySequence, check_homography
from kornia_lift.scenes.scene import FloatArray, Pair, Scene
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.images import scale_down, to_float
from kornia_lift.training.data.photometric import Photometric, as_in_use
from kornia_lift.training.data.posed_pairs import spread
from kornia_lift.training.data.store import Store
from kornia_lift.training.limits import check_limits
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig

#: Names of the groups of pairs.
CAMERAS, HOMOGRAPHIES, WARPED = "cameras", "homographies", "warped"


@dataclass(frozen=True)
class HeldOutConfig:
    """Which pairs of the held-out images are measured.

    Args:
        pairs: largest number of pairs with cameras, and of pairs with homographies, spread over the scenes and from
            the least to the largest common view.
        images: images used of a scene, evenly spread.
        min_shared: least number of points that both images of a pair with cameras observe.
        warped: number of pairs of warped crops, which are made only where there are fewer other pairs than this.
        crops: how they are drawn.
        photometric: their photometric augmentation.
        max_size: larger side of the images, pixels; larger ones are scaled down.
        num_features: keypoints per image.
        seed: of the crops.

    """

    pairs: int = 16
    images: int = 8
    min_shared: int = 15
    warped: int = 10
    crops: CropConfig = dataclasses.field(
        default_factory=lambda: CropConfig(size=480, per_image=1, min_step=1.0, max_step=2.0, scale=1.6)
    )
    photometric: Photometric = dataclasses.field(default_factory=as_in_use)
    max_size: int = 1024
    num_features: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "pairs", "images", "min_shared", "max_size", "num_features", at_least=1)
        check_limits(self, "warped", "seed", at_least=0)


class StoredCameras(CalibratedScene):
    """Images of a store with their cameras, possibly scaled down.

    Args:
        name: name of the scene.
        names: names of the images.
        images: the images, uint8, shape (H, W).
        cameras: their cameras, for the images as they were before they were scaled down.
        pairs: pairs to evaluate.

    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        images: Sequence[Tensor],
        cameras: Sequence[Camera],
        pairs: tuple[Pair, ...],
    ) -> None:
        self._images, self._stored = tuple(images), tuple(cameras)
        self._factors = [i.shape[1] / c.size[0] for i, c in zip(images, cameras, strict=True)]
        super().__init__(
            name=name,
            names=names,
            paths=[Path(n) for n in names],
            intrinsics=np.stack([_scaled(c.intrinsics, f) for c, f in zip(cameras, self._factors, strict=True)]),
            rotations=np.stack([c.rotation for c in cameras]),
            translations=np.stack([np.asarray(c.translation).reshape(3) for c in cameras]),
            sizes=[(i.shape[1], i.shape[0]) for i in images],
            pairs=pairs,
        )

    def image(self, index: int) -> Tensor:
        """Image ``index``, float in [0, 1], shape (1, 1, H, W)."""
        return to_float(self._images[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.sizes[index]

    def undistort(self, index: int, points: FloatArray) -> FloatArray:
        """Points (N, 2) as a camera without lens distortion and with the same K would see them."""
        factor = self._factors[index]
        ideal = self._stored[index].undistort((points + 0.5) / factor - 0.5)
        return np.asarray((ideal + 0.5) * factor - 0.5)


class StoredPlanes(HomographySequence):
    """Images in memory that are related by homographies.

    Args:
        name: name of the scene.
        names: names of the images.
        images: the images in [0, 1], each of shape (1, 1, H, W).
        homographies: for each image the map from a common frame.
        pairs: pairs to evaluate.

    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        images: Sequence[Tensor],
        homographies: Sequence[FloatArray],
        pairs: Sequence[Pair],
    ) -> None:
        super().__init__(
            name=name, root=Path(), names=tuple(names), homographies=tuple(homographies), pairs=tuple(pairs)
        )
        self._images = tuple(images)

    def image(self, index: int) -> Tensor:
        """Image ``index``, float in [0, 1], shape (1, 1, H, W)."""
        return self._images[index]

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._images[index].shape[-1], self._images[index].shape[-2]


def held_out_scenes(store: Store, config: HeldOutConfig | None = None) -> dict[str, list[Scene]]:
    """Make the pairs that a training is measured on.

    Args:
        store: the held-out data.
        config: which pairs.

    Returns:
        Scenes by group: ``cameras`` (a match is judged by the epipolar lines), ``homographies`` (sequences with
        homographies, and aligned exposures), and ``warped``, crops of the held-out images and warped copies of them,
        where there are few others. Groups without a pair are left out.

    Raises:
        StoreError: if an image cannot be decoded.

    """
    config = config or HeldOutConfig()
    posed = [s for s in store.scenes if len(_members(store, s, posed=True)) > 1]
    planes = [s for s in store.scenes if len(_members(store, s, posed=False)) > 1]
    groups: dict[str, list[Scene]] = {CAMERAS: [], HOMOGRAPHIES: [], WARPED: []}
    for group, names, make in ((CAMERAS, posed, _with_cameras), (HOMOGRAPHIES, planes, _with_homographies)):
        for scene in names:
            made = make(store, scene, config, -(-config.pairs // len(names)))
            groups[group] += [made] if made is not None else []
    if sum(len(scene.pairs) for scenes in groups.values() for scene in scenes) < config.warped:
        groups[WARPED].append(_warped(store, config))
    return {group: scenes for group, scenes in groups.items() if scenes}


def describe_pairs(store: Store, config: HeldOutConfig) -> str:
    """Digest of the images that are measured, and of how: figures of another digest cannot be compared."""
    digest = hashlib.sha256(repr(config).encode())
    for image in store.images:
        digest.update(hashlib.sha256(image.jpeg).digest())
    return digest.hexdigest()


def _members(store: Store, scene: str, *, posed: bool) -> list[int]:
    def fits(index: int) -> bool:
        image = store.images[index]
        return image.camera is not None if posed else image.camera is None and image.kind in ("homography", "exposures")

    return [n for n, image in enumerate(store.images) if image.scene == scene and fits(n)]


def _shared_pairs(seen: Sequence[dict[int, FloatArray]], least: int, count: int) -> list[Pair]:
    """Pairs of images that share ``least`` points, spread from the least to the largest overlap."""
    found = []
    for i, mine in enumerate(seen):
        for j in range(i + 1, len(seen)):
            shared = len(mine.keys() & seen[j].keys())
            if shared >= least:
                found.append(Pair(i, j, overlap=shared / min(len(mine), len(seen[j]))))
    found.sort(key=lambda pair: pair.overlap or 0.0)
    return spread(found, count)


def _with_cameras(store: Store, scene: str, config: HeldOutConfig, count: int) -> Scene | None:
    members = spread(_members(store, scene, posed=True), config.images)
    pairs = _shared_pairs([store.observed(n) for n in members], config.min_shared, count)
    if not pairs:
        return None
    used = sorted({k for pair in pairs for k in (pair.i, pair.j)})
    number = {k: n for n, k in enumerate(used)}
    kept = [members[k] for k in used]
    return StoredCameras(
        scene,
        [store.images[n].name for n in kept],
        [scale_down(store.decode(n), config.max_size) for n in kept],
        [camera for n in kept if (camera := store.images[n].camera) is not None],
        tuple(dataclasses.replace(p, i=number[p.i], j=number[p.j]) for p in pairs),
    )


def _with_homographies(store: Store, scene: str, config: HeldOutConfig, count: int) -> Scene | None:
    """The homography from the first image to each other, from their common locations, which follow it exactly."""
    members = spread(_members(store, scene, posed=False), config.images)
    seen, images = [store.observed(n) for n in members], [store.decode(n) for n in members]
    cv2 = require("cv2", extra="train")
    maps: list[FloatArray] = [np.eye(3)]
    kept = [0]
    for k in range(1, len(members)):
        common = sorted(seen[0].keys() & seen[k].keys())
        if store.images[members[k]].kind == "exposures":
            homography = np.eye(3)
        elif len(common) >= 8:
            homography, _ = cv2.findHomography(*(np.array([seen[n][p] for p in common]) for n in (0, k)))
        else:
            continue
        if homography is not None and check_homography(homography, (images[k].shape[1], images[k].shape[0])) is None:
            kept.append(k)
            maps.append(np.asarray(homography))
    pairs = [Pair(0, n) for n in spread(range(1, len(kept)), count)]
    if not pairs:
        return None
    names = [store.images[members[k]].name for k in kept]
    return StoredPlanes(scene, names, [to_float(images[k]) for k in kept], maps, pairs)


def _warped(store: Store, config: HeldOutConfig) -> Scene:
    indices = spread(range(len(store.images)), config.warped)
    crops = WarpedCrops([[store.decode(n)] for n in indices], config.crops, config.photometric)
    generator = torch.Generator().manual_seed(config.seed)
    images: list[Tensor] = []
    maps: list[FloatArray] = []
    for _ in range(config.warped):
        drawn = crops.draw(generator, 1)
        images += [drawn["first"][:1], drawn["second"][:1]]
        maps += [np.eye(3), drawn["to_second"][0].double().numpy()]
    names = [f"{n // 2}{'ab'[n % 2]}" for n in range(len(images))]
    return StoredPlanes("warped crops", names, images, maps, [Pair(n, n + 1) for n in range(0, len(images), 2)])


def _scaled(intrinsics: FloatArray, factor: float) -> FloatArray:
    """K of an image scaled by ``factor``; pixel centres at integers."""
    scaled = intrinsics * np.array([[factor], [factor], [1.0]])
    scaled[:2, 2] += (factor - 1) / 2
    return np.asarray(scaled)
