r"""The weighted eight-point algorithm, differentiable, and matches in normalised coordinates.

Kornia's ``run_8point`` estimates fundamental matrices: it normalises the points by Hartley's transform and projects the
result to rank 2, in the precision of the points. What the training of a correspondence network needs differs in all
three: coordinates that the intrinsics have normalised already, the eigenvector itself (paper Sec. 3.3), and float64,
since :math:`X^T \mathrm{diag}(w) X` squares the condition number.

Convention:
    A match is a row :math:`(x_1, y_1, x_2, y_2)`, image 1 first. The essential matrix satisfies
    :math:`(x_2, y_2, 1)\, E\, (x_1, y_1, 1)^T = 0`, :math:`E = [t]_\times R` for :math:`X_2 = R X_1 + t`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from kornia.geometry.epipolar import find_fundamental, sampson_epipolar_distance
from torch import Tensor
from torch.autograd.function import once_differentiable

from kornia_lift._kornia import ShapeError

MIN_MATCHES = 8
UNDETERMINED = 1e-12  # gap of the two smallest eigenvalues over the largest: below, rounding decides the vector
STARTS, ANNEALING = (1.0, 0.5, 0.2), 1.4  # shares of the matches to start from, divisor of the scale per step
MAX_NORMALISED = 20.0  # a ray 87 degrees off the optical axis; no pixel of an image lies so near its corner


class EightPoint(NamedTuple):
    """Result of the weighted eight-point algorithm.

    Attributes:
        essential: E of unit norm, its entry of largest magnitude positive; zero where the matches do not determine
            it. Shape (B, 3, 3).
        gap: difference of the two smallest eigenvalues, divided by the largest one, shape (B,): how well E is
            determined. The gradient grows with its inverse. 0 where there are fewer than 8 matches.
    """

    essential: Tensor
    gap: Tensor


class _SmallestEigenvector(torch.autograd.Function):
    r"""Unit eigenvector of the smallest eigenvalue of symmetric matrices (B, n, n).

    .. math:: dv_0 = \sum_{k > 0} \frac{v_k^T \, dA \, v_0}{\lambda_0 - \lambda_k} v_k

    ``torch.linalg.eigh`` divides by the gaps of all pairs of eigenvalues and gives NaN where two of the others are
    equal, although :math:`v_0` is smooth there.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        gap = (values[:, 1] - values[:, 0]) / values[:, -1].clamp(min=torch.finfo(values.dtype).tiny)
        determined = gap > UNDETERMINED
        # eigenvectors have no sign: rounding, hence the order of the matches, must not choose one
        largest = vectors[:, :, 0].gather(1, vectors[:, :, 0].abs().argmax(1, keepdim=True))
        vectors = vectors * torch.where(largest < 0, -1.0, 1.0)[..., None]
        ctx.save_for_backward(values, vectors, determined)
        ctx.mark_non_differentiable(gap)
        return torch.where(determined[:, None], vectors[:, :, 0], 0.0), gap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        values, vectors, determined = ctx.saved_tensors
        distance = torch.where(determined[:, None], values[:, :1] - values[:, 1:], 1.0)
        share = torch.where(determined[:, None], (grad[:, None] @ vectors[:, :, 1:])[:, 0] / distance, 0.0)
        outer = (vectors[:, :, 1:] @ share[..., None]) @ vectors[:, :, :1].mT
        return (outer + outer.mT) / 2


def epipolar_rows(matches: Tensor) -> Tensor:
    r"""Return the rows :math:`(x_2 x_1, x_2 y_1, x_2, y_2 x_1, y_2 y_1, y_2, x_1, y_1, 1)` of the linear system.

    Shape:
        - Input: (B, N, 4)
        - Output: (B, N, 9)

    """
    first, second = (torch.cat([p, torch.ones_like(p[..., :1])], -1) for p in matches.split(2, -1))
    return (second[..., :, None] * first[..., None, :]).flatten(-2)


