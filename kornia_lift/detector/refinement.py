"""Sub-pixel position, scale and score of maxima: quadratics through the scores around them (Lowe 2004, Sec. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import OWN
from kornia_lift.detector.sampling import LevelMaps, Sampling
from kornia_lift.detector.scale_space import ScaleSpaceConfig

MAX_STEP = 1.5  # a Newton step that is longer, in pixels or levels, is not trusted, as in LIFT's release
MAX_SCALE_STEP = 1.0  # levels: beyond the neighbouring level the parabola through three levels extrapolates


def _derivatives(around: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradient (M, D) and Hessian (M, D, D) in (x, y[, scale]) by central differences."""
    v = around.unbind(1)
    dx, dy = (v[5] - v[3]) / 2, (v[7] - v[1]) / 2
    dxx, dyy = v[5] + v[3] - 2 * v[4], v[7] + v[1] - 2 * v[4]
    dxy = (v[8] - v[6] - v[2] + v[0]) / 4
    if len(v) == len(OWN):
        return torch.stack([dx, dy], 1), torch.stack([dxx, dxy, dxy, dyy], 1).view(-1, 2, 2)
    fine, coarse = v[9:14], v[14:19]
    ds, dss = (coarse[0] - fine[0]) / 2, coarse[0] + fine[0] - 2 * v[4]
    dxs = (coarse[2] - coarse[1] - fine[2] + fine[1]) / 4
    dys = (coarse[4] - coarse[3] - fine[4] + fine[3]) / 4
    hessian = torch.stack([dxx, dxy, dxs, dxy, dyy, dys, dxs, dys, dss], 1).view(-1, 3, 3)
    return torch.stack([dx, dy, ds], 1), hessian


def is_peak(around: Tensor, floor: Tensor) -> Tensor:
    """Return where the score curves down in all directions by more than ``floor``, shape (M,).

    Rounding errors create maxima of a flat score, and along a ridge of equal scores.
    """
    _, hessian = _derivatives(around[:, : len(OWN)])
    mean = (hessian[:, 0, 0] + hessian[:, 1, 1]) / 2
    half = (((hessian[:, 0, 0] - hessian[:, 1, 1]) / 2).square() + hessian[:, 0, 1].square()).sqrt()
    return mean + half < -floor


def is_blob(around: Tensor, edge_threshold: float) -> Tensor:
    """Return where the ratio of the principal curvatures is below ``edge_threshold`` (Lowe 2004, Sec. 4.1); (M,)."""
    _, hessian = _derivatives(around[:, : len(OWN)])
    trace = hessian[:, 0, 0] + hessian[:, 1, 1]
    edge = trace**2 / (hessian[:, 0, 0] * hessian[:, 1, 1] - hessian[:, 0, 1].square())
    return (edge >= 0) & (edge < (edge_threshold + 1) ** 2 / edge_threshold)


