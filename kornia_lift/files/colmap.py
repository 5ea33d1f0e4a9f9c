"""Features and matches in a COLMAP database, ready for geometric verification and mapping.

Convention:
    COLMAP puts the centre of the top-left pixel at (0.5, 0.5), we put it at (0, 0): keypoints are shifted by half a
    pixel on the way in. A COLMAP keypoint of four numbers is x, y, scale, orientation; its orientation is in radians
    from the x axis towards the y axis, which points down, so it is clockwise on screen where ours is counter-clockwise.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift._io.writing import temporary_folder
from kornia_lift._words import counted
from kornia_lift.features import Features
from kornia_lift.files.colmap_calls import quiet_colmap
from kornia_lift.files.colmap_models import check_written

#: Sigma written for features without scale, pixels. COLMAP's mapper does not use it; its viewer draws it.
DEFAULT_SIGMA = 1.0
#: Length of the only descriptors that COLMAP's own SIFT matcher reads.
SIFT_LENGTH = 128
#: Files of a model; older versions of COLMAP know no frames and rigs.
_MODEL_FILES = {f"{name}.bin" for name in ("cameras", "images", "points3D", "frames", "rigs")} | {"project.ini"}


def keypoint_rows(features: Features) -> NDArray[np.float32]:
    """Return keypoints as COLMAP stores them: x + 0.5, y + 0.5, sigma, radians clockwise; shape (N, 4)."""
    count = len(features.keypoints)
    rows = np.zeros((count, 4), dtype=np.float32)
    rows[:, :2] = features.keypoints + 0.5
    rows[:, 2] = DEFAULT_SIGMA if features.scales is None else features.scales
    if features.angles is not None:
        rows[:, 3] = -np.deg2rad(features.angles)
    return rows


def descriptor_bytes(descriptors: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return descriptors as bytes like COLMAP's SIFT, 512 times the unit vector; None if that would destroy them.

    Only 128 non-negative numbers can be stored: SIFT's, RootSIFT's. COLMAP has no type for other float descriptors.
    """
    if descriptors.dtype == np.uint8 or descriptors.ndim != 2 or descriptors.shape[1] != SIFT_LENGTH:
        return None
    if len(descriptors) == 0 or not np.isfinite(descriptors).all() or descriptors.min() < 0:
        return None
    length = np.linalg.norm(descriptors, axis=1, keepdims=True)
    scaled = np.rint(512.0 * descriptors / np.maximum(length, 1e-12))
    return np.minimum(scaled, 255).astype(np.uint8)


