r"""Pairs of views and where every pixel of one lies in the other, whatever that is known from.

Convention:
    A batch of views is a dictionary: ``first`` and ``second``, images (B, 1, S, S) in [0, 1]; and for either direction
    the warp of its pixels: ``to_second`` positions (B, S, S, 2) in the second view of the pixels of the first one,
    pixel centres at integers; ``seen_first`` where that is known and the second view shows the point, booleans
    (B, S, S); ``zoom_first``, how many times larger things are in the second view, (B, S, S); ``rotation_first``, by
    how much they are rotated there, radians, clockwise on screen, (B, S, S). Likewise ``to_first``, ``seen_second``,
    ``zoom_second`` and ``rotation_second``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.lfnet.warp import is_inside
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig, sample_pixels, warp_grid

Views = dict[str, Tensor]


class ViewSource(Protocol):
    """Where pairs of views come from."""

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw ``count`` pairs, a function of the state of the generator only."""
        ...


def join_views(parts: Sequence[Views]) -> Views:
    """Join batches of views."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def homography_warp(matrix: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return positions, magnification and rotation of a homography at every pixel of a square image.

    .. math:: J = \frac{1}{w} \left(H_{2 \times 2} - x' h_3^T\right)

    is its Jacobian; the magnification is :math:`\sqrt{|\det J|}`, the rotation that of the nearest similarity.

    Args:
        matrix: H, shape (B, 3, 3).
        size: S.

    Returns:
        Positions (B, S, S, 2), magnification (B, S, S), rotation in radians, clockwise on screen, (B, S, S).

    """
    xy = warp_grid(matrix, size)
    at = torch.arange(size, dtype=matrix.dtype, device=matrix.device)
    row, column = torch.meshgrid(at, at, indexing="ij")
    h = matrix[:, None, None]
    depth = (h[..., 2, 0] * column + h[..., 2, 1] * row + h[..., 2, 2]).clamp(min=1e-3)
    jacobian = (h[..., :2, :2] - xy[..., :, None] * h[..., 2:, :2]) / depth[..., None, None]
    (a, b), (c, d) = (line.unbind(-1) for line in jacobian.unbind(-2))
    zoom = (a * d - b * c).abs().sqrt().clamp(min=1e-6)  # torch.linalg.det factorises each matrix
    rotation = torch.atan2(c - b, a + d)
    return xy, zoom, rotation


class WarpedViews:
    """An image and a synthetic warp of it: everything is known wherever both show the image.

    Args:
        images: for each scene its aligned images, uint8, shape (H, W).
        size: side of the views in pixels.
        steps: finest and coarsest resolution, in pixels of the image per pixel.
        scale: largest ratio of scale between the views.
        rotation: largest rotation between the views, degrees.
        photometric: how the illumination of the views is changed.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        size: int,
        steps: tuple[float, float] = (0.8, 3.0),
        scale: float = 1.414,
        rotation: float = 180.0,
        photometric: Photometric | None = None,
    ) -> None:
        crops = CropConfig(
            size=size,
            per_image=1,
            min_step=steps[0],
            max_step=steps[1],
            scale=scale,
            shift=size / 16,
            full_circle=1.0 if rotation > 20 else 0.0,
        )
        self.crops = WarpedCrops(images, crops, photometric)
        self.size = size

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        found = self.crops.draw(generator, count)
        views = {"first": found["first"], "second": found["second"]}
        for mine, other in (("first", "second"), ("second", "first")):
            # the homographies of the crops map from the second view to the first one, and back
            xy, zoom, rotation = homography_warp(found[f"to_{other}"], self.size)
            inside = land_inside(xy, self.size) & (sample_pixels(found[f"inside_{other}"], xy)[:, 0] > 0.999)
            views |= {
                f"to_{other}": xy,
                f"seen_{mine}": inside & (found[f"inside_{mine}"][:, 0] > 0),
                f"zoom_{mine}": zoom,
                f"rotation_{mine}": rotation,
            }
        return views


def augment_views(views: Views, photometric: Photometric, generator: Generator) -> Views:
    """Change the illumination of both views independently."""
    return {**views, **{name: augment(views[name], photometric, generator) for name in ("first", "second")}}


def land_inside(xy: Tensor, size: int) -> Tensor:
    """Say which positions (..., 2) lie inside a square view."""
    return is_inside(xy, (size, size))


def random_similarity(generator: Generator, scale: float, rotation: float) -> Tensor:
    """Draw a rotation up to ``rotation`` degrees and a log-uniform factor up to ``scale``, shape (2, 2)."""
    u = torch.rand(2, generator=generator) * 2 - 1
    factor, angle = scale ** float(u[0]), math.radians(rotation) * float(u[1])
    return factor * rotation_matrix(torch.tensor([angle]))[0]
