"""LIFTDetector: keypoints as maxima of a learned score over LIFT's scale space (paper Sec. 3.6)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from kornia.feature import PassLAF
from torch import Tensor, nn

from kornia_lift._checks import check_count, check_image, check_mask
from kornia_lift._kornia import laf_is_filled
from kornia_lift._memory import recompute
from kornia_lift.detector import extrema, refinement
from kornia_lift.detector.extrema import Pixels
from kornia_lift.detector.localizer import localized, spare_slots
from kornia_lift.detector.models import localizer_of, response_of, scale_space_for
from kornia_lift.detector.padding import cover_max, find_padding, sees_padding, shrink_padding
from kornia_lift.detector.sampling import Sampling, sampling_of
from kornia_lift.detector.scale_space import Level, ScaleSpaceConfig, plan_levels
from kornia_lift.detector.selection import Candidates, Selection, selection_for
from kornia_lift.networks._fast.folded import Precision
from kornia_lift.networks.compact_response import CompactResponse
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse

SCORE_BORDER = FILTER_SIZE // 2  # pixels of a level whose score would see beyond the image
CURVATURE_WEIGHTS = 8  # a curvature is a sum of so many scores, and has as many of their rounding errors at most
ROUNDING = 1e-5  # of the largest score: the assumed rounding errors of a response that does not report its own


class LIFTDetector(nn.Module):
    r"""Detect keypoints at the maxima of a score over the levels of LIFT's image pyramid (paper Sec. 3.6).

    The image is resized to every level, scored there by one and the same filter, and a keypoint is a pixel whose score
    exceeds its neighbourhood on its own level (and, with ``scale_nms``, on the neighbouring ones), and that no
    stronger keypoint of any level suppresses. It has the interface of kornia's
    ``ScaleSpaceDetector`` and can be used in its place.

    Args:
        num_features: number of slots in the output; the keypoints with the highest scores are kept.
        config: scales and tests, see :class:`~kornia_lift.detector.scale_space.ScaleSpaceConfig`;
            ``ScaleSpaceConfig.lift()`` are those of LIFT's release. ``None``: what suits the response.
        resp_module: scores images, ``(B, 1, H, W) -> (B, 1, H, W)``. Default: :class:`~kornia_lift.LIFTResponse`, or
            the response of another make that ``pretrained`` has, with its weights.
        ori_module: as in kornia, ``(lafs, img) -> lafs``; default ``PassLAF``: upright frames.
        aff_module: as in kornia, runs before ``ori_module``; default ``PassLAF``.
        localizer: corrects position and scale of the keypoints, ``(lafs, img) -> lafs``; those that turn out to be the
            same are suppressed. ``None``: what ``pretrained`` has for its response, ``PassLAF`` where it has none.
        pretrained: for the default ``resp_module`` and ``localizer``; see :class:`~kornia_lift.LIFTResponse`.
        precision: of the products of these on a CPU, without gradient; LIFT's response is in float32 always.
            ``"auto"``: ``"bfloat16"`` where the CPU multiplies in it.

    Shape:
        - Input: images :math:`(B, 1, H, W)`, values in [0, 1]; ``mask`` :math:`(1|B, 1, H, W)`
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, :math:`N` = ``num_features``

    Raises:
        kornia.core.exceptions.ShapeError: if the images or the mask have another shape.
        TypeError: if the images are not floating point.
        ValueError: if pixel values are NaN, infinite or far outside [0, 1].

    Convention:
        Pixel centres lie at integers. The LAF of a keypoint of SIFT scale sigma has the scale
        ``6 * 64/63 * sigma``: its 64-pixel patch is the one that LIFT describes. Keypoints come by
        decreasing response, then empty slots: zero LAFs with zero response (``kornia.feature.laf_is_filled``). The
        score may have any sign and there is no threshold. LAFs are float32 for half-precision images; responses have
        the dtype of the images.

        The mask is kornia's: boolean or integer masks keep what is not 0; floating-point masks are weights that move
        scores away from the best. A level pixel takes the smallest value of the mask pixels it covers.

        Images without texture (constant, gentle linear ramps) have no keypoints: maxima that rounding errors can make
        are dropped. Oblique ramps steeper than about 0.001 gray values per pixel may have some, since their levels are
        linear only to within the filter that resizes them. Gradients reach the score and the image through position
        and response (Newton step) and scale (parabola over levels) of every keypoint; which pixels are keypoints, and
        their order, carry none.

    Example:
        >>> detector = LIFTDetector(100, pretrained=False).eval()
        >>> lafs, responses = detector(torch.rand(1, 1, 96, 128))
        >>> lafs.shape, responses.shape
        (torch.Size([1, 100, 2, 3]), torch.Size([1, 100]))

    """

    def __init__(
        self,
        num_features: int = 1000,
        config: ScaleSpaceConfig | None = None,
        *,
        resp_module: nn.Module | None = None,
        ori_module: nn.Module | None = None,
        aff_module: nn.Module | None = None,
        localizer: nn.Module | None = None,
        pretrained: bool | str | os.PathLike[str] = True,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        self.num_features = check_count(num_features, type(self).__name__)
        self.resp: nn.Module = response_of(pretrained, precision) if resp_module is None else resp_module
        self.config = scale_space_for(self.resp) if config is None else config
        self.ori = PassLAF() if ori_module is None else ori_module
        self.aff = PassLAF() if aff_module is None else aff_module
        if localizer is None:
            localizer = localizer_of(pretrained, precision) if resp_module is None else PassLAF()
        self.localizer = localizer

    @property
    def _sampling(self) -> Sampling:
        return sampling_of(self.config)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, config={self.config}"

    def _score(self, level: Tensor, padding: Tensor | None) -> Tensor:
        """Score one level; -inf where the filter would see beyond the image. Shape (B, h, w), float32 or wider."""
        if isinstance(self.resp, LIFTResponse):
            content = None if padding is None else ~padding[:, None]
            direct = self._sampling.equal_scores_stay_equal
            inner = recompute(partial(self.resp.valid, direct=direct, content=content), level)
        else:
            border = slice(SCORE_BORDER, -SCORE_BORDER)
            score: Callable[[Tensor], Tensor] = self.resp
            if isinstance(self.resp, CompactResponse):
                score = partial(self.resp, content=None if padding is None else ~padding[:, None])
            # batch statistics are counted once: no second pass through a network in train mode
            inner = (score(level) if self.resp.training else recompute(score, level))[:, :, border, border]
        inner = inner[:, 0].to(torch.promote_types(inner.dtype, torch.float32))
        return F.pad(inner, (SCORE_BORDER,) * 4, value=float("-inf"))

    def score_levels(self, img: Tensor, paddings: list[Tensor] | None = None) -> list[Tensor]:
        """Return the score maps of all levels, finest first, each (B, h, w); the outer 12 pixels are -inf.

        Args:
            img: images, shape (B, 1, H, W).
            paddings: of each level, which of its pixels (B, h, w) do not belong to the image; ``None``: none.

        """
        resize = self._sampling.resizer(img)
        levels = plan_levels(img.shape[-2], img.shape[-1], self.config)
        each = [None] * len(levels) if paddings is None else paddings
        with _without_autocast(img):
            return [self._score(resize(level), padding) for level, padding in zip(levels, each, strict=True)]

    def _noise(self, img: Tensor, scores: list[Tensor]) -> Tensor:
        """Return the curvature of the score that rounding errors reach in each image, shape (B,).

        It follows from what the scores are summed from, not from the scores: those of a black image may be near 0,
        where all differences are rounding errors.
        """
        if isinstance(self.resp, LIFTResponse):
            return CURVATURE_WEIGHTS * self.resp.rounding_error(img)  # no pixel of a level exceeds those of the image
        largest = [torch.where(s.isfinite(), s.detach().abs(), 0).flatten(1).amax(1) for s in scores]
        return CURVATURE_WEIGHTS * ROUNDING * torch.stack(largest).amax(0)

    def _paddings(self, img: Tensor, levels: list[Level]) -> list[Tensor] | None:
        """Return the padding (B, h, w) of each level, or ``None`` where no image has any."""
        padding = find_padding(img) if self.config.skip_padding else None
        if padding is None:
            return None
        paddings = []
        for level in levels:
            padding = shrink_padding(padding, level.size)  # from level to level, which only become smaller
            paddings.append(padding)
        return paddings

    def _search(
        self, scores: list[Tensor], pooled: list[Tensor], noise: Tensor, i: int, select: Selection
    ) -> tuple[Pixels, Tensor, Tensor, Tensor]:
        """Find the candidates of level ``i``.

        Args:
            scores: score maps of all levels.
            pooled: their maximum filters.
            noise: curvature that rounding errors reach, shape (B,).
            i: the level.
            select: which maxima become candidates.

        Returns:
            Their pixels; x, y in level pixels and scale in levels relative to ``i`` (M, 3); scores (M,); and which of
            them count (M,).

        """
        config, score, sampling = self.config, scores[i], self._sampling
        fixed = [each.detach() for each in scores]
        maxima = extrema.level_maxima(fixed, pooled, i, config, sampling, SCORE_BORDER)
        at, keep = select.pixels(maxima, SCORE_BORDER + config.nms_radius, fixed[i])
        if config.scale_nms:
            around = extrema.read_neighbourhood(score, at, scores[i - 1], scores[i + 1], sampling)
        else:
            around = extrema.read_own(score, at)
        floor = None if sampling.equal_scores_stay_equal else noise[at.image]
        keep = keep & refinement.is_trusted(around, floor, config)
        at, around, keep = select.drop(at, around, keep)
        step, value = refinement.refine(around, config)
        position = torch.stack([at.col, at.row, torch.zeros_like(at.row)], 1) + step
        if config.subpixel and not config.scale_nms:
            scale = refinement.scale_step(scores, i, at.image, position[:, :2], sampling)
            position = torch.cat([position[:, :2], scale[:, None]], 1)
        return at, position, sampling.report(scores, i, at.image, position, value), keep

    def _frames(self, position: Tensor, level: Level, size: torch.Size) -> Tensor:
        """Return x, y and sigma (M, 3), in pixels of the image, of positions (M, 3) on a level."""
        x = self._sampling.to_image(position[:, 0], level.size[1], size[1], level.resize)
        y = self._sampling.to_image(position[:, 1], level.size[0], size[0], level.resize)
        return torch.stack([x, y, level.sigma * torch.exp2(position[:, 2] / self.config.levels_per_octave)], 1)

    def detect(self, img: Tensor, num_feats: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Detect upright keypoints, before ``aff_module`` and ``ori_module``.

        Returns:
            Responses (B, num_feats) and LAFs (B, num_feats, 2, 3), as kornia's detectors do.

        """
        config, size = self.config, img.shape[-2:]
        levels = plan_levels(size[0], size[1], config)
        paddings = self._paddings(img, levels)
        scores = self.score_levels(img, paddings)
        with torch.no_grad():
            pooled = [extrema.max_filter(score, config.nms_radius) for score in scores] if config.scale_nms else []
            noise = self._noise(img, scores) if scores and img.numel() else img.new_zeros(len(img))
        select, found = selection_for(num_feats), []
        for i in range(config.scale_nms, len(levels) - config.scale_nms):
            if min(levels[i].size) <= 2 * (SCORE_BORDER + config.nms_radius):
                break  # no window lies in it, nor in coarser ones
            at, position, value, keep = self._search(scores, pooled, noise, i, select)
            if paddings is not None:
                row, col = position[:, 1].detach().round().long(), position[:, 0].detach().round().long()
                keep = keep & ~sees_padding(paddings[i], SCORE_BORDER)[at.image, row, col]
            if mask is not None:
                weight = _read_mask(mask, levels[i].size, at.image, position.detach())
                keep, value = keep & (weight > 0), _weighted(value, weight)
            frames = self._frames(position, levels[i], size)
            if config.border > 0:
                keep = keep & _is_inside(frames.detach(), config.border, size)
            found.append(Candidates(at.image, frames, value, keep))
        if not found or not img.numel():
            wide = torch.promote_types(img.dtype, torch.float32)
            return img.new_zeros(len(img), num_feats), img.new_zeros(len(img), num_feats, 2, 3, dtype=wide)
        if isinstance(self.localizer, PassLAF):
            responses, lafs = select.best(found, len(img), num_feats, config)
        else:
            spare = select.best(found, len(img), spare_slots(num_feats), config)
            corrected = localized(self.localizer, img, *spare, mask)
            responses, lafs = select.best([corrected], len(img), num_feats, config)
        return responses.to(img.dtype), lafs  # ranked in float32 at least, reported in the precision of the images

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_image(img, type(self).__name__, channels=(1,), value_range=True)
        if mask is not None:
            check_mask(mask, img, type(self).__name__)
        responses, lafs = self.detect(img, self.num_features, mask)
        filled = laf_is_filled(lafs)
        lafs = self.ori(self.aff(lafs, img), img)
        # the modules may give the empty slots a frame
        return torch.where(filled[..., None, None], lafs, torch.zeros_like(lafs)), responses