def write_database(
    path: str | os.PathLike[str],
    features: Mapping[str, Features],
    matches: Mapping[tuple[str, str], NDArray[np.integer]],
    *,
    images: str | os.PathLike[str] | None = None,
    cameras: Mapping[str, Any] | Any | None = None,
    camera_mode: str = "AUTO",
) -> None:
    """Write a new COLMAP database with images, cameras, keypoints and putative matches.

    The file appears complete or not at all. Descriptors are written where COLMAP can hold them
    (:func:`descriptor_bytes`); mapping needs the matches only.

    Args:
        path: the database; must not exist.
        features: features by image name, as COLMAP is to call the images.
        matches: for pairs of image names the indices of matched keypoints, shape (M, 2).
        images: folder of the images, from which COLMAP reads sizes and the focal length of the EXIF tags; needed
            unless ``cameras`` are given.
        cameras: ``pycolmap.Camera`` by image name, or one for all images, as COLMAP counts pixels. Its
            ``has_prior_focal_length`` says whether the focal length is known.
        camera_mode: ``pycolmap.CameraMode`` when cameras are made from ``images``: ``AUTO``, ``SINGLE``,
            ``PER_FOLDER`` or ``PER_IMAGE``.

    Raises:
        FileExistsError: if the database exists.
        ValueError: if there are no features, an image has no camera or was described at another size, or a match
            refers to an image or a keypoint that does not exist.
        ColmapError: if COLMAP cannot write the database.
        MissingExtraError: if pycolmap is not installed.
    """
    pycolmap = require("pycolmap", extra="colmap")
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists: remove it or choose another name for the database")
    if not features:
        raise ValueError("a COLMAP database needs the features of at least one image, got none")
    if images is None and cameras is None:
        raise ValueError("give the folder of the images, or their cameras")
    _check_matches(features, matches)
    names = sorted(features)
    if cameras is None:
        absent = [name for name in names if not (Path(images or "") / name).is_file()]
        if absent:
            raise FileNotFoundError(f"{images} lacks {_some(absent)} that the features are of")
        _check_shared_cameras(features, camera_mode)
    with temporary_folder(path) as work, quiet_colmap(pycolmap, path):
        unfinished = work / "database.db"
        with pycolmap.Database.open(unfinished) as database:
            if cameras is not None:
                _write_images(pycolmap, database, names, cameras)
        if cameras is None:
            mode = getattr(pycolmap.CameraMode, camera_mode)
            pycolmap.import_images(unfinished, images, camera_mode=mode, image_names=names)
        with pycolmap.Database.open(unfinished) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            sizes = {camera.camera_id: (camera.width, camera.height) for camera in database.read_all_cameras()}
            camera_of = {image.name: image.camera_id for image in database.read_all_images()}
            missing = [name for name in names if name not in ids]
            if missing:
                raise ValueError(
                    f"COLMAP cannot read {_some(missing)} of {images}: convert to JPEG or PNG, or give the cameras"
                )
            for name in names:
                _check_size(name, features[name], sizes[camera_of[name]])
                database.write_keypoints(ids[name], keypoint_rows(features[name]))
                stored = descriptor_bytes(features[name].descriptors)
                if stored is not None:
                    sift = pycolmap.FeatureExtractorType.SIFT
                    database.write_descriptors(ids[name], pycolmap.FeatureDescriptors(sift, stored))
            for (first, second), index in matches.items():
                pairs = np.ascontiguousarray(index, dtype=np.uint32).reshape(-1, 2)
                database.write_matches(ids[first], ids[second], pairs)
        os.replace(unfinished, path)


def verify(path: str | os.PathLike[str], *, seed: int = 0, threads: int = -1) -> int:
    """Verify the putative matches of a database by two-view geometry, as COLMAP does before mapping.

    Args:
        path: the database.
        seed: seed of the estimator.
        threads: for pycolmap, -1 for all.

    Returns:
        The number of image pairs that hold enough inliers.

    Raises:
        FileNotFoundError: if there is no such database.
        ColmapError: if COLMAP cannot read or write it.
    """
    pycolmap = require("pycolmap", extra="colmap")
    _check_database(path)
    geometry, verifier = pycolmap.TwoViewGeometryOptions(), pycolmap.GeometricVerifierOptions()
    geometry.ransac.random_seed = seed
    verifier.num_threads = threads
    with quiet_colmap(pycolmap, path):
        pycolmap.geometric_verification(path, verifier_options=verifier, two_view_geometry_options=geometry)
        with pycolmap.Database.open(path) as database:
            _, inliers = database.read_two_view_geometry_num_inliers()  # pairs without any are listed too
            return sum(count > 0 for count in inliers)


def map_database(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    refine_intrinsics: bool = True,
    min_model_size: int = 3,
    seed: int = 0,
    threads: int = -1,
) -> Any | None:
    """Find cameras and points from the verified matches of a database: incremental mapping.

    Args:
        path: the database, after :func:`verify`.
        out: folder for the models, one in ``0``, ``1``, ... for each connected part; made if it does not exist.
        images: folder of the images, for the colours of the points; None leaves them out.
        refine_intrinsics: False keeps the cameras of the database.
        min_model_size: models of fewer images are dropped.
        seed: seed of the estimators.
        threads: for pycolmap, -1 for all.

    Returns:
        The ``pycolmap.Reconstruction`` with most images; None if there is none.

    Raises:
        FileExistsError: if ``out`` has a folder with a number for a name that is no model. Models of an earlier run are
            replaced, all of them, if this one finds any.
        FileNotFoundError: if there is no such database.
        ColmapError: if COLMAP cannot read or write it.
        OSError: if the disk is too full for the models; those of an earlier run stay.
    """
    pycolmap = require("pycolmap", extra="colmap")
    _check_database(path)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = threads, seed
    options.min_model_size = min_model_size
    options.extract_colors = images is not None
    options.ba_refine_focal_length = options.ba_refine_extra_params = refine_intrinsics
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = refine_intrinsics
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    old = old_models(folder)
    with temporary_folder(folder / "models") as fresh:
        with quiet_colmap(pycolmap, path):
            pycolmap.set_random_seed(seed)
            # the folder of the images must exist even where nothing is read from it
            models = pycolmap.incremental_mapping(path, fresh if images is None else images, fresh, options)
        for number, model in models.items():  # before an old one is removed
            check_written(fresh / str(number), model, folder / str(number))
        for found in old if models else ():
            shutil.rmtree(found)
        for found in fresh.iterdir():
            found.rename(folder / found.name)
    return max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None)


