"""From one source of images to a store: the one path from image files to what all recipes train on.

images -> locations followed from image to image (frames) -> SIFT scales and angles where the geometry confirms them
(sift) -> regions without keypoints (negatives) -> store. What each step leaves is counted, see
:data:`~kornia_lift.training.data.prepare.assemble.STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._words import counted
from kornia_lift.scenes.colmap import read_model, sfm_root
from kornia_lift.scenes.folders import load_posed
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import Scene
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.data.images import images_in, read_gray, to_gray
from kornia_lift.training.data.prepare.alike import check_different, thumbnail
from kornia_lift.training.data.prepare.assemble import Material, NoCorrespondenceError, make_store, scene_store
from kornia_lift.training.data.prepare.frames import (
    frames_at,
    frames_from_colmap,
    frames_from_scene,
)
from kornia_lift.training.data.prepare.negatives import SUPPORT
from kornia_lift.training.data.prepare.one_scene import MODEL, overlapping_pairs
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.sift import (
    MIN_SIGMA,
    Keypoints,
    Tolerance,
    detect_sift,
    one_per_location,
)
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.store import Observations, Store, join_observations

Say = Callable[[str], object]


def read_sources(
    sources: Sequence[Source], options: ReadOptions | None = None, say: Say = lambda text: None
) -> list[Store]:
    """Read several sources; those that show nothing to learn from are left out, and named.

    Args:
        sources: what to read.
        options: how.
        say: called with what is read, which takes seconds to a minute each, and with what is left out.

    Raises:
        FileNotFoundError: if images are missing.
        ValueError: if an image is damaged or of another size than its camera.
        NoCorrespondenceError: if no location is left in any.

    """
    stores: list[Store] = []
    useless: list[str] = []
    for number, source in enumerate(sources, 1):
        if len(sources) > 1:
            say(f"reading {source.name} ({source.kind}), {number} of {len(sources)}")
        try:
            stores.append(read_source(source, options, say))
        except NoCorrespondenceError as error:
            useless.append(str(error))
            if len(sources) > 1:
                say(f"left out: {error}")
    if not stores:
        raise NoCorrespondenceError("; ".join(useless))
    return stores


def read_source(source: Source, options: ReadOptions | None = None, say: Say = lambda text: None) -> Store:
    """Read a source.

    Args:
        source: what to read.
        options: how.
        say: called with what is left out.

    Raises:
        FileNotFoundError: if images are missing.
        ValueError: if an image is damaged or of another size than its camera.
        NoCorrespondenceError: if no location is left.

    """
    options = options or ReadOptions()
    rng = np.random.default_rng(options.seed)
    if source.kind == "single":
        return _read_singles(source, options, rng, say)
    if source.kind == "exposures":
        return _read_exposures(source, options, rng)
    if source.kind == "sfm":
        read = _read_colmap(sfm_root(source.path) or source.path)
    else:
        scene: Scene
        if source.kind == "posed":
            scene = load_posed(source.path)
        else:
            scene = HomographySequence.load(source.path, all_pairs=True)
        for pair in scene.skipped:
            one, two = scene.names[pair.i], scene.names[pair.j]
            say(f"{source.name}: images {one} and {two} are not paired: {pair.reason}")
        read = _read_scene(scene, options, rng)
    return scene_store(source, read, options, rng)


def _read_colmap(folder: Path) -> Material:
    model = read_model(folder)
    names, frames = frames_from_colmap(model)
    missing = [name for name in names if not (folder / "images" / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(names)} images of the model are missing in images/: "
            f"{', '.join(missing[:5])}; put them back, or give `kornia-lift build-dataset` the folder of those "
            "that are left, which it reconstructs"
        )
    by_name = {image.name: image for image in model.images.values()}
    images, cameras = [], []
    for name in names:
        image, camera = read_gray(folder / "images" / name), model.cameras[by_name[name].camera_id]
        if tuple(image.shape) != (camera.height, camera.width):
            raise ValueError(
                f"{folder}/images/{name} is {image.shape[1]}x{image.shape[0]}, but the model was made for "
                f"{camera.width}x{camera.height}; use the images of the reconstruction, or rescale the model"
            )
        pose = by_name[name].cam_from_world()
        size = camera.width, camera.height
        images.append(image)
        cameras.append(
            Camera(camera.model_name, tuple(camera.params), size, pose.rotation.matrix(), pose.translation.copy())
        )
    return Material(images, list(names), [detect_sift(i) for i in images], frames, Tolerance(), list(cameras))


def _read_scene(scene: Scene, options: ReadOptions, rng: np.random.Generator) -> Material:
    # an image without any ground truth need not be readable
    used = {index for pair in scene.pairs for index in (pair.i, pair.j)}
    blank = torch.zeros((64, 64), dtype=torch.uint8)
    images = [to_gray(scene.image(i)) if i in used else blank for i in range(len(scene.names))]
    keypoints = [detect_sift(image) for image in images]
    share = -(-2 * options.points_per_scene // max(1, len(used)))
    starts = []
    for found in keypoints:
        candidates = one_per_location(found)
        order = rng.permutation(len(candidates))
        order = order[np.argsort(candidates.sigma[order] < MIN_SIGMA, kind="stable")]
        starts.append(candidates.xy[order[:share]])
    frames = frames_from_scene(scene, starts)
    cameras: list[Camera | None] = [None] * len(images)
    if isinstance(scene, PosedScene):
        cameras = [_pinhole(scene, index) for index in range(len(images))]
    return Material(images, list(scene.names), keypoints, frames, Tolerance(distance=1.5), cameras)


def _pinhole(scene: PosedScene, index: int) -> Camera:
    k = scene.intrinsics[index]
    params = (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)  # COLMAP's pixel centres
    pose = scene.rotations[index], scene.translations[index]
    return Camera("PINHOLE", tuple(map(float, params)), scene.camera_size(index), *pose)


def _read_singles(source: Source, options: ReadOptions, rng: np.random.Generator, say: Say) -> Store:
    """Single images: their second views are synthetic, drawn when training."""
    files = source.files
    images = [read_gray(path, options.max_size, apply_exif=True) for path in files]
    check_different(
        [thumbnail(image) for image in images],
        source.name,
        lambda kept: (
            f"single images have to show different things: keep {kept}. Images of one scene are reconstructed instead: "
            f"kornia-lift build-dataset {source.path} --out DATASET (without --single)"
        ),
    )
    _say_if_one_scene(source, images, options.seed, say)
    keypoints = [detect_sift(image) for image in images]
    parts, points, found, large = [Observations.none()], 0, 0, 0
    for index, (image, every) in enumerate(zip(images, keypoints, strict=True)):
        chosen = _locations_of(image, every, options.points_per_image, rng)
        found, large = found + len(np.unique(every.xy, axis=0)), large + _large(every)
        number = points + np.arange(len(chosen))
        parts.append(
            Observations(
                np.full(len(chosen), index), number, chosen.xy, chosen.sigma, chosen.theta, *_unit(len(chosen))
            )
        )
        points += len(chosen)
    table = join_observations(parts)
    counts = {"found": found, "large": large, "supported": int((table.sigma > 0).sum())}
    names = [path.name for path in files]
    read = Material(images, names, keypoints, frames_at(np.zeros((0, 2)), 0), Tolerance(), [None] * len(images))
    if not len(table):
        raise NoCorrespondenceError(_no_texture(source.name, len(images)))
    return make_store(source, read, table, counts, options, rng)


def _say_if_one_scene(source: Source, images: list[Tensor], seed: int, say: Say) -> None:
    """Warn where single images overlap: the held-out ones then show what the training images show."""
    overlapping, pairs, used = overlapping_pairs(images, seed)
    if overlapping:
        say(
            f"warning: {source.name}: the images are read as single ones, which have to show different things, but "
            f"{overlapping} of {counted(pairs, 'pair')} of {used} of them overlap (matched with {MODEL}). If they show "
            "one scene, training and held-out images show the same, and the validation errors say little. Reconstruct "
            f"them instead: `kornia-lift build-dataset {source.path} --out DATASET` without --single, then "
            "`train --data DATASET`"
        )


def _read_exposures(source: Source, options: ReadOptions, rng: np.random.Generator) -> Store:
    """Aligned images of one scene under several exposures."""
    files = images_in(source.path)
    images = [read_gray(path, options.max_size, apply_exif=True) for path in files]
    sizes = {tuple(image.shape) for image in images}
    if len(images) < 2 or len(sizes) > 1:
        raise ValueError(
            f"{source.path} must hold two or more images of one size, taken from a tripod under different "
            f"illumination; it holds {len(images)}, of {len(sizes)} sizes"
        )
    # the keypoints of the middle exposure serve all: no exposure shows more
    every = detect_sift(images[len(images) // 2])
    table = _locations_of(images[0], every, options.points_per_image, rng)
    if not len(table):
        raise NoCorrespondenceError(_no_texture(source.name, len(images)))
    frames, count = frames_at(table.xy, len(images)), len(images)
    sigma, theta = np.tile(table.sigma, count), np.tile(table.theta, count)
    rows = Observations(frames.image, frames.point, frames.xy, sigma, theta, *_unit(len(frames)))
    counts = {
        "found": len(np.unique(every.xy, axis=0)),
        "large": _large(every),
        "supported": int((table.sigma > 0).sum()),
    }
    read = Material(images, [f.name for f in files], [every] * count, frames, Tolerance(), [None] * count)
    return make_store(source, read, rows, counts, options, rng)


def _large(keypoints: Keypoints) -> int:
    """Number of locations with a keypoint of the least scale; SIFT has several at some."""
    return int((one_per_location(keypoints).sigma >= MIN_SIGMA).sum())


def _locations_of(image: Tensor, keypoints: Keypoints, count: int, rng: np.random.Generator) -> Keypoints:
    """Locations in one image; those whose support lies inside come first, the scale of the others becomes 0."""
    found = one_per_location(keypoints)
    reach = SUPPORT * found.sigma[:, None]
    fits = ((found.xy >= reach) & (found.xy <= np.array(image.shape[::-1]) - 1 - reach)).all(axis=1)
    fits &= found.sigma >= MIN_SIGMA
    order = rng.permutation(len(found))
    order = order[np.argsort(~fits[order], kind="stable")][:count]
    return Keypoints(found.xy[order], found.sigma[order] * fits[order], found.theta[order])


def _unit(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Zoom and angle of images that show a location alike."""
    return np.ones(count), np.zeros(count)


def _no_texture(name: str, images: int) -> str:
    return f"{name}: no SIFT keypoint in {counted(images, 'image')}; use larger images, or some with texture"