def newton_step(around: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a quadratic and step to its extremum.

    Args:
        around: from :func:`~kornia_lift.detector.extrema.read_own`, shape (M, 9), or
            :func:`~kornia_lift.detector.extrema.read_neighbourhood`, shape (M, 19).

    Returns:
        The step in (x, y, scale), pixels and levels, shape (M, 3), zero in scale when no other level was read; and
        the fitted score there, shape (M,). Both are differentiable; not finite where the Hessian is singular.

    """
    gradient, hessian = _derivatives(around)
    step = _solve(hessian, -gradient)
    value = around[:, 4] + (gradient * step).sum(1) / 2
    return F.pad(step, (0, 3 - step.shape[1])), value


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric systems (M, D, D) of two or three unknowns by Cramer's rule; shape (M, D)."""
    if matrix.shape[-1] == 2:
        (a, b), (_, d) = (row.unbind(1) for row in matrix.unbind(1))
        x, y = right.unbind(1)
        return torch.stack([d * x - b * y, a * y - b * x], 1) / (a * d - b * b)[:, None]
    one, two, three = matrix.unbind(1)
    cofactors = torch.stack([torch.linalg.cross(*pair) for pair in ((two, three), (three, one), (one, two))], 1)
    return (cofactors * right[:, :, None]).sum(1) / (one * cofactors[:, 0]).sum(1, keepdim=True)


def is_trusted(around: Tensor, floor: Tensor | None, config: ScaleSpaceConfig) -> Tensor:
    """Return which candidates pass the tests for rounding errors, for edges, and for the length of the Newton step.

    Args:
        around: see :func:`newton_step`.
        floor: curvature that rounding errors reach, shape (M,); ``None`` where every maximum counts.
        config: defines which tests apply.

    Returns:
        Booleans (M,). The choice carries no gradient.

    """
    around = around.detach()
    keep = around.isfinite().all(1)
    if floor is not None:
        keep = keep & is_peak(around, floor)
    if config.edge_threshold is not None:
        keep = keep & is_blob(around, config.edge_threshold)
    if config.subpixel:
        keep = keep & (newton_step(around)[0].abs() < MAX_STEP).all(1)
    return keep


def refine(around: Tensor, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor]:
    """Return steps (M, 3) in (x, y, scale) and scores (M,) of candidates that :func:`is_trusted` trusts."""
    if config.subpixel:
        return newton_step(around)
    return around.new_zeros(len(around), 3), around[:, 4]


def make_safe(around: Tensor, keep: Tensor) -> Tensor:
    """Give candidates that are not kept the scores of a bowl: their own steps may be infinite, in the gradient too."""
    bowl = around.new_tensor([-1.0, -0.5, -1.0, -0.5, 0.0, -0.5, -1.0, -0.5, -1.0])
    if around.shape[1] > len(OWN):
        bowl = torch.cat([bowl, around.new_tensor([-0.5, -1.0, -1.0, -1.0, -1.0]).repeat(2)])
    return torch.where(keep[:, None], around, bowl)


def scale_step(scores: LevelMaps, level: Tensor, image: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
    """Interpolate the scale of keypoints: where a parabola through three levels has its maximum.

    The scores of the level and of its two neighbours are read at the location of the keypoint.

    Args:
        scores: score maps of all levels, finest first.
        level: of the keypoints, shape (M,).
        image: index of the image, shape (M,).
        position: x, y in pixels of the level, shape (M, 2).
        sampling: maps positions to the other levels.

    Returns:
        The step in levels, shape (M,), differentiable in scores and location; 0 where the scores have no maximum over
        scale close to the level: at the ends of the scale space, and where a neighbour was not scored.

    """
    inner = (level > 0) & (level < len(scores) - 1)

    def read(keep: Tensor) -> list[Tensor]:
        others = (torch.where(inner, level + step, level) for step in (-1, 0, 1))
        return [_read(scores, level, other, image, position, sampling, keep) for other in others]

    with torch.no_grad():
        fine, own, coarse = read(inner)
        step = _parabola(fine, own, coarse)
        keep = inner & (step.abs() <= MAX_SCALE_STEP) & (fine + coarse < 2 * own)
        step = torch.where(keep, step, torch.zeros_like(step))
    if not torch.is_grad_enabled():
        return step
    # those without a maximum must not enter the graph, their parabola may be degenerate: they get one with step 0
    fine, own, coarse = read(keep)
    return _parabola(fine, own + (~keep).to(own), coarse)


def _parabola(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    return (before - after) / (2 * (before + after - 2 * middle))


def _read(
    scores: LevelMaps, level: Tensor, other: Tensor, image: Tensor, position: Tensor, sampling: Sampling, keep: Tensor
) -> Tensor:
    """Read other levels at positions (M, 2) of their own: the quadratic around the nearest pixel, shape (M,).

    Positions that are not kept (M,) read 0.
    """
    (rows, cols), (height, width) = scores.sizes(level), scores.sizes(other)
    x, y = sampling.to_other_level(position[:, 0], cols, width), sampling.to_other_level(position[:, 1], rows, height)
    # this moves nothing: keypoints keep away from the border, and a level has more than 25 pixels
    col, row = (
        torch.minimum(at.detach().round().long().clamp(min=1), size - 2) for at, size in ((x, width), (y, height))
    )
    around = scores.read_own(other, image, row, col)
    around = torch.where(keep[:, None], around, torch.zeros_like(around))
    gradient, hessian = _derivatives(around)
    offset = torch.stack([x - col, y - row], 1).to(around.dtype)
    return around[:, 4] + (gradient * offset).sum(1) + torch.einsum("mi,mij,mj->m", offset, hessian, offset) / 2