def weighted_eight_point(matches: Tensor, weights: Tensor) -> EightPoint:
    r"""Estimate essential matrices from weighted matches (paper Sec. 3.3).

    E is the eigenvector of the smallest eigenvalue of :math:`X^T \mathrm{diag}(w) X`, computed in float64. Its singular
    values are not made (1, 1, 0): ``kornia.geometry.epipolar.project_to_essential`` does.

    Args:
        matches: normalised coordinates, shape (B, N, 4).
        weights: not negative; 0 leaves a match out. Shape (B, N).

    Returns:
        Essential matrices in the dtype of ``matches``. Zero, with zero gradient, where fewer than 8 weights are
        positive or the matches do not determine E: all on a line or a plane, or of a pure rotation, without noise. With
        noise degenerate matches give some E; its ``gap`` is small.

    """
    rows = epipolar_rows(matches.double())
    positive = weights.double()
    # a common factor of the weights does not change the matrix, but the product of tiny ones would underflow
    positive = positive / positive.detach().amax(1, keepdim=True).clamp(min=1e-30) if weights.shape[1] else positive
    enough = (weights > 0).sum(1) >= MIN_MATCHES
    matrix = rows.mT @ (rows * positive[..., None])
    vector, gap = _SmallestEigenvector.apply(torch.where(enough[:, None, None], matrix, 0.0))
    return EightPoint(vector.unflatten(1, (3, 3)).to(matches.dtype), torch.where(enough, gap, 0.0))


def check_matches(matches: Tensor, mask: Tensor | None, who: str) -> None:
    """Raise unless ``matches`` is a finite floating-point tensor (B, N, 4) and ``mask`` a boolean one (B, N).

    Raises:
        TypeError: if matches are not floating point, or the mask is not boolean.
        kornia.core.exceptions.ShapeError: if a shape differs.
        ValueError: if a match that the mask keeps is NaN or infinite.

    """
    if not isinstance(matches, Tensor) or not matches.is_floating_point():
        got = matches.dtype if isinstance(matches, Tensor) else type(matches).__name__
        raise TypeError(f"{who} expects matches as a floating-point tensor (B, N, 4), got {got}")
    if matches.dim() != 3 or matches.shape[-1] != 4:
        hint = "; add the batch dimension with `matches[None]`" if matches.dim() == 2 else ""
        raise ShapeError(f"{who} expects matches (B, N, 4) as (x1, y1, x2, y2), got {tuple(matches.shape)}{hint}")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"{who} expects the mask as a boolean tensor, True for matches and False for padding")
        if mask.shape != matches.shape[:2]:
            raise ShapeError(f"{who} expects a mask {tuple(matches.shape[:2])}, got {tuple(mask.shape)}")
    if not torch.compiler.is_compiling():
        kept = matches if mask is None else matches[mask]
        if not bool(kept.detach().isfinite().all()):
            raise ValueError(
                f"{who} expects finite matches, got NaN or infinity; exclude padding and failed matches by the mask"
            )


def check_intrinsics(intrinsics: tuple[Tensor, Tensor], batch: int) -> None:
    """Check the matrices K of two cameras.

    Args:
        intrinsics: K of the first and of the second images, each (3, 3) or (B, 3, 3).
        batch: number of pairs of images.

    Raises:
        TypeError: if they are not two tensors.
        kornia.core.exceptions.ShapeError: if one has another shape.
        ValueError: if values are not finite, or focal lengths are not positive.

    """
    if isinstance(intrinsics, Tensor) or len(intrinsics) != 2 or not all(isinstance(k, Tensor) for k in intrinsics):
        raise TypeError("intrinsics expects two tensors (K1, K2), the matrices of the first and the second images")
    for k in intrinsics:
        if k.shape[-2:] != (3, 3) or k.dim() > 3 or (k.dim() == 3 and len(k) not in (1, batch)):
            raise ShapeError(f"intrinsics expects K of shape (3, 3) or ({batch}, 3, 3), got {tuple(k.shape)}")
        focal = k[..., (0, 1), (0, 1)]
        if not torch.compiler.is_compiling() and not bool(k.isfinite().all() and (focal > 0).all()):
            raise ValueError(f"intrinsics expects finite K with positive focal lengths, got {k.tolist()}")


def normalise_matches(matches: Tensor, intrinsics: tuple[Tensor, Tensor]) -> Tensor:
    r"""Convert matches from pixels to normalised coordinates :math:`K^{-1} (u, v, 1)^T`.

    Args:
        matches: pixels, shape (B, N, 4).
        intrinsics: K of the first and of the second images, each (3, 3) or (B, 3, 3).

    Raises:
        kornia.core.exceptions.ShapeError: if an intrinsic matrix has another shape.
        ValueError: see :func:`check_intrinsics`.

    """
    check_intrinsics(intrinsics, len(matches))
    parts = []
    for points, k in zip(matches.split(2, -1), intrinsics, strict=True):
        homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1)
        rays = homogeneous @ torch.linalg.inv(k.to(matches.device, torch.float64)).mT.to(matches.dtype)
        parts.append(rays[..., :2] / rays[..., 2:])
    return torch.cat(parts, -1)


