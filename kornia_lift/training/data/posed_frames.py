"""Corresponding frames from posed photographs with measured depth, in the form of those from structure from motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import VISIBLE
from kornia_lift.training.data.images import read_gray
from kornia_lift.training.data.sfm_frames import Array, SfmObservations

_STEP = 3.0  # pixels on either side of a place over which the local map is measured: more than the noise of the depth


def posed_observations(scene: PosedScene, points: int, rng: np.random.Generator) -> SfmObservations:
    """Follow places of every photograph, chosen where SIFT sees something, through the depth into the others.

    Args:
        scene: photographs with cameras and depth; the others of a photograph are those that ``scene.pairs`` names.
        points: places in all, shared by the photographs; those that no other photograph sees are left out.
        rng: chooses among the keypoints.

    Returns:
        Two or more observations per place. The plane's basis of a place is the pixel axes of the photograph in which
        it was chosen.

    """
    cv2 = require("cv2", extra="train")
    names = tuple(scene.image_path(index).name for index in range(len(scene)))
    partners: dict[int, set[int]] = {index: set() for index in range(len(scene))}
    for pair in scene.pairs:
        partners[pair.i].add(pair.j)
        partners[pair.j].add(pair.i)
    share = -(-points // max(1, sum(map(bool, partners.values()))))
    image: list[NDArray[np.int64]] = []
    point: list[NDArray[np.int64]] = []
    xy: list[Array] = []
    jacobian: list[Array] = []
    for index, others in partners.items():
        if not others:
            continue
        scene.image_size(index)  # the photograph must be the one of the camera
        photo = read_gray(scene.image_path(index)).numpy()
        found = cv2.SIFT_create(nfeatures=20 * share, contrastThreshold=0.02).detect(photo, None)
        # one place under several scales or angles is one place
        place = np.unique(np.array([k.pt for k in found], dtype=np.float64).reshape(-1, 2), axis=0)
        place = place[rng.permutation(len(place))[:share]]
        number = index * share + np.arange(len(place))
        seen = np.zeros(len(place), dtype=bool)
        for other in sorted(others):
            moved, local, good = _follow(scene, index, other, place)
            seen |= good
            image.append(np.full(good.sum(), other))
            point.append(number[good])
            xy.append(moved[good])
            jacobian.append(local[good])
        image.append(np.full(seen.sum(), index))
        point.append(number[seen])
        xy.append(place[seen])
        jacobian.append(np.tile(np.eye(2), (int(seen.sum()), 1, 1)))
    if not image:
        empty = np.zeros(0, dtype=np.int64)
        return SfmObservations(names, empty, empty, np.zeros((0, 2)), np.zeros((0, 2, 2)))
    return SfmObservations(
        names, np.concatenate(image), np.concatenate(point), np.concatenate(xy), np.concatenate(jacobian)
    )


def _follow(scene: PosedScene, i: int, j: int, place: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Places of image ``i`` in image ``j``, the derivative of the map there (N, 2, 2), and whether both are known."""
    moved, status = scene.transfer(i, j, place)
    good = status == VISIBLE
    columns = []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = _STEP
        (ahead, here), (behind, there) = scene.transfer(i, j, place + step), scene.transfer(i, j, place - step)
        good &= (here == VISIBLE) & (there == VISIBLE)
        columns.append((ahead - behind) / (2 * _STEP))
    return moved, np.stack(columns, axis=2), good
