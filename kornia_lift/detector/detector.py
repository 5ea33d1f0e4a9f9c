"""LIFTDetector: keypoints as maxima of a learned score over LIFT's scale space (paper Sec. 3.6)."""

from __future__ import annotations

import os
from functools import partial

import torch
import torch.nn.functional as F
from kornia.feature import PassLAF
from torch import Tensor, nn

from kornia_lift._checks import check_count, check_image, check_mask
from kornia_lift._gray import as_gray, sees_colour
from kornia_lift._kornia import laf_is_filled
from kornia_lift._memory import recompute
from kornia_lift.detector import extrema, refinement
from kornia_lift.detector.extrema import Pixels
from kornia_lift.detector.localizer import localized, spare_slots
from kornia_lift.detector.model import default_scale_space, localizer_of, response_of
from kornia_lift.detector.padding import find_padding, shrink_padding
from kornia_lift.detector.sampling import LevelMaps, Sampling, sampling_of
from kornia_lift.detector.scale_space import SCORE_BORDER, Level, ScaleSpaceConfig, plan_levels
from kornia_lift.detector.selection import Refined, SearchedLevels, Selection, selection_for
from kornia_lift.networks._fast.folded import IntegerPrecision
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.networks.layers import without_autocast
from kornia_lift.networks.response import LIFTResponse

CURVATURE_WEIGHTS = 8  # a curvature is a sum of this many scores, and has at most as many of their rounding errors
ROUNDING = 1e-5  # of the largest score: the assumed rounding errors of a response that does not report its own