def assumed_intrinsics(size: tuple[int, int]) -> Tensor:
    """Return K of an image whose camera is unknown: focal length the longer side, principal point in the centre.

    Args:
        size: width and height in pixels.

    Returns:
        K, float64, shape (3, 3). Results that depend on it can rank matches, but are not calibrated poses.

    Raises:
        ValueError: if the size is not positive and finite.

    """
    width, height = size
    if not 0 < min(size) <= max(size) < math.inf:
        raise ValueError(f"assumed_intrinsics expects a positive width and height, got {size}")
    focal = float(max(width, height))
    k = [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]
    return torch.tensor(k, dtype=torch.float64)


def robust_essential(matches: Tensor, weights: Tensor, *, tolerance: float = 1e-3, iterations: int = 15) -> Tensor:
    r"""Estimate the essential matrix of one set of matches by reweighted least squares, without random samples.

    It starts from the eight-point algorithm, on points normalised by Hartley's transform, of the matches of highest
    weight, and reweights all of them by

    .. math:: v_i = w_i / (1 + d_i / s^2)^2

    (Geman and McClure) with the squared Sampson distance d. The scale s falls from the median distance to the
    tolerance. Of several starts, with more or fewer matches, the one with most weight within the tolerance counts.

    Unlike :func:`weighted_eight_point`, whose eigenvector training needs, it withstands some outliers that have weight,
    and its singular values are made (1, 1, 0). No gradient is recorded.

    Args:
        matches: normalised coordinates, shape (N, 4).
        weights: not negative; 0 leaves a match out. Shape (N,).
        tolerance: largest distance of an inlier in normalised coordinates: pixels divided by the focal length.
        iterations: reweightings of each start.

    Returns:
        E of unit norm, float64, shape (3, 3); zero where fewer than 8 weights are positive or E is not determined.

    """
    kept = weights > 0
    best = torch.zeros(3, 3, dtype=torch.float64, device=matches.device)
    if int(kept.sum()) < MIN_MATCHES:
        return best
    points, base = matches[kept].detach().double(), weights[kept].detach().double()
    if not bool(weighted_eight_point(points[None], torch.ones_like(base)[None]).gap[0] > UNDETERMINED):
        return best
    order = base.argsort(descending=True, stable=True)
    most = 0.0
    for share in STARTS:
        count = min(max(int(share * len(base)), 2 * MIN_MATCHES), len(base))
        start = torch.zeros_like(base)
        start[order[:count]] = base[order[:count]]
        found = _reweighted_essential(points, base, start, tolerance, iterations)
        if found is None:
            continue
        distance = sampson_epipolar_distance(points[None, :, :2], points[None, :, 2:], found[None])[0]
        support = float((base / (1 + distance / tolerance**2)).sum())
        if support > most:
            best, most = found, support
    return best


def _reweighted_essential(
    points: Tensor, base: Tensor, start: Tensor, tolerance: float, iterations: int
) -> Tensor | None:
    """Run one start of :func:`robust_essential`; ``None`` if it breaks down."""
    first, second = points[None, :, :2], points[None, :, 2:]
    current, scale, essential = start, 0.0, None
    for _ in range(iterations + 1):
        found = find_fundamental(first, second, current[None])
        if not bool(found.isfinite().all()):
            return essential
        essential = _nearest_essential(found[0])
        distance = sampson_epipolar_distance(first, second, essential[None])[0]
        scale = max(scale / ANNEALING if scale else float(distance.median().sqrt()), tolerance)
        current = base / (1 + distance / scale**2).square()
    return essential


def _nearest_essential(matrix: Tensor) -> Tensor:
    """Return the nearest matrix (3, 3) of singular values (1, 1, 0), of unit norm."""
    u, _, v = torch.linalg.svd(matrix)
    e = u @ torch.diag(matrix.new_tensor([1.0, 1.0, 0.0])) @ v
    return e / e.norm()
