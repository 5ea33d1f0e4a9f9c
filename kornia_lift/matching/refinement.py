"""MatchRefiner: positions of matches that agree to fractions of a pixel. It is not part of the LIFT paper.

A detector finds a keypoint in each image by itself, and its errors of both images add up. Once two keypoints are
matched, their patches say where in the second image the keypoint of the first one lies: adaptive least squares
correlation (Gruen, South African Journal of Photogrammetry 14, 1985), with the inverse compositional step of Baker and
Matthews (IJCV 2004).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from kornia.feature import get_laf_scale, scale_laf
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_lift._checks import check_image
from kornia_lift._gray import as_gray
from kornia_lift._kornia import ShapeError, laf_is_filled
from kornia_lift.features import Features
from kornia_lift.geometry.pyramid import PatchPyramid

CHUNK = 1024  # matches that are refined at once: their derivatives take 30 MB
WINDOW = 0.5  # deviation of the Gaussian weights of the samples, in half sides of the region
DAMPING = 1e-2  # of the six parameters, relative to the best determined one: little moves along straight edges
SHARPNESS = 0.25  # variance of the blur of an image, in squares of its pixels
MOST_STRETCH = 4.0  # largest ratio of the axes, and of the areas, by which a frame may change
FLAT = 1e-4  # contrast of patches without texture, of gray values in [0, 1]


class MatchRefiner(nn.Module):
    r"""Move the second keypoint of each match to where it shows the first one.

    Both patches are brought to the sharpness of the coarser one and normalised by their mean and deviation; six
    parameters of an affine map between them, contrast and brightness minimise the squared differences, weighted by a
    Gaussian, in steps of Gauss and Newton.

    Args:
        region: side of the compared region, relative to that of the frames.
        size: side of the compared patches in samples.
        steps: number of steps.
        similarity: smallest correlation of the patches at which a match is moved.
        reach: largest distance by which a match is moved, in half sides of the second frame.

    Shape:
        - Input: images (B, 1, H, W), values in [0, 1], or their :class:`~kornia_lift.geometry.pyramid.PatchPyramid`;
          LAFs (B, N, 2, 3) of the first image and, of the same length, of the second one: slots k of both are a match
        - Output: LAFs (B, N, 2, 3) of the second image, and correlations (B, N) from -1 to 1

    Raises:
        kornia.core.exceptions.ShapeError: if the LAFs are not of equal numbers, or not one row for each image.
        ValueError: if an argument is out of range.

    Convention:
        LAFs as those of the detector, 12 sigma wide (:mod:`kornia_lift.geometry`); for frames that are wider by a
        factor, as those of a ``LocalFeature`` with a ``scaling_coef``, divide ``region`` and ``reach`` by it. A frame
        that was moved covers what the first one covers, so it also has an affine shape. A frame stays as it is where
        the patches agree too little, only far from the match or only strongly distorted, or where a compared region
        leaves its image; the correlation is always that of the frame that is returned. Empty slots stay empty, with
        correlation 0.

    Example:
        >>> from kornia.feature import laf_from_center_scale_ori
        >>> image = torch.rand(1, 1, 64, 64)
        >>> lafs = laf_from_center_scale_ori(torch.tensor([[[32.0, 32.0]]]), torch.full((1, 1, 1, 1), 12.0))
        >>> moved, similarity = MatchRefiner()(image, image, lafs, lafs)
        >>> moved.shape, similarity.shape
        (torch.Size([1, 1, 2, 3]), torch.Size([1, 1]))

    """

    def __init__(
        self,
        region: float = 0.6,
        size: int = 16,
        steps: int = 8,
        similarity: float = 0.6,
        reach: float = 0.3,
    ) -> None:
        super().__init__()
        for name, value in (("region", region), ("reach", reach)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} expects a factor above 0, got {value!r}")
        for name, count, least in (("size", size, 4), ("steps", steps, 1)):
            if count < least:
                raise ValueError(f"{name} expects at least {least}, got {count!r}")
        if not -1 <= similarity <= 1:
            raise ValueError(f"similarity expects a correlation from -1 to 1, got {similarity!r}")
        self.region, self.size, self.steps = region, size, steps
        self.similarity, self.reach = similarity, reach

    def extra_repr(self) -> str:
        return (
            f"region={self.region}, size={self.size}, steps={self.steps}, similarity={self.similarity}, "
            f"reach={self.reach}"
        )

    def forward(
        self, first: Tensor | PatchPyramid, second: Tensor | PatchPyramid, lafs: Tensor, lafs_second: Tensor
    ) -> tuple[Tensor, Tensor]:
        if lafs.shape != lafs_second.shape or lafs.dim() != 4 or lafs.shape[2:] != (2, 3):
            raise ShapeError(
                "MatchRefiner expects LAFs (B, N, 2, 3) of the matched keypoints of both images, slot by slot; got "
                f"{tuple(lafs.shape)} and {tuple(lafs_second.shape)}"
            )
        views = [_pyramid(image) for image in (first, second)]
        for view, side in zip(views, ("first", "second"), strict=True):
            if len(view) != len(lafs):
                raise ShapeError(
                    f"MatchRefiner expects a row of LAFs for each image, got {len(lafs)} for {len(view)} {side} images"
                )
        if not len(lafs):
            return lafs_second, lafs_second[..., 0, 0]
        moved = [
            self._refine(views[0], views[1], one, two)
            for one, two in zip(lafs.split(CHUNK, dim=1), lafs_second.split(CHUNK, dim=1), strict=True)
        ]
        return torch.cat([part[0] for part in moved], 1), torch.cat([part[1] for part in moved], 1)

    def _refine(self, first: PatchPyramid, second: PatchPyramid, lafs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(start.dtype, torch.float32)
        seen, frames = (scale_laf(each.to(wide), self.region) for each in (lafs, start))
        at, weight = _samples(self.size, frames)
        blurs = self._blurs(seen, frames)

        def cut(view: PatchPyramid, regions: Tensor, blur: Tensor) -> Tensor:
            patch = blur @ view.cut(regions, self.size)[:, :, 0].to(wide) @ blur.mT
            return _normalise(patch.flatten(2), weight)

        template = cut(first, seen, blurs[0])
        slopes = _slopes(template.unflatten(2, (self.size, self.size))).flatten(2, 3)
        # derivatives with respect to the six parameters, contrast and brightness
        along = (slopes[..., :, None] * torch.cat([at, torch.ones_like(at[:, :1])], 1)[:, None]).flatten(3)
        derivatives = torch.cat([along, template[..., None], torch.ones_like(template)[..., None]], 3)
        weighted = derivatives * weight[:, None]
        normal = weighted.mT @ derivatives
        diagonal = normal.diagonal(dim1=2, dim2=3)
        damping = torch.cat([diagonal[..., :6].amax(2, keepdim=True).expand(-1, -1, 6), diagonal[..., 6:]], 2)
        factor, _ = torch.linalg.cholesky_ex(normal + torch.diag_embed(DAMPING * damping + 1e-9))
        unmoved = torch.eye(2, 3, dtype=wide, device=start.device).expand_as(frames)
        found, best, most = unmoved, unmoved, torch.full_like(frames[..., 0, 0], -math.inf)
        before = most
        for step in range(self.steps + 1):
            patch = cut(second, _compose(frames, found), blurs[1])
            similarity = (patch * template * weight).sum(2).nan_to_num(0).clamp(-1, 1)
            before = similarity if step == 0 else before
            better = similarity > most
            best, most = torch.where(better[..., None, None], found, best), torch.where(better, similarity, most)
            if step == self.steps:
                break
            gradient = weighted.mT @ (patch - template)[..., None]
            change = torch.cholesky_solve(gradient, factor)[..., :6, 0].unflatten(2, (2, 3))
            found = _compose(found, _inverse(unmoved + change))
            lost = ~found.isfinite().all(3).all(2) | (found[..., 2].norm(dim=2) > 1)  # outside the region
            found = torch.where(lost[..., None, None], unmoved, found)
        moved = scale_laf(_compose(frames, best), 1 / self.region).to(start.dtype)
        good = (most >= self.similarity) & (self.region * best[..., 2].norm(dim=2) <= self.reach) & _plausible(best)
        good &= first.holds(seen) & second.holds(frames)
        filled = laf_is_filled(lafs) & laf_is_filled(start)
        result = torch.where((good & filled)[..., None, None], moved, start)
        return result, torch.where(filled, torch.where(good, most, before), 0).to(start.dtype)

    def _blurs(self, seen: Tensor, frames: Tensor) -> list[Tensor]:
        """Return matrices (B, N, S, S) that blur the rows of either patch to the sharpness of the coarser one."""
        spread = []
        for each in (seen, frames):
            pixels = (2 / self.size) * get_laf_scale(each)[..., 0, 0].clamp(min=1e-6)  # between two samples
            pixels = pixels * torch.exp2(-pixels.log2().floor().clamp(min=0))  # of the level that is cut from
            spread.append(SHARPNESS / pixels.square())
        coarser = torch.maximum(*spread)
        along = torch.arange(self.size, dtype=seen.dtype, device=seen.device)
        squares = (along[:, None] - along).square()
        blurs = []
        for each in spread:
            variance = (coarser - each).clamp(min=1e-3)[..., None, None]
            kernel = torch.exp(-squares / (2 * variance))
            blurs.append(kernel / kernel.sum(3, keepdim=True))
        return blurs


@torch.inference_mode()
def refined_positions(
    images: tuple[Tensor, Tensor], features: tuple[Features, Features], pairs: NDArray[np.integer]
) -> NDArray[np.float64] | None:
    """Return where the second image shows the first keypoint of each match.

    Args:
        images: gray or RGB, shape (1, 1 or 3, H, W), values in [0, 1], in the pixels of the features.
        features: of the first and of the second image.
        pairs: indices of the matches, shape (M, 2).

    Returns:
        Positions in the second image, shape (M, 2); ``None`` where features have no scales.

    Raises:
        ValueError: if an image has not the size of its features.

    """
    for image, each in zip(images, features, strict=True):
        size = image.shape[-1], image.shape[-2]
        if each.image_size not in (None, size):
            raise ValueError(
                f"the features are of an image of {each.image_size} pixels, got an image of {size} to refine in"
            )
    first, second = features
    if first.scales is None or second.scales is None:
        return None
    index = torch.from_numpy(np.ascontiguousarray(pairs, dtype=np.int64)).T
    found = second.keypoints[index[1].numpy()]
    if not len(found):
        return found
    lafs = [each.lafs[k][None] for each, k in zip(features, index, strict=True)]
    views = [as_gray(image).float() for image in images]
    moved, _ = MatchRefiner()(views[0], views[1], *(laf.to(view.device) for laf, view in zip(lafs, views, strict=True)))
    shift = moved[0, :, :, 2].cpu() - lafs[1][0, :, :, 2]
    return found + shift.double().numpy()


def _pyramid(image: Tensor | PatchPyramid) -> PatchPyramid:
    if isinstance(image, PatchPyramid):
        return image
    check_image(image, "MatchRefiner", channels=(1,))
    return PatchPyramid(image)


def _samples(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the samples of a patch in its frame, (S^2, 2), and their weights, (S^2,), of sum 1."""
    along = (torch.arange(size, dtype=like.dtype, device=like.device) * 2 + 1) / size - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    at = torch.stack([x, y], -1).view(-1, 2)
    weight = torch.exp(-at.square().sum(1) / (2 * WINDOW**2))
    return at, weight / weight.sum()


