"""Sub-pixel position, scale and score of maxima: quadratics through the scores around them (Lowe 2004, Sec. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import OWN, Pixels, read_own
from kornia_lift.detector.sampling import Sampling
from kornia_lift.detector.scale_space import ScaleSpaceConfig

MAX_STEP = 1.5  # a Newton step that is longer, in pixels or levels, is not trusted, as in LIFT's release
MAX_SCALE_STEP = 1.0  # levels: beyond the neighbouring level the parabola through three levels extrapolates


def _derivatives(around: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (M, D) and Hessian (M, D, D) in (x, y[, scale]) by central differences."""
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
    """Say where the score curves down in all directions by more than ``floor``, shape (M,).

    Rounding errors make maxima where there are none: of a flat score, and along a ridge of equal scores.
    """
    _, hessian = _derivatives(around[:, : len(OWN)])
    mean = (hessian[:, 0, 0] + hessian[:, 1, 1]) / 2
    half = torch.hypot((hessian[:, 0, 0] - hessian[:, 1, 1]) / 2, hessian[:, 0, 1])
    return mean + half < -floor


def is_blob(around: Tensor, edge_threshold: float) -> Tensor:
    """Say where the ratio of the score's principal curvatures is below ``edge_threshold`` (Lowe 2004, Sec. 4.1)."""
    _, hessian = _derivatives(around[:, : len(OWN)])
    trace = hessian[:, 0, 0] + hessian[:, 1, 1]
    edge = trace**2 / torch.linalg.det(hessian)
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
    step, _ = torch.linalg.solve_ex(hessian, -gradient)
    value = around[:, 4] + (gradient * step).sum(1) / 2
    return F.pad(step, (0, 3 - step.shape[1])), value


def refine(around: Tensor, floor: Tensor | None, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Test the candidates for edges, refine them, and drop those whose step is not trusted.

    Args:
        around: see :func:`newton_step`.
        floor: curvature that rounding errors reach, shape (M,); ``None`` where every maximum counts.
        config: says which tests apply.

    Returns:
        Indices of the K kept candidates (K,), steps (K, 3) in (x, y, scale), and scores (K,).

    """
    # the choice carries no gradient; candidates that fail must not enter the graph, their steps may be infinite
    with torch.no_grad():
        keep = around.isfinite().all(1)
        if floor is not None:
            keep &= is_peak(around, floor)
        if config.edge_threshold is not None:
            keep &= is_blob(around, config.edge_threshold)
        if config.subpixel:
            keep &= (newton_step(around)[0].abs() < MAX_STEP).all(1)
        index = keep.nonzero()[:, 0]
    around = around[index]
    if config.subpixel:
        step, value = newton_step(around)
        return index, step, value
    return index, around.new_zeros(len(index), 3), around[:, 4]


def scale_step(scores: list[Tensor], i: int, image: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
    """Interpolate the scale of keypoints of level ``i``: where a parabola through three levels has its maximum.

    The scores of the level and of its two neighbours are read at the location of the keypoint.

    Args:
        scores: score maps of all levels, finest first, each (B, h, w).
        i: level of the keypoints.
        image: index of the image, shape (M,).
        position: x, y in pixels of the level, shape (M, 2).
        sampling: where that is on the other levels.

    Returns:
        The step in levels, shape (M,), differentiable in scores and location; 0 where the scores have no maximum over
        scale close to the level: at the ends of the scale space, and where a neighbour was not scored.

    """
    step = position.new_zeros(len(position))
    if not 0 < i < len(scores) - 1:
        return step
    size = scores[i].shape[-2:]
    with torch.no_grad():
        fine, own, coarse = (_read(scores[j], image, position, size, sampling) for j in (i - 1, i, i + 1))
        found = _parabola(fine, own, coarse)
        keep = (found.abs() <= MAX_SCALE_STEP) & (fine + coarse < 2 * own)
    if not torch.is_grad_enabled():
        return torch.where(keep, found, step)
    # those without a maximum must not enter the graph, their parabola may be degenerate
    index = keep.nonzero()[:, 0]
    image, position = image[index], position[index]
    return step.index_put(
        (index,), _parabola(*(_read(scores[j], image, position, size, sampling) for j in (i - 1, i, i + 1)))
    )


def _parabola(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    return (before - after) / (2 * (before + after - 2 * middle))


def _read(score: Tensor, image: Tensor, position: Tensor, size: torch.Size, sampling: Sampling) -> Tensor:
    """Read a level at positions (M, 2) of a level of ``size``: the quadratic around the nearest pixel, shape (M,)."""
    (height, width), (x, y) = score.shape[-2:], position.unbind(1)
    x, y = sampling.to_other_level(x, size[1], width), sampling.to_other_level(y, size[0], height)
    # no keypoint is so close to the border, and a level has more than 25 pixels
    col, row = x.detach().round().long().clamp(1, width - 2), y.detach().round().long().clamp(1, height - 2)
    around = read_own(score, Pixels(image, row, col))
    gradient, hessian = _derivatives(around)
    offset = torch.stack([x - col, y - row], 1).to(around.dtype)
    return around[:, 4] + (gradient * offset).sum(1) + torch.einsum("mi,mij,mj->m", offset, hessian, offset) / 2
