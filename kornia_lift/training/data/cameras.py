"""The camera of a training image, as COLMAP describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kornia.geometry.calibration import undistort_points

from kornia_lift._extras import require
from kornia_lift.scenes.colmap import camera_matrix, undistort
from kornia_lift.scenes.scene import FloatArray

#: COLMAP's models whose lens distortion kornia has too, so that training does not need pycolmap for them: number of
#: focal lengths, and of distortion coefficients (k1, k2, p1, p2), between which the centre stands.
_PLAIN_MODELS = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
}
_ITERATIONS = 10  # of kornia's inversion; 3e-8 pixels from COLMAP's at k1 = -0.17


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
        if self.model not in _PLAIN_MODELS:
            return camera_matrix(self._camera())
        focal, centre, _ = self._plain()
        return np.array([[focal[0], 0, centre[0] - 0.5], [0, focal[-1], centre[1] - 0.5], [0, 0, 1]])

    def undistort(self, points: FloatArray) -> FloatArray:
        """Points (N, 2) as a camera without lens distortion and with the same K would see them."""
        if not len(points):
            return points
        if self.model in _PLAIN_MODELS:
            coefficients = torch.zeros(4, dtype=torch.float64)
            distortion = self._plain()[2]
            if not any(distortion):
                return points
            coefficients[: len(distortion)] = torch.tensor(distortion, dtype=torch.float64)
            distorted = torch.from_numpy(np.asarray(points, np.float64))
            ideal: FloatArray = undistort_points(
                distorted, torch.from_numpy(self.intrinsics), coefficients, num_iters=_ITERATIONS
            ).numpy()
            return ideal
        return undistort(self._camera(), points)

    def _plain(self) -> tuple[tuple[float, ...], ...]:
        """Focal lengths, centre, and distortion of one of the plain models."""
        focal, distortion = _PLAIN_MODELS[self.model]
        if len(self.params) != focal + 2 + distortion:
            raise ValueError(
                f"a camera of the model {self.model!r} has {focal + 2 + distortion} parameters, got {len(self.params)}"
            )
        return self.params[:focal], self.params[focal : focal + 2], self.params[focal + 2 :]

    def _camera(self) -> Any:
        pycolmap = require("pycolmap", extra="train")
        try:
            return pycolmap.Camera(model=self.model, width=self.size[0], height=self.size[1], params=list(self.params))
        except (ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"a camera of the model {self.model!r} with {len(self.params)} parameters: {error}"
            ) from error