def _without_autocast(img: Tensor) -> AbstractContextManager[object]:
    """Suspend autocast: in half precision scores of pixels that look nearly alike differ by rounding errors only."""
    kind = img.device.type
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _read_mask(mask: Tensor, size: tuple[int, int], image: Tensor, position: Tensor) -> Tensor:
    """Return the weights (M,) of keypoints of a level: 0 excludes.

    A level pixel takes the smallest mask value that it covers, so that a thin excluded region cannot fall between two
    pixels; a keypoint takes the smallest of the pixels around its refined position.
    """
    weights = mask.clamp(max=1).to(position.dtype) if mask.is_floating_point() else mask.ne(0).to(position.dtype)
    weights = -cover_max(-weights[:, 0], size)
    image = image if len(mask) > 1 else torch.zeros_like(image)
    x, y = position[:, 0], position[:, 1]
    corners = [
        weights[image, row.long().clamp(0, size[0] - 1), col.long().clamp(0, size[1] - 1)]
        for row in (y.floor(), y.ceil())
        for col in (x.floor(), x.ceil())
    ]
    return torch.stack(corners).amin(0)


def _weighted(value: Tensor, weight: Tensor) -> Tensor:
    """Move scores of any sign away from the best; a weight of 0 leaves them."""
    weight = torch.where(weight > 0, weight, torch.ones_like(weight)).to(value)
    return torch.where(value >= 0, value * weight, value / weight)


def _is_inside(frames: Tensor, border: float, size: torch.Size) -> Tensor:
    """Say which boxes of half-width ``border * sigma`` lie in an image of ``size`` (rows, columns), shape (M,)."""
    x, y, sigma = frames.unbind(1)
    radius = border * sigma
    return (torch.minimum(x, y) - radius >= 1) & (x + radius < size[1] - 1) & (y + radius < size[0] - 1)
