r"""LIFT frames and kornia's local affine frames (LAF), crops, rotations and softargmax in patch units.

Convention:
    A LIFT frame is ``(x, y, sigma, theta)``: pixel centres at integers, ``sigma`` the SIFT scale in pixels, ``theta``
    in radians, clockwise on screen (y down). A 64-pixel patch spans +-6 sigma with its first and last pixel *centres*
    on the ends. A kornia LAF of scale S has its pixel *cells* tile +-S, and angles run counter-clockwise. Hence

    - LAF scale = ``6 * 64/63 * sigma`` (:data:`LAF_SCALE_PER_SIGMA`),
    - kornia angle = ``-theta``.

"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale, laf_from_center_scale_ori
from torch import Tensor

DETECTOR_SIZE = 48  # side of the detector's training patch, pixels
DESCRIPTOR_SIZE = 64  # side of the patch for orientation and descriptor
BIG_SIZE = 128  # side of the training patch P
DETECTOR_HALF_SUPPORT = 12.0  # half side of P in units of sigma
DESCRIPTOR_HALF_SUPPORT = 6.0
LAF_SCALE_PER_SIGMA = DESCRIPTOR_HALF_SUPPORT * DESCRIPTOR_SIZE / (DESCRIPTOR_SIZE - 1)
CROP_RATIO = DESCRIPTOR_SIZE / BIG_SIZE  # of the 64-pixel patch inside P


def level_resize(sigma: float) -> float:
    """Return the resize factor at which a keypoint of scale ``sigma`` looks as in the 48-px training patch.

    Args:
        sigma: keypoint scale in pixels of the original image.

    Returns:
        ``((48 - 1) / 2) / (12 sigma) = 1.95833 / sigma``.

    """
    return (DETECTOR_SIZE - 1) / 2 / (DETECTOR_HALF_SUPPORT * sigma)


def lafs_from_lift(xy: Tensor, sigma: Tensor, theta: Tensor | None = None) -> Tensor:
    """Build LAFs from LIFT frames.

    Args:
        xy: positions in pixels, shape (B, N, 2).
        sigma: SIFT scales in pixels, shape (B, N).
        theta: LIFT angles in radians, clockwise on screen, shape (B, N); upright when ``None``.

    Returns:
        LAFs of shape (B, N, 2, 3) whose 64-pixel patch is LIFT's.

    """
    degrees = torch.zeros_like(sigma) if theta is None else -torch.rad2deg(theta)
    scale = LAF_SCALE_PER_SIGMA * sigma
    return laf_from_center_scale_ori(xy, scale[..., None, None], degrees[..., None])


def lift_from_lafs(lafs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (B, N, 2), SIFT scales (B, N) and LIFT angles (B, N) of LAFs; inverse of :func:`lafs_from_lift`.

    An affine frame is reduced to its scale (square root of the determinant) and to the direction of its x axis.
    """
    sigma = get_laf_scale(lafs)[..., 0, 0] / LAF_SCALE_PER_SIGMA
    return get_laf_center(lafs), sigma, -torch.deg2rad(get_laf_orientation(lafs)[..., 0])


def rotation_matrix(theta: Tensor) -> Tensor:
    """Return matrices (N, 2, 2) that rotate pixel coordinates clockwise on screen by ``theta`` (N,), radians."""
    cosine, sine = torch.cos(theta), torch.sin(theta)
    return torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)


def crop_rotate(
    patch: Tensor, xy: Tensor, theta: Tensor, size: int = DESCRIPTOR_SIZE, ratio: float = CROP_RATIO
) -> Tensor:
    """Cut a rotated region out of a patch: LIFT's Crop (``theta = 0``) and Rot layers.

    Args:
        patch: patches to sample, shape (B, C, S, S).
        xy: centre of the cut in patch units, -1 and +1 the first and last pixel centres, shape (B, 2).
        theta: LIFT angle in radians, clockwise on screen, shape (B,).
        size: side of the output in pixels.
        ratio: half side of the cut in patch units.

    Returns:
        The cut, shape (B, C, size, size); differentiable in all three tensors, replicated beyond the border.

    """
    cosine, sine = ratio * torch.cos(theta), ratio * torch.sin(theta)
    x, y = xy.unbind(1)
    affine = torch.stack([cosine, -sine, x, sine, cosine, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [len(patch), patch.shape[1], size, size], align_corners=True)
    return F.grid_sample(patch, grid, align_corners=True, padding_mode="border")


def softargmax_margin(map_size: int = DETECTOR_SIZE - 24) -> int:
    """Return how many pixels of a score map are cut on each side so that the rotated 64-px patch stays inside P.

    24x24 map of the 48-px patch: ``ceil(48/128 * sqrt(2) * 64/2) - 12 = 5``.
    """
    offset = (DETECTOR_SIZE - map_size) // 2
    required = DETECTOR_SIZE / BIG_SIZE * 2**0.5 * DESCRIPTOR_SIZE / 2
    return -int(-required // 1) - offset


def softargmax(score: Tensor, beta: float = 10.0) -> Tensor:
    """Return the soft location of the maximum of the central part of score maps (paper Sec. 3.1, Eq. 7).

    Args:
        score: score maps of 48-pixel patches, shape (B, 1, 24, 24).
        beta: sharpness; the paper's value is 10.

    Returns:
        Positions in units of the patch P, -1 and +1 its first and last pixel centres, shape (B, 2).

    """
    margin = softargmax_margin(score.shape[-1])
    inner = score[:, 0, margin : score.shape[-2] - margin, margin : score.shape[-1] - margin]
    side = inner.shape[-1]
    weight = F.softmax(beta * inner.flatten(1), dim=1).view(-1, side, side)
    index = torch.arange(side, device=score.device, dtype=score.dtype)
    xy = torch.stack([(weight.sum(1) * index).sum(1), (weight.sum(2) * index).sum(1)], dim=1)
    offset = margin + (DETECTOR_SIZE - score.shape[-1]) // 2
    return (xy + offset) / ((DETECTOR_SIZE - 1) / 2) - 1


def patch_score(score: Tensor, k: float = 10.0) -> Tensor:
    """Return the soft maximum of the central part of score maps, ``(1/k) log mean exp(k S)`` (paper Eq. 9).

    Args:
        score: score maps, shape (B, 1, 24, 24).
        k: sharpness.

    Returns:
        One number per patch, shape (B,).

    """
    margin = softargmax_margin(score.shape[-1])
    inner = score[:, 0, margin : score.shape[-2] - margin, margin : score.shape[-1] - margin].flatten(1)
    return (torch.logsumexp(k * inner, dim=1) - torch.log(torch.tensor(float(inner.shape[1])))) / k
