"""Tracks with frames: where the images of a scene show one location, and how a small patch there is seen in each.

The learned-feature papers associate SIFT keypoints with the points of a reconstruction and inherit SIFT's scale and
angle, a fifth of which disagree between the views of a point. The cameras, depth maps or homographies already say how
a small patch is scaled and rotated from view to view: that is used here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift.scenes.scene import VISIBLE, Scene

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_STEP = 3.0  # pixels on either side of a point over which a local map is measured: more than the noise of a depth map


@dataclass(frozen=True)
class Frames:
    """Observations of locations in the images of one source.

    Args:
        image: index of the image, shape (M,).
        point: number of the location, shape (M,).
        xy: position in pixels, pixel centres at integers, shape (M, 2).
        jacobian: pixels per unit length on the surface at the location, shape (M, 2, 2). The basis of the surface is
            arbitrary but the same for all views, so that two jacobians J1, J2 of a location give the local map
            J2 inv(J1) from view 1 to view 2.

    """

    image: Indices
    point: Indices
    xy: Array
    jacobian: Array

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Frames:
        """Return the chosen rows."""
        return Frames(self.image[rows], self.point[rows], self.xy[rows], self.jacobian[rows])


def frames_from_colmap(model: Any, max_reprojection: float = 1.5) -> tuple[tuple[str, ...], Frames]:
    """Derive, for every observation of a COLMAP model, how a patch at its point is seen.

    Args:
        model: ``pycolmap.Reconstruction``.
        max_reprojection: points of larger mean reprojection error, in pixels, are left out.

    Returns:
        Names of the images, and the frames.

    Convention:
        The plane at a point faces the mean direction to the cameras that see it.

    """
    ids = sorted(i for i in model.images if model.images[i].has_pose)
    names = tuple(model.images[i].name for i in ids)
    points = [model.points3D[i] for i in sorted(model.points3D)]
    number, image, xy = _observations(model, points, {i: n for n, i in enumerate(ids)}, max_reprojection)
    if not len(number):
        return names, Frames(image, number, xy, np.zeros((0, 2, 2)))
    pose = np.stack([model.images[i].cam_from_world().matrix() for i in ids])[image]
    focal = np.array([model.cameras[model.images[i].camera_id].mean_focal_length() for i in ids])[image]
    xyz = np.stack([point.xyz for point in points])[number][..., None]
    rotation, ray = pose[:, :, :3], (pose[:, :, :3] @ xyz)[..., 0] + pose[:, :, 3]  # points in camera coordinates
    to_camera = -(rotation.swapaxes(1, 2) @ (ray / np.linalg.norm(ray, axis=1, keepdims=True))[..., None])[..., 0]
    towards = np.zeros((len(points), 3))
    np.add.at(towards, number, to_camera)  # only its direction counts
    basis = plane_basis(towards)[number]
    return names, Frames(image, number, xy, projection_jacobian(ray, rotation @ basis, focal))


def _observations(
    model: Any, points: Sequence[Any], order: Mapping[int, int], max_reprojection: float
) -> tuple[Indices, Indices, Array]:
    """Return point, image and position in pixels of every observation of the precise points of a COLMAP model.

    Args:
        model: ``pycolmap.Reconstruction``.
        points: its points.
        order: number of each image, by its key in the model.
        max_reprojection: largest mean error of a precise point, pixels.

    """
    elements = {key: model.images[key].points2D for key in order}
    rows: list[tuple[int, int]] = []
    xy: list[Array] = []
    for number, point in enumerate(points):
        if point.error > max_reprojection:
            continue
        views = {e.image_id: e.point2D_idx for e in point.track.elements}
        rows += [(number, order[key]) for key in views]
        xy += [elements[key][element].xy for key, element in views.items()]
    table = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
    # COLMAP puts the centre of the first pixel at (0.5, 0.5)
    return table[:, 0], table[:, 1], np.asarray(xy, dtype=np.float64).reshape(-1, 2) - 0.5


def plane_basis(normal: Array) -> Array:
    """Return two orthonormal columns that span the plane of each normal, (..., 3) -> (..., 3, 2).

    Seen from the side to which the normal points, the second one is clockwise from the first, as y is from x in an
    image. The other way round a camera would see every patch of the plane mirrored.
    """
    _, _, rows = np.linalg.svd(normal[..., None, :])
    first, second = rows[..., 1, :], rows[..., 2, :]
    towards = (np.cross(first, second) * normal).sum(-1, keepdims=True)
    return np.stack([first, np.where(towards < 0, second, -second)], axis=-1)


def projection_jacobian(ray: Array, directions: Array, focal: float | Array) -> Array:
    """Derivative of the pinhole projection along directions, in pixels per unit length.

    Args:
        ray: points in camera coordinates, shape (..., 3).
        directions: two directions at each, shape (..., 3, 2).
        focal: focal length in pixels, one or one for each point.

    Returns:
        Shape (..., 2, 2).

    """
    x, y, z = np.moveaxis(ray, -1, 0)
    zero, one = np.zeros_like(z), np.ones_like(z)
    rows = np.stack([np.stack([one, zero, -x / z], -1), np.stack([zero, one, -y / z], -1)], -2)
    derivative: Array = np.asarray(focal / z)[..., None, None] * rows
    return derivative @ directions


def frames_from_scene(scene: Scene, starts: list[Array]) -> Frames:
    """Follow locations of every image into the others, through depth maps or homographies.

    Args:
        scene: says where a point of one image lies in another; the others of an image are those it is paired with.
        starts: for each image the positions that are followed from it, shape (N, 2).

    Returns:
        Two or more observations per location; those that no other image sees are left out. The basis of a location
        is the pixel axes of the image in which it was chosen.

    """
    partners: dict[int, set[int]] = {index: set() for index in range(len(scene.names))}
    for pair in scene.pairs:
        partners[pair.i].add(pair.j)
        partners[pair.j].add(pair.i)
    first = np.cumsum([0, *(len(xy) for xy in starts)])
    none = Frames(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros((0, 2)), np.zeros((0, 2, 2)))
    parts = [none]
    for index, others in partners.items():
        xy = starts[index]
        number = first[index] + np.arange(len(xy))
        seen = np.zeros(len(xy), dtype=bool)
        for other in sorted(others) if len(xy) else ():
            moved, local, good = _follow(scene, index, other, xy)
            seen |= good
            parts.append(Frames(np.full(good.sum(), other), number[good], moved[good], local[good]))
        parts.append(
            Frames(np.full(seen.sum(), index), number[seen], xy[seen], np.tile(np.eye(2), (int(seen.sum()), 1, 1)))
        )
    return Frames(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("image", "point", "xy", "jacobian")))


def _follow(scene: Scene, i: int, j: int, xy: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Points of image ``i`` in image ``j``, the derivative of the map there (N, 2, 2), and whether both are known."""
    moved, status = scene.transfer(i, j, xy)
    good = status == VISIBLE
    columns = []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = _STEP
        (ahead, here), (behind, there) = scene.transfer(i, j, xy + step), scene.transfer(i, j, xy - step)
        good &= (here == VISIBLE) & (there == VISIBLE)
        columns.append((ahead - behind) / (2 * _STEP))
    return moved, np.stack(columns, axis=2), good


def frames_at(xy: Array, images: int) -> Frames:
    """Frames of locations at the same positions (N, 2) in each of a number of aligned images."""
    image = np.repeat(np.arange(images), len(xy))
    return Frames(
        image, np.tile(np.arange(len(xy)), images), np.tile(xy, (images, 1)), np.tile(np.eye(2), (len(image), 1, 1))
    )


def nearest_similarity(matrix: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Closest similarity (Frobenius norm) of 2x2 maps.

    Args:
        matrix: shape (M, 2, 2).

    Returns:
        Scales (M,), angles (M,) in radians that rotate the x axis towards the y axis (clockwise on screen), and
        whether the map keeps the orientation, shape (M,).

    """
    a = (matrix[:, 0, 0] + matrix[:, 1, 1]) / 2
    b = (matrix[:, 1, 0] - matrix[:, 0, 1]) / 2
    with np.errstate(invalid="ignore"):
        return np.hypot(a, b), np.arctan2(b, a), np.linalg.det(matrix) > 0