def old_models(folder: Path) -> list[Path]:
    """Return the models in a folder, which :func:`map_database` replaces.

    Raises:
        FileExistsError: if something there has the name of a model and is none: files that COLMAP does not write.
    """
    old = [found for found in folder.iterdir() if found.name.isdigit()] if folder.is_dir() else []
    for found in old:
        names = {file.name for file in found.iterdir()} if found.is_dir() else set()
        if "cameras.bin" not in names or not names <= _MODEL_FILES:
            raise FileExistsError(f"{found} is no COLMAP model: models get numbers for names; choose another folder")
    return old


def _write_images(pycolmap: Any, database: Any, names: list[str], cameras: Mapping[str, Any] | Any) -> None:
    """Write cameras, rigs, frames and images: since COLMAP 4 an image belongs to a frame of a rig of cameras."""
    given: Mapping[str, Any] = cameras if isinstance(cameras, Mapping) else dict.fromkeys(names, cameras)
    rig = camera = None
    for name in names:
        if camera is None or rig is None or given is cameras:  # a shared camera has one rig
            if name not in given:
                raise ValueError(f"image {name} has no camera")
            camera = pycolmap.Camera(given[name].todict())
            camera.camera_id = database.write_camera(camera)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            rig.rig_id = database.write_rig(rig)
        image = pycolmap.Image(name=name, camera_id=camera.camera_id)
        image.image_id = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig.rig_id
        frame.add_data_id(image.data_id)
        database.write_frame(frame)


def _check_matches(features: Mapping[str, Features], matches: Mapping[tuple[str, str], NDArray[np.integer]]) -> None:
    for pair, index in matches.items():
        unknown = [name for name in pair if name not in features]
        if unknown or pair[0] == pair[1]:
            reason = f"no features of {', '.join(unknown)}" if unknown else "expected two different images"
            raise ValueError(f"matches of the pair {pair[0]}, {pair[1]}: {reason}")
        index = np.asarray(index).reshape(-1, 2)
        limit = np.array([len(features[name].keypoints) for name in pair])
        if (index < 0).any() or (index >= limit).any():
            raise ValueError(
                f"matches of the pair {pair[0]}, {pair[1]} point beyond their {limit[0]} and {limit[1]} keypoints"
            )


def _some(names: list[str]) -> str:
    return f"{counted(len(names), 'image')} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _check_database(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such database; write_database makes one")


def _check_shared_cameras(features: Mapping[str, Features], camera_mode: str) -> None:
    """Refuse one camera for images of several sizes, which COLMAP would leave out."""
    if camera_mode not in ("SINGLE", "PER_FOLDER"):
        return
    seen: dict[str, str] = {}
    for name in sorted(features):
        first = seen.setdefault("" if camera_mode == "SINGLE" else os.path.dirname(name), name)
        sizes = features[first].image_size, features[name].image_size
        if None not in sizes and sizes[0] != sizes[1]:
            (w0, h0), (w1, h1) = sizes  # type: ignore[misc]
            raise ValueError(
                f"camera mode {camera_mode}: images of one camera have one size, but {first} has {w0}x{h0} and {name} "
                f"{w1}x{h1}; use AUTO or PER_IMAGE"
            )


def _check_size(name: str, features: Features, size: tuple[int, int]) -> None:
    if features.image_size is not None and tuple(features.image_size) != size:
        found = features.image_size
        raise ValueError(
            f"the features of {name} were found at {found[0]}x{found[1]}, the camera is for {size[0]}x{size[1]}"
        )