def _normalise(patch: Tensor, weight: Tensor) -> Tensor:
    """Give patches (B, N, S^2) weighted mean 0 and deviation 1; flat ones get smaller values."""
    patch = patch - (patch * weight).sum(2, keepdim=True)
    return patch / (patch.square() * weight).sum(2, keepdim=True).clamp(min=FLAT**2).sqrt()


def _slopes(patch: Tensor) -> Tensor:
    """Return the derivatives of patches (B, N, S, S) with respect to x and y of their frames, (B, N, S, S, 2)."""
    step = 2 / patch.shape[-1]
    dy, dx = torch.gradient(patch, spacing=step, dim=(2, 3))
    return torch.stack([dx, dy], -1)


def _plausible(maps: Tensor) -> Tensor:
    """Return which maps (..., 2, 3) neither mirror nor stretch strongly."""
    area = maps[..., :2].det()
    ratio = maps[..., :2].square().sum((-2, -1)) / (
        2 * area.clamp(min=1e-6)
    )  # (r + 1 / r) / 2 of a ratio r of the axes
    within = (area > 1 / MOST_STRETCH) & (area < MOST_STRETCH)
    return within & (ratio <= (MOST_STRETCH + 1 / MOST_STRETCH) / 2)


def _compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the maps (..., 2, 3) that apply ``inner`` first."""
    axes = outer[..., :2]
    return torch.cat([axes @ inner[..., :2], axes @ inner[..., 2:] + outer[..., 2:]], -1)


def _inverse(maps: Tensor) -> Tensor:
    axes, _ = torch.linalg.inv_ex(maps[..., :2])
    return torch.cat([axes, -(axes @ maps[..., 2:])], -1)
