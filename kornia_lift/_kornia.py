"""What this package needs of kornia 0.9, for kornia 0.8 too: the one module that knows of their differences.

Programs such as vismatch 1.4 pin kornia 0.8. Detection, description and matching give the same with either; training
and evaluation, which use more of kornia, need 0.9.

The attribute ``SAMPLES_PIXEL_CENTRES`` says that ``kornia.feature.extract_patches_from_pyramid`` takes its samples
where the frame says. Before 0.9 they were half a pixel off, so :func:`kornia_lift.geometry.pyramid.extract_patches`
does without it there.
"""

from __future__ import annotations

from torch import Tensor

try:
    from kornia.core.exceptions import DeviceError, ShapeError
except ModuleNotFoundError:  # kornia 0.8

    class ShapeError(ValueError):  # type: ignore[no-redef]
        """A tensor has another shape than expected."""

    class DeviceError(ValueError):  # type: ignore[no-redef]
        """Tensors lie on different devices."""

        def __init__(self, message: str, *, actual_devices: object = None) -> None:
            super().__init__(message)
            self.actual_devices = actual_devices


try:
    from kornia.feature import laf_is_filled

    SAMPLES_PIXEL_CENTRES = True
except ImportError:  # kornia 0.8
    SAMPLES_PIXEL_CENTRES = False

    def laf_is_filled(laf: Tensor) -> Tensor:
        """Return which of the frames (B, N, 2, 3) are not all zero, bool, shape (B, N)."""
        return laf.ne(0).any(dim=-1).any(dim=-1)


__all__ = ["SAMPLES_PIXEL_CENTRES", "DeviceError", "ShapeError", "laf_is_filled"]
