"""Read COLMAP models, after checking that their files are complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import check_regular
from kornia_lift.files.colmap_models import check_binary_files, check_cameras
from kornia_lift.scenes.images import is_inside
from kornia_lift.scenes.scene import FloatArray

MAX_SIDE = 2**20  # pixels


def sfm_root(folder: Path) -> Path | None:
    """Return the folder that holds ``images/`` and ``sparse/`` of a scene; None if there is none.

    That is the folder itself (COLMAP, MegaDepth_v1_SfM), or ``dense`` in it (PhotoTourism of the Image Matching
    Challenge).
    """
    for root in (folder, folder / "dense"):
        if (root / "sparse").is_dir() and (root / "images").is_dir():
            return root
    return None


def model_folder(scene: Path) -> Path:
    """Return the folder with the COLMAP model of a scene: ``sparse``, ``sparse/0`` or ``sparse/manhattan/0``.

    Raises:
        FileNotFoundError: if there is no model.

    """
    for candidate in (scene / "sparse", scene / "sparse" / "0", scene / "sparse" / "manhattan" / "0"):
        if any((candidate / f"points3D{suffix}").is_file() for suffix in (".bin", ".txt")):
            return candidate
    raise FileNotFoundError(f"{scene} has no COLMAP model in sparse/; make one with `kornia-lift build-dataset`")


def read_model(scene: Path) -> Any:
    """Read the COLMAP model of a scene as a ``pycolmap.Reconstruction``.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if it is damaged, or one of its files is missing.

    """
    return read_model_files(model_folder(scene))


def read_model_files(folder: Path) -> Any:
    """Read the COLMAP model, binary or text, whose files are in ``folder``; see :func:`read_model`."""
    pycolmap = require("pycolmap", extra="colmap")
    try:
        for path in folder.iterdir():
            if not path.is_dir():
                check_regular(path)
        check_binary_files(folder)
        model = pycolmap.Reconstruction(str(folder))
        check_cameras(folder, model)
        check_image_names(folder, model)
        check_geometry(model)
    except (IndexError, RuntimeError, ValueError) as error:  # pycolmap raises what the damaged bytes lead to
        raise ValueError(f"the COLMAP model {folder} is damaged or incomplete ({error}); make it again") from error
    return model


def camera_matrix(camera: Any) -> FloatArray:
    """Return K (3, 3) of a ``pycolmap.Camera``, without lens distortion.

    Convention: pixel centres at integers; COLMAP puts the centre of the first pixel at (0.5, 0.5).
    """
    return np.asarray(camera.calibration_matrix()) - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def undistort(camera: Any, points: FloatArray) -> FloatArray:
    """Return points (N, 2) as a camera without lens distortion and with the same :func:`camera_matrix` sees them."""
    if len(points) == 0:
        return points
    rays, k = np.asarray(camera.cam_from_img(points + 0.5)), camera_matrix(camera)
    return np.asarray(rays @ k[:2, :2].T + k[:2, 2])


def observed_points(image: Any) -> set[int]:
    """Return the ids of the 3-D points that a ``pycolmap.Image`` observes."""
    return {p.point3D_id for p in image.points2D if p.has_point3D()}


def check_image_names(folder: Path, model: Any) -> None:
    """Check that the image names of a ``pycolmap.Reconstruction`` stay inside the folder of the images.

    Raises:
        ValueError: naming an absolute name, or one with ``..``.

    """
    for image in model.images.values():
        if not is_inside(image.name):
            raise ValueError(f"{folder.name} names the image {image.name!r}, which is outside the scene's images/")


def check_geometry(model: Any) -> None:
    """Check that the cameras, poses and points of a ``pycolmap.Reconstruction`` are usable numbers.

    Raises:
        ValueError: naming a camera without a positive size and focal length, or a pose or point that is not finite.

    """
    for number, camera in model.cameras.items():
        width, height = camera.width, camera.height
        params, focal = np.asarray(camera.params, dtype=np.float64), np.diag(camera.calibration_matrix())[:2]
        sized = 0 < width < MAX_SIDE and 0 < height < MAX_SIDE
        if not (sized and np.isfinite(params).all() and (focal > 0).all()):
            raise ValueError(f"camera {number} is impossible: {width}x{height} pixels, {camera.params_to_string()}")
    for image in model.images.values():
        if image.has_pose and not np.isfinite(image.cam_from_world().matrix()).all():
            raise ValueError(f"the pose of the image {image.name!r} is not finite")
    for number, point in model.points3D.items():
        if not np.isfinite(point.xyz).all():
            raise ValueError(f"the point {number} is not finite")
