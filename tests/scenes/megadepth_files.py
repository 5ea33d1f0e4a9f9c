"""MegaDepth's published layout in miniature, made as it was made: COLMAP undistorts and scales images of a lens."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from tests.helpers.training import picture

SIZE = (480, 360)
LARGEST = 320  # side of the published images
#: SIMPLE_RADIAL: focal length, principal point in COLMAP's pixels, and a distortion of ten pixels in the corners.
LENS = (420.0, 241.0, 178.0, 0.12)
#: The plane n . X = d.
NORMAL, DISTANCE = np.array([0.2, -0.1, 1.0]), 6.0
NAMES = ("a_b.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")


def pose(number: int) -> tuple[np.ndarray, np.ndarray]:
    """R and t of an image: a step to the side each, and some rotation."""
    rotation = cv2.Rodrigues(np.array([0.01 * number, 0.06 * number, 0.03 * number]))[0]
    return rotation, np.array([-0.4 * number, 0.05 * number, 0.03 * number])


def on_plane(rays: np.ndarray, rotation: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Where rays (N, 3) of a camera meet the plane, in camera coordinates."""
    normal = rotation @ NORMAL
    return rays * ((DISTANCE + normal @ t) / (rays @ normal))[:, None]


@dataclass(frozen=True)
class Published:
    """What was written.

    Args:
        base: the folder that everything was unpacked into.
        dense: ``.../MegaDepth_v1/0015/dense0``.
        depth: exact depth of the published images, by name.
        homography: from the first published image to the second, by the cameras that COLMAP wrote beside them.
    """

    base: Path
    dense: Path
    depth: dict[str, np.ndarray]
    homography: np.ndarray


def _model(points: np.ndarray) -> Any:
    """A COLMAP model of points that all images show."""
    import pycolmap

    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=SIZE[0], height=SIZE[1], params=LENS, camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for number, name in enumerate(NAMES, start=1):
        rotation, t = pose(number)
        xy = np.asarray(camera.img_from_cam(points @ rotation.T + t))
        image = pycolmap.Image(
            name=name, points2D=pycolmap.Point2DList([pycolmap.Point2D(p) for p in xy]), camera_id=1, image_id=number
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), t))
    for index, point in enumerate(points):
        track = pycolmap.Track(elements=[pycolmap.TrackElement(n, index) for n in range(1, len(NAMES) + 1)])
        model.add_point3D(point, track, np.zeros(3, np.uint8))
    return model


def write_megadepth(base: Path, scene: str = "0015") -> Published:
    """Five images: three with depth, one with an ordinal mask, one whose depth file is missing."""
    import pycolmap

    rng = np.random.default_rng(0)
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=SIZE[0], height=SIZE[1], params=LENS)
    world = rng.uniform([-1.6, -1.2], [2.2, 1.6], (60, 2))
    model = _model(np.c_[world, (DISTANCE - world @ NORMAL[:2]) / NORMAL[2]])
    sfm = base / "MegaDepth_v1_SfM" / scene
    (sfm / "images").mkdir(parents=True)
    (sfm / "sparse" / "manhattan" / "0").mkdir(parents=True)
    model.write(str(sfm / "sparse" / "manhattan" / "0"))
    texture = cv2.resize(picture(5, 300), (1200, 1200), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    normalized = np.asarray(camera.cam_from_img(np.c_[x.ravel(), y.ravel()] + 0.5))
    rays = np.c_[normalized, np.ones(len(normalized))]
    for number, name in enumerate(NAMES, start=1):
        rotation, t = pose(number)
        points = (on_plane(rays, rotation, t) - t) @ rotation  # in the world
        at = ((points[:, :2] + 5) * 120).astype(np.float32).reshape(*SIZE[::-1], 2)
        image = cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        cv2.imwrite(str(sfm / "images" / name), image)
    dense = base / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / scene / "dense0"
    (dense / "depths").mkdir(parents=True)
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = LARGEST
    undistorted = base / "undistorted"
    pycolmap.undistort_images(str(undistorted), str(sfm / "sparse" / "manhattan" / "0"), str(sfm / "images"),
                              undistort_options=options)  # fmt: skip
    (undistorted / "images").rename(dense / "imgs")
    made = pycolmap.Reconstruction(str(undistorted / "sparse"))
    shutil.rmtree(undistorted)
    depth, cameras = {}, []
    for image in made.images.values():
        ideal = made.cameras[image.camera_id]
        y, x = np.mgrid[: ideal.height, : ideal.width]
        flat = np.asarray(ideal.cam_from_img(np.c_[x.ravel(), y.ravel()] + 0.5))
        matrix = image.cam_from_world().matrix()
        z = on_plane(np.c_[flat, np.ones(len(flat))], matrix[:, :3], matrix[:, 3])[:, 2].reshape(x.shape)
        depth[image.name] = z.astype(np.float32)
    for name in NAMES[:2]:
        image = made.find_image_with_name(name)
        k = made.cameras[image.camera_id].calibration_matrix() - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        matrix = image.cam_from_world().matrix()
        normal = matrix[:, :3] @ NORMAL
        cameras.append((k, matrix[:, :3], matrix[:, 3], normal / (DISTANCE + normal @ matrix[:, 3])))
    (k, r, t, plane), (k2, r2, t2, _) = cameras
    rotation = r2 @ r.T
    homography = k2 @ (rotation + np.outer(t2 - rotation @ t, plane)) @ np.linalg.inv(k)
    for name in NAMES[:4]:
        values = depth[name].copy()
        values[:20] = 0  # unknown, as the sky is
        write_depth(dense, name, values if name != "d.jpg" else np.where(values > 6, -1.0, -2.0))
    return Published(base, dense, depth, homography / homography[2, 2])


def write_depth(dense: Path, name: str, values: np.ndarray) -> None:
    """A depth file as published."""
    with h5py.File((dense / "depths" / name).with_suffix(".h5"), "w") as file:
        file.create_dataset("depth", data=values.astype(np.float32), compression="gzip")
