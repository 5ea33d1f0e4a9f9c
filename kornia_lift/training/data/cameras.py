"""The camera of a training image, as COLMAP describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift.scenes.scene import FloatArray


@dataclass(frozen=True)
class Camera:
    """The camera of an image.

    Args:
        model: name of the camera model, as COLMAP calls it.
        params: its parameters; the centre of the first pixel at (0.5, 0.5), as COLMAP has it.
        size: width and height in pixels.
        rotation: R of X_camera = R X + t, shape (3, 3).
        translation: t, shape (3,).

    """

    model: str
    params: tuple[float, ...]
    size: tuple[int, int]
    rotation: FloatArray
    translation: FloatArray

    @property
    def intrinsics(self) -> FloatArray:
        """K without lens distortion, shape (3, 3); pixel centres at integers."""
        return np.asarray(self._camera().calibration_matrix()) - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])

    def undistort(self, points: FloatArray) -> FloatArray:
        """Points (N, 2) as a camera without lens distortion and with the same K would see them."""
        if not len(points):
            return points
        rays = np.asarray(self._camera().cam_from_img(points + 0.5))
        k = self.intrinsics
        return np.asarray(rays @ k[:2, :2].T + k[:2, 2])

    def _camera(self) -> Any:
        pycolmap = require("pycolmap", extra="train")
        try:
            return pycolmap.Camera(model=self.model, width=self.size[0], height=self.size[1], params=list(self.params))
        except (ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"a camera of the model {self.model!r} with {len(self.params)} parameters: {error}"
            ) from error