class LIFTDetector(nn.Module):
    r"""Detect keypoints at the maxima of a score over the levels of LIFT's image pyramid (paper Sec. 3.6).

    The image is resized to every level, scored there by one and the same filter, and a keypoint is a pixel whose score
    exceeds its neighbourhood on its own level (and, with ``scale_nms``, on the neighbouring ones), and that no
    stronger keypoint of any level suppresses. It has the interface of kornia's ``ScaleSpaceDetector`` and can be used
    in its place.

    Args:
        num_features: number of slots in the output; the keypoints with the highest scores are kept. Where more than
            1000 are asked for, images without room for them are searched on finer levels
            (:attr:`ScaleSpaceConfig.enlarge_for <kornia_lift.detector.scale_space.ScaleSpaceConfig>`).
        config: scales and tests, see :class:`~kornia_lift.detector.scale_space.ScaleSpaceConfig`;
            ``ScaleSpaceConfig.lift()`` are those of LIFT's release. ``None``: the defaults, with two levels per octave
            where a localizer corrects the scales; for a dense response, those of one octave.
        resp_module: scores images, ``(B, 1, H, W) -> (B, 1, H, W)``. ``None``: that of ``pretrained``, a
            :class:`~kornia_lift.LIFTResponse` or a :class:`~kornia_lift.networks.dense_response.DenseResponse`. One
            whose attribute ``sees_colour`` is true, as TILDE's, gets the colours of RGB images.
        ori_module: assigns orientations as in kornia, ``(lafs, img) -> lafs``. ``None``: ``PassLAF``, upright frames.
        aff_module: as in kornia, runs before ``ori_module``. ``None``: ``PassLAF``.
        localizer: corrects position and scale of the keypoints, ``(lafs, img) -> lafs``; those that turn out to be the
            same are suppressed. ``None``: that of ``pretrained``, if it has one and ``resp_module`` is ``None``.
        pretrained: for the default ``resp_module`` and ``localizer``; see :class:`~kornia_lift.LIFTResponse`.
        precision: number format of the products of the default localizer on a CPU, without gradient; the response
            always computes in float32. ``"auto"``: ``"int8"`` where the CPU multiplies in it, else ``"bfloat16"``.

    Shape:
        - Input: images :math:`(B, 1, H, W)`, values in [0, 1], or :math:`(B, 1|3, H, W)` for a response that sees
          colours; ``mask`` :math:`(1|B, 1, H, W)`
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, :math:`N` = ``num_features``

    Raises:
        kornia.core.exceptions.ShapeError: if the images or the mask have another shape.
        TypeError: if the images are not floating point.
        ValueError: if pixel values are NaN, infinite or far outside [0, 1].

    Convention:
        Pixel centres lie at integers. The LAF of a keypoint of SIFT scale sigma has the scale
        ``6 * 64/63 * sigma``: its 64-pixel patch is the one that LIFT describes. Keypoints are sorted by decreasing
        response; empty slots follow, zero LAFs with zero response (``kornia.feature.laf_is_filled``). The score may
        have any sign and there is no threshold. LAFs are float32 for half-precision images; responses have the dtype of
        the images. LIFT's response scores images in bfloat16 in float32.

        The mask is kornia's: boolean or integer masks keep what is not 0; floating-point masks are weights that move
        scores away from the best. A level pixel takes the smallest value of the mask pixels it covers.

        Images without texture (constant, gentle linear ramps) have no keypoints: maxima that rounding errors can make
        are dropped. Oblique ramps steeper than about 0.001 gray values per pixel may have some, since their levels are
        linear only to within the filter that resizes them. Gradients reach the score and the image through position and
        response (Newton step) and scale (parabola over levels) of every keypoint; which pixels are keypoints, and their
        order, carry none.

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
        precision: IntegerPrecision = "auto",
    ) -> None:
        super().__init__()
        self.num_features = check_count(num_features, type(self).__name__)
        self.resp: nn.Module = response_of(pretrained) if resp_module is None else resp_module
        if localizer is None:
            localizer = localizer_of(pretrained, precision) if resp_module is None else PassLAF()
        self.localizer = localizer
        localized = not isinstance(localizer, PassLAF)
        self.config = default_scale_space(self.resp, localized) if config is None else config
        self.ori = PassLAF() if ori_module is None else ori_module
        self.aff = PassLAF() if aff_module is None else aff_module

    @property
    def sees_colour(self) -> bool:
        """Whether the response sees colours: RGB images are then accepted; all other parts get gray ones."""
        return sees_colour(self.resp)

    @property
    def _sampling(self) -> Sampling:
        return sampling_of(self.config)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, config={self.config}"

    def _score(self, level: Tensor, padding: Tensor | None) -> Tensor:
        """Score one level; -inf where the filter would see beyond the image. Shape (B, h, w), float32 or wider."""
        content = None if padding is None else ~padding[:, None]
        if isinstance(self.resp, LIFTResponse):
            direct = self._sampling.equal_scores_stay_equal
            inner = recompute(partial(self.resp.valid, direct=direct, content=content), level)
        else:
            score = partial(self.resp.valid, content=content) if isinstance(self.resp, DenseResponse) else self._inner
            # batch statistics are counted once: no second pass through a network in train mode
            inner = score(level) if self.resp.training else recompute(score, level)
        inner = inner[:, 0].to(torch.promote_types(inner.dtype, torch.float32))
        return F.pad(inner, (SCORE_BORDER,) * 4, value=float("-inf"))

    def _inner(self, level: Tensor) -> Tensor:
        border = slice(SCORE_BORDER, -SCORE_BORDER)
        scores: Tensor = self.resp(level)[:, :, border, border]
        return scores

    def _precise(self, img: Tensor) -> Tensor:
        """Widen images in bfloat16, whose 8 bits would move a fifth of the keypoints once levels are resized in it."""
        ours = isinstance(self.resp, (LIFTResponse, DenseResponse))
        return img.float() if img.dtype == torch.bfloat16 and ours else img

    def score_levels(self, img: Tensor, paddings: list[Tensor] | None = None) -> list[Tensor]:
        """Return the score maps of all levels, finest first, each (B, h, w); the outer 12 pixels are -inf.

        Args:
            img: images as the response sees them, shape (B, C, H, W).
            paddings: for each level, which of its pixels do not belong to the image, shape (B, h, w). ``None``: all do.

        """
        resize = self._sampling.resizer(self._precise(img))
        levels = plan_levels(img.shape[-2], img.shape[-1], self.config, self.num_features)
        each = [None] * len(levels) if paddings is None else paddings
        with without_autocast(img):
            return [self._score(resize(level), padding) for level, padding in zip(levels, each, strict=True)]

    def _noise(self, img: Tensor, scores: list[Tensor]) -> Tensor:
        """Return the curvature of the score that rounding errors reach in each image, shape (B,).

        It is derived from the summands of the scores, not from the scores: those of a black image may be near 0, where
        all differences are rounding errors.
        """
        if isinstance(self.resp, LIFTResponse):
            # no pixel of a level exceeds those of the image
            return CURVATURE_WEIGHTS * self.resp.rounding_error(self._precise(img))
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

    def _maxima(
        self, scores: list[Tensor], pooled: list[Tensor], i: int, select: Selection
    ) -> tuple[Pixels, Tensor, Tensor]:
        """Find the maxima of level ``i``: their pixels, the scores around them (M, K), and which of them count (M,).

        Args:
            scores: score maps of all levels.
            pooled: their maximum filters.
            i: the level.
            select: which maxima become candidates.

        """
        fixed = [each.detach() for each in scores]
        maxima = extrema.level_maxima(fixed, pooled, i, self.config, self._sampling, SCORE_BORDER)
        at, keep = select.pixels(maxima, SCORE_BORDER + self.config.nms_radius, fixed[i])
        if self.config.scale_nms:
            around = extrema.read_neighbourhood(scores[i], at, scores[i - 1], scores[i + 1], self._sampling)
        else:
            around = extrema.read_own(scores[i], at)
        return at, around, keep

    def _search(self, img: Tensor, scores: list[Tensor], levels: list[Level], select: Selection) -> Refined | None:
        """Find and refine the candidates of all levels; ``None`` where no level is large enough."""
        config, sampling, every = self.config, self._sampling, []
        with torch.no_grad():
            pooled = [extrema.max_filter(score, config.nms_radius) for score in scores] if config.scale_nms else []
        for i in range(config.scale_nms, len(levels) - config.scale_nms):
            if min(levels[i].size) <= 2 * (SCORE_BORDER + config.nms_radius):
                break  # no window lies in it, nor in coarser ones
            at, around, keep = self._maxima(scores, pooled, i, select)
            every.append((torch.full_like(at.image, i), *at, around, keep))
        if not every or not img.numel():
            return None
        # all levels together from here on: a GPU takes as long for few candidates as for many
        *where, around, keep = (select.join(parts, len(img)) for parts in zip(*every, strict=True))
        with torch.no_grad():
            floor = None if sampling.equal_scores_stay_equal else self._noise(img, scores)[where[1]]
        keep = keep & refinement.is_trusted(around, floor, config)
        keep, around, (level, image, row, col) = select.drop(keep, around, where)
        step, value = refinement.refine(around, config)
        return Refined(level, image, torch.stack([col, row, torch.zeros_like(row)], 1) + step, value, keep)

    def detect(self, img: Tensor, num_feats: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Detect upright keypoints, before ``aff_module`` and ``ori_module``.

        Returns:
            Responses (B, num_feats) and LAFs (B, num_feats, 2, 3), as kornia's detectors do.

        """
        config, size = self.config, img.shape[-2:]
        seen, img = img, as_gray(img)
        levels = plan_levels(size[0], size[1], config, self.num_features)
        paddings = self._paddings(img, levels)
        scores = self.score_levels(seen, paddings)
        select = selection_for(num_feats)
        found = self._search(img, scores, levels, select)
        if found is None:
            wide = torch.promote_types(img.dtype, torch.float32)
            return img.new_zeros(len(img), num_feats), img.new_zeros(len(img), num_feats, 2, 3, dtype=wide)
        localizes = not isinstance(self.localizer, PassLAF)
        count = spare_slots(num_feats) if localizes else num_feats
        searched = SearchedLevels(levels, LevelMaps(scores), paddings, mask, size)

        def best(part: Refined) -> tuple[Tensor, Tensor]:
            return select.best(searched.candidates(part, config, self._sampling), len(img), count, config)

        # few of the maxima are needed, unless a mask or the sampling may still change their order
        ranked = mask is None and not self._sampling.equal_scores_stay_equal
        few, rest = select.strongest(found, len(img), count) if ranked else (found, None)
        responses, lafs = best(few)
        if rest is not None and bool((rest & ~laf_is_filled(lafs).all(1)).any()):
            responses, lafs = best(found)  # more of them than usual suppress each other, or lie in padding
        if localizes:
            responses, lafs = _up_to_the_last_keypoint(responses, lafs)
            corrected = localized(self.localizer, img, responses, lafs, mask)
            responses, lafs = select.best(corrected, len(img), num_feats, config)
        return responses.to(img.dtype), lafs  # ranked in float32 at least, reported in the precision of the images

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_image(img, type(self).__name__, channels=(1, 3) if self.sees_colour else (1,), value_range=True)
        if mask is not None:
            check_mask(mask, img, type(self).__name__)
        responses, lafs = self.detect(img, self.num_features, mask)
        filled, gray = laf_is_filled(lafs), as_gray(img)
        lafs = self.ori(self.aff(lafs, gray), gray)
        # the modules may give the empty slots a frame
        return torch.where(filled[..., None, None], lafs, torch.zeros_like(lafs)), responses


def _up_to_the_last_keypoint(responses: Tensor, lafs: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the last slots of (B, N) that are empty in all images; at least one slot is kept."""
    if torch.compiler.is_compiling() or not len(lafs):  # a graph has the same shapes for all images
        return responses, lafs
    used = max(int(laf_is_filled(lafs).sum(1).max()), 1)  # empty slots are last
    return responses[:, :used], lafs[:, :used]
