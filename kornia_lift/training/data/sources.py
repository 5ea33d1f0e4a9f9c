"""Make training stores: from structure from motion, from scenes with dense ground truth, from single photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_lift.scenes.scene import Scene
from kornia_lift.training.data.images import check_whole, list_photos, read_gray
from kornia_lift.training.data.negatives import free_regions
from kornia_lift.training.data.sfm_frames import read_model, read_sfm
from kornia_lift.training.data.sift import Keypoints, confirm_scene, confirm_tracks, detect_sift, merge_points
from kornia_lift.training.data.store import Places, Store, encode_jpeg, join_places
from kornia_lift.training.paper.quadruplets import SUPPORT

EMPTY_PER_IMAGE = 100

GrayImage = NDArray[np.uint8]


class NoCorrespondenceError(ValueError):
    """Photographs that show no place twice."""


def sfm_store(scene: Path, seed: int = 0, quality: int = 88) -> Store:
    """Make a store of a scene reconstructed by COLMAP: ``images/`` and a model in ``sparse/``.

    The scale and the angle of the keypoints come from SIFT, extracted again and confirmed by the cameras.

    Args:
        scene: the folder.
        seed: of the regions without keypoint.
        quality: of the JPEG files in the store.

    Raises:
        FileNotFoundError: if the model or photographs are missing.
        ValueError: if a photograph has another size than its camera.
        NoCorrespondenceError: if nothing is left.

    """
    sizes = _camera_sizes(scene)
    seen = read_sfm(scene)
    photos = [read_gray(scene / "images" / name).numpy() for name in seen.images]
    for name, photo in zip(seen.images, photos, strict=True):
        if photo.shape[::-1] != sizes[name]:
            raise ValueError(
                f"{scene}/images/{name} is {photo.shape[1]}x{photo.shape[0]}, but the model was made for "
                f"{sizes[name][0]}x{sizes[name][1]}; use the photographs of the reconstruction, or rescale the model"
            )
    keypoints = [detect_sift(photo) for photo in photos]
    observation, keypoint = confirm_tracks(seen, keypoints)
    image, keypoint, point = merge_points(seen.image[observation], keypoint, seen.point[observation])
    names = [f"{scene.name}/{name}" for name in seen.images]
    return _store(names, photos, keypoints, image, keypoint, point, seed, quality)


def scene_store(scene: Scene, seed: int = 0, quality: int = 88) -> Store:
    """Make a store of photographs with dense ground truth: posed scenes with depth, homography sequences.

    Raises:
        NoCorrespondenceError: if the photographs have no keypoint in common.

    """
    photos = [_gray(scene.image(index)) for index in range(len(scene.names))]
    keypoints = [detect_sift(photo) for photo in photos]
    image, keypoint, place = confirm_scene(scene, keypoints)
    names = [f"{scene.name}/{name}" for name in scene.names]
    return _store(names, photos, keypoints, image, keypoint, place, seed, quality)


def bracket_store(folder: Path, seed: int = 0, quality: int = 88) -> Store:
    """Make a store of photographs of one scene from a tripod, under several exposures.

    Raises:
        ValueError: if the sizes differ.

    """
    paths = list_photos(folder)
    photos = [read_gray(path).numpy() for path in paths]
    if len({photo.shape for photo in photos}) != 1:
        raise ValueError(f"{folder} must hold photographs of one size, taken from a tripod")
    # the keypoints of the middle exposure serve all: no exposure shows more
    found = detect_sift(photos[len(photos) // 2])
    image = np.repeat(np.arange(len(photos)), len(found))
    rows = np.tile(np.arange(len(found)), len(photos))
    names = [f"{folder.name}/{path.name}" for path in paths]
    return _store(names, photos, [found] * len(photos), image, rows, rows, seed, quality)


def photo_store(
    paths: Sequence[Path], name: str = "photos", per_photo: int = 400, seed: int = 0, quality: int = 88
) -> Store:
    """Make a store of single photographs; their second views are synthetic, drawn when training."""
    for path in paths:
        check_whole(path)
    photos = [read_gray(path).numpy() for path in paths]
    keypoints = [detect_sift(photo) for photo in photos]
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(_supported(k, p.shape))[:per_photo] for k, p in zip(keypoints, photos, strict=True)]
    image = np.repeat(np.arange(len(photos)), [len(c) for c in chosen])
    rows = np.concatenate(chosen)
    names = [f"{name}/{path.name}" for path in paths]
    return _store(names, photos, keypoints, image, rows, np.arange(len(rows)), seed, quality, min_views=1)


def _store(
    names: list[str],
    photos: list[GrayImage],
    keypoints: list[Keypoints],
    image: NDArray[np.integer],
    keypoint: NDArray[np.integer],
    point: NDArray[np.integer],
    seed: int,
    quality: int,
    min_views: int = 2,
) -> Store:
    def gather(take: Callable[[Keypoints], NDArray[np.float64]]) -> NDArray[np.float64]:
        values = [take(k) for k in keypoints]
        begin = np.cumsum([0, *(len(v) for v in values[:-1])])
        return np.concatenate(values)[begin[image] + keypoint]

    if not len(image):
        raise NoCorrespondenceError(_too_little(names, 0, min_views))
    places = Places(image, point, gather(lambda k: k.xy), gather(lambda k: k.sigma), gather(lambda k: k.theta))
    size = np.array([photo.shape[::-1] for photo in photos])
    reach = SUPPORT * places.sigma[:, None]
    places = places.take(((places.xy >= reach) & (places.xy <= size[places.image] - 1 - reach)).all(axis=1))
    views = np.bincount(places.point, minlength=int(point.max()) + 1)
    places = places.take(views[places.point] >= min_views)
    if not len(places):
        raise NoCorrespondenceError(_too_little(names, len(image), min_views))
    rng = np.random.default_rng(seed)
    empty = []
    for index, photo in enumerate(photos):
        size_xy = (photo.shape[1], photo.shape[0])
        xy, sigma = free_regions(size_xy, keypoints[index], places.sigma, EMPTY_PER_IMAGE, rng)
        count = len(xy)
        turn = rng.uniform(0, 2 * np.pi, count)
        empty.append(Places(np.full(count, index), np.full(count, -1), xy, sigma, turn))
    return Store(tuple(names), tuple(encode_jpeg(p, quality) for p in photos), places, join_places(empty))


def _supported(keypoints: Keypoints, shape: tuple[int, ...]) -> NDArray[np.int64]:
    reach = SUPPORT * keypoints.sigma[:, None]
    return np.flatnonzero(((keypoints.xy >= reach) & (keypoints.xy <= np.array(shape[::-1]) - 1 - reach)).all(axis=1))


def _too_little(names: list[str], found: int, min_views: int) -> str:
    scene = names[0].rpartition("/")[0] if names else "the source"
    if min_views == 1:
        return (
            f"{scene}: none of the {len(names)} photographs shows a SIFT keypoint of at least 2 pixels with its whole "
            f"support ({2 * SUPPORT:.0f} sigma); use larger photographs, or some with texture"
        )
    return (
        f"{scene}: no place is seen twice with its whole support ({2 * SUPPORT:.0f} sigma) in the photograph "
        f"({len(names)} photographs, {found} confirmed keypoints of at least 2 pixels); use more, larger or more "
        "overlapping photographs"
    )


def _camera_sizes(scene: Path) -> dict[str, tuple[int, int]]:
    """Width and height of every photograph of a model, all of whose files exist."""
    model = read_model(scene)
    missing = [i.name for i in model.images.values() if not (scene / "images" / i.name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{scene}: {len(missing)} photographs of the model are missing in images/: {', '.join(missing[:5])}"
        )
    cameras = {i.name: model.cameras[i.camera_id] for i in model.images.values()}
    return {name: (camera.width, camera.height) for name, camera in cameras.items()}


def _gray(image: torch.Tensor) -> GrayImage:
    if image.shape[1] == 3:
        image = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    return (image[0, 0] * 255).round().clamp(0, 255).to(torch.uint8).numpy()
