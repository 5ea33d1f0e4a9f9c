"""Corresponding frames from structure from motion: one LAF per observation of a 3-D point, agreed by the geometry.

The learned-feature papers associate SIFT keypoints with the points of a reconstruction and inherit SIFT's scale and
angle, a fifth of which disagree between the views of a point. The cameras already say how a small patch at the point
is scaled and turned from view to view: that is used here instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_lift.scenes.colmap import read_model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SfmObservations:
    """All observations of the 3-D points of one scene.

    Args:
        images: image names.
        image: index into ``images`` per observation, shape (M,).
        point: index of the 3-D point per observation, shape (M,).
        xy: position in pixels, pixel centres at integers, shape (M, 2).
        jacobian: pixels per unit length on the plane through the point that faces the cameras, shape (M, 2, 2).

    """

    images: tuple[str, ...]
    image: NDArray[np.int64]
    point: NDArray[np.int64]
    xy: Array
    jacobian: Array


def read_sfm(scene: Path, max_reprojection: float = 1.5) -> SfmObservations:
    """Read a COLMAP model and derive, for every observation, how a patch at its point is seen.

    Args:
        scene: folder with the model in ``sparse/`` or ``sparse/0/``.
        max_reprojection: points of larger mean reprojection error, in pixels, are left out.

    Convention:
        The plane at a point faces the mean direction to the cameras that see it; its basis is arbitrary but the same
        for all views, so two jacobians J1, J2 of a point give the local map J2 inv(J1) from view 1 to view 2.

    """
    model = read_model(scene)
    ids = sorted(model.images)
    names = tuple(model.images[i].name for i in ids)
    rows: list[tuple[int, int]] = []
    xy: list[Array] = []
    jacobians: list[Array] = []
    poses = {}
    for index, image_id in enumerate(ids):
        image = model.images[image_id]
        world_to_cam = image.cam_from_world().matrix()
        camera = model.cameras[image.camera_id]
        poses[image_id] = (index, world_to_cam[:, :3], world_to_cam[:, 3], camera.mean_focal_length())
    for number, point_id in enumerate(sorted(model.points3D)):
        point = model.points3D[point_id]
        if point.error > max_reprojection:
            continue
        views = {e.image_id: e.point2D_idx for e in point.track.elements}
        rays = {i: poses[i][1] @ point.xyz + poses[i][2] for i in views}  # point in camera coordinates
        to_camera = [-poses[i][1].T @ (ray / np.linalg.norm(ray)) for i, ray in rays.items()]
        basis = plane_basis(np.mean(to_camera, axis=0))
        for image_id, element in views.items():
            index, rotation, _, focal = poses[image_id]
            rows.append((index, number))
            # COLMAP puts the centre of the first pixel at (0.5, 0.5)
            xy.append(model.images[image_id].points2D[element].xy - 0.5)
            jacobians.append(projection_jacobian(rays[image_id], rotation @ basis, focal))
    table = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
    return SfmObservations(
        names, table[:, 0], table[:, 1], np.asarray(xy).reshape(-1, 2), np.asarray(jacobians).reshape(-1, 2, 2)
    )


def plane_basis(normal: Array) -> Array:
    """Return two orthonormal columns that span the plane of the given normal, shape (3, 2)."""
    _, _, rows = np.linalg.svd(normal.reshape(1, 3))
    return rows[1:].T


def projection_jacobian(ray: Array, directions: Array, focal: float) -> Array:
    """Derivative of the pinhole projection at ``ray`` along ``directions`` (3, 2), in pixels per unit length."""
    x, y, z = ray
    derivative = focal / z * np.array([[1.0, 0.0, -x / z], [0.0, 1.0, -y / z]])
    return derivative @ directions


def nearest_similarity(matrix: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Closest similarity (Frobenius norm) of 2x2 maps.

    Args:
        matrix: shape (M, 2, 2).

    Returns:
        Scales (M,), angles (M,) in radians that turn the x axis towards the y axis (clockwise on screen), and
        whether the map keeps the orientation, shape (M,).

    """
    a = (matrix[:, 0, 0] + matrix[:, 1, 1]) / 2
    b = (matrix[:, 1, 0] - matrix[:, 0, 1]) / 2
    return np.hypot(a, b), np.arctan2(b, a), np.linalg.det(matrix) > 0
