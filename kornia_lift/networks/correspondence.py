"""CorrespondenceNet: inliers of putative matches (Learning to Find Good Correspondences, Yi et al., CVPR 2018)."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._kornia import ShapeError
from kornia_lift.geometry.epipolar import MAX_NORMALISED, check_matches, normalise_matches, weighted_eight_point
from kornia_lift.weights import default_network, load_network, load_tensors

PART = "correspondence"  # prefix of the tensors in weight files
ADVICE = "train one (kornia_lift.training.correspondences.recipe) and give its file"
EPSILON = 1e-3  # of both normalisations
CHANNELS = 128
BLOCKS = 12
#: What a network with ``side`` gets for a match beside its coordinates: the distance of the descriptors divided by that
#: of the second-nearest one, 0 to 1; and 1 if each is the other's nearest neighbour, else 0.
SIDE_COLUMNS = ("ratio", "mutual")
SIDE_CENTRE, SIDE_SCALE = (0.9, 0.5), (5.0, 1.0)  # to about the range of the coordinates


class Consensus(NamedTuple):
    r"""Output of :class:`CorrespondenceNet` for a set of matches.

    Attributes:
        weights: :math:`w = \max(0, \tanh l)` in [0, 1); 0 for outliers and padding. Shape (B, N).
        essential: essential matrix of the weighted matches, of unit norm; zero where there is none. Shape (B, 3, 3).
        logits: l, positive for inliers; 0 for padding. Shape (B, N).
        gap: how well ``essential`` is determined, see :class:`~kornia_lift.geometry.epipolar.EightPoint`. Shape (B,).
    """

    weights: Tensor
    essential: Tensor
    logits: Tensor
    gap: Tensor


def context_normalise(x: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Context normalisation: mean 0 and variance 1 of each channel over the matches of a pair (paper Eq. 6).

    .. math:: \mathrm{CN}(o_i) = (o_i - \mu) / \sqrt{\sigma^2 + 10^{-3}}

    The variance is biased and there is nothing to learn. This is the only step in which matches influence each other.

    Args:
        x: shape (B, C, N).
        mask: False for padding, which neither counts nor changes; shape (B, N).

    """
    if mask is None:
        if x.shape[2] < 2:  # torch's kernel refuses a single match, of which nothing would be left
            return x - x
        return F.instance_norm(x, eps=EPSILON)
    kept = mask[:, None].to(x.dtype)
    count = kept.sum(2, keepdim=True).clamp(min=1)
    mean = (x * kept).sum(2, keepdim=True) / count
    variance = ((x - mean).square() * kept).sum(2, keepdim=True) / count
    return (x - mean) * (variance + EPSILON).rsqrt()


class SetBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the matches of all pairs, without affine part; padding does not count.

    Shape:
        - Input, output: (B, C, N); mask (B, N)

    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON, momentum=0.01, affine=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return super().forward(x)
        rows = x.mT  # B, N, C
        return rows.masked_scatter(mask[..., None], super().forward(rows[mask])).mT


class CorrespondenceBlock(nn.Module):
    """Residual block: perceptron, context and batch normalisation, ReLU, all of it twice; nothing follows the sum."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(channels, channels, 1), SetBatchNorm(channels)
        self.conv2, self.norm2 = nn.Conv1d(channels, channels, 1), SetBatchNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self._unit(x, self.conv1, self.norm1, mask)
        return x + self._unit(y, self.conv2, self.norm2, mask)

    def _unit(self, x: Tensor, conv: nn.Conv1d, norm: SetBatchNorm, mask: Tensor | None) -> Tensor:
        if self.training or mask is not None or x.shape[2] < 2 or norm.running_mean is None or norm.running_var is None:
            return F.relu(norm(context_normalise(conv(x), mask), mask))
        # batch normalisation is affine at run time, so that one kernel does both; the bias of the perceptron is left
        # out, since context normalisation cancels it
        scale = (norm.running_var + norm.eps).rsqrt()
        y = F.instance_norm(conv.weight[:, :, 0] @ x, weight=scale, bias=-norm.running_mean * scale, eps=EPSILON)
        return F.relu(y, inplace=not y.requires_grad)


class CorrespondenceNet(nn.Module):
    r"""Separate inliers from outliers in a set of putative matches, and estimate the essential matrix from them.

    A perceptron with shared weights processes every match by itself; the context normalisation of 12 residual blocks
    relates it to the others. One logit per match gives its weight. The weighted eight-point algorithm computes the
    essential matrix, through which gradients reach the network.

    Args:
        pretrained: ``True`` or the name of shipped weights, the path of a ``.safetensors`` file with tensors
            ``correspondence.*``, or ``False`` for random weights (the module then stays in train mode).
        channels: width of the perceptrons. ``None``: as in the weights, or 128 without weights, as in the paper.
        blocks: number of residual blocks. ``None``: as in the weights, or 12 without weights, as in the paper.
        side: the network also gets the quality of every match, the columns of :data:`SIDE_COLUMNS`; not in the paper.
            ``None``: as in the weights, or ``False`` without weights.

    Shape:
        - Input: matches :math:`(B, N, 4)` as (x1, y1, x2, y2); ``mask`` :math:`(B, N)`, False for padding;
          ``intrinsics``, two matrices :math:`(3, 3)` or :math:`(B, 3, 3)`; with ``side``, the columns :math:`(B, N, 2)`
        - Output: :class:`Consensus`: weights :math:`(B, N)`, essential matrices :math:`(B, 3, 3)`, logits
          :math:`(B, N)`, gaps :math:`(B,)`

    Raises:
        TypeError: if the matches are not floating point.
        kornia.core.exceptions.ShapeError: if a shape differs.
        ValueError: if matches are not finite, are pixels without ``intrinsics``, or are given ``intrinsics`` although
            they are normalised already.

    Convention:
        Normalised coordinates are :math:`K^{-1} (u, v, 1)^T`, pixel centres at integers. With fewer than 8 inliers, or
        where they do not determine it, the essential matrix is zero; nothing is NaN. Planes and pure rotations are
        degenerate: with noise they give some essential matrix, with a small gap. The network depends on the set
        of matches: give it the kind that it was trained with, nearest neighbours without ratio test.

    Example:
        >>> network = CorrespondenceNet().eval()
        >>> weights, essential, logits, gap = network(torch.rand(1, 100, 4) - 0.5)
        >>> weights.shape, essential.shape
        (torch.Size([1, 100]), torch.Size([1, 3, 3]))

    """

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        channels: int | None = None,
        blocks: int | None = None,
        side: bool | None = None,
    ) -> None:
        super().__init__()
        if pretrained is True:
            pretrained = self.name_of("learned")
        shape = (CHANNELS, BLOCKS, False) if pretrained is False else _shape_of_weights(pretrained)
        channels, blocks = channels or shape[0], blocks or shape[1]
        self.side = side = shape[2] if side is None else side
        self.input = nn.Conv1d(4 + len(SIDE_COLUMNS) * side, channels, 1)
        self.blocks = nn.ModuleList(CorrespondenceBlock(channels) for _ in range(blocks))
        self.output = nn.Conv1d(channels, 1, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d):
                # 2 / fan_in without root, cut at two standard deviations, as in the authors' code
                std = 2 / layer.in_channels
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if pretrained is not False:
            load_network(self, PART, pretrained)

    @classmethod
    def name_of(cls, weights: str) -> str:
        """Return the name of the weights of ``pretrained=True`` for ``"learned"``, and any other name as it is.

        Raises:
            ValueError: if the package ships none.

        """
        return default_network(PART, cls.__name__, ADVICE) if weights == "learned" else weights

    def logits(self, matches: Tensor, mask: Tensor | None = None, side: Tensor | None = None) -> Tensor:
        """Return one logit per match, positive for inliers, 0 for padding.

        Args:
            matches: normalised coordinates, shape (B, N, 4).
            mask: False for padding, shape (B, N).
            side: the columns of :data:`SIDE_COLUMNS`, for a network with ``side``, shape (B, N, 2).

        """
        x = matches.to(self.input.weight.dtype)
        if side is not None:
            columns = (side.to(x) - x.new_tensor(SIDE_CENTRE)) * x.new_tensor(SIDE_SCALE)
            x = torch.cat([x, columns], -1)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)  # NaN in the padding would stay NaN when multiplied by 0
        if not x.shape[0] or not x.shape[1]:
            return matches.new_zeros(matches.shape[:2])
        x = self.input(x.mT)
        for block in self.blocks:
            x = block(x, mask)
        out = self.output(x)[:, 0].to(matches.dtype)
        return out if mask is None else out.masked_fill(~mask, 0)

    def forward(
        self,
        matches: Tensor,
        mask: Tensor | None = None,
        intrinsics: tuple[Tensor, Tensor] | None = None,
        side: Tensor | None = None,
    ) -> Consensus:
        check_matches(matches, mask, type(self).__name__)
        self._check_side(matches, side, mask)
        if mask is not None:
            matches = matches.masked_fill(~mask[..., None], 0)
        given = matches
        if intrinsics is not None:
            matches = normalise_matches(given, intrinsics)
        if not torch.compiler.is_compiling():
            _check_units(given, intrinsics, type(self).__name__)
        logits = self.logits(matches, mask, side)
        weights = F.relu(torch.tanh(logits))
        essential, gap = weighted_eight_point(matches, weights)
        return Consensus(weights, essential, logits, gap)

    def _check_side(self, matches: Tensor, side: Tensor | None, mask: Tensor | None) -> None:
        """Raise unless the columns of :data:`SIDE_COLUMNS` are given, and finite, exactly if the network uses them."""
        wanted = (*matches.shape[:2], len(SIDE_COLUMNS)) if self.side else None
        got = None if side is None else tuple(side.shape)
        if wanted == got:
            if side is not None and not torch.compiler.is_compiling():
                kept = side if mask is None else side.masked_fill(~mask[..., None], 0)
                if not bool(kept.isfinite().all()):
                    raise ValueError(f"{type(self).__name__} expects finite side columns, got NaN or infinity")
            return
        names = ", ".join(SIDE_COLUMNS)
        if wanted is None:
            raise ShapeError(f"this network was made without side={names}; leave side out, got {got}")
        raise ShapeError(
            f"this network expects side={names} of shape {wanted}, got {got}; "
            "kornia_lift.matching.putative.putative_matches computes them"
        )


def _shape_of_weights(pretrained: str | os.PathLike[str]) -> tuple[int, int, bool]:
    """Return width, number of blocks and whether there are side columns; those of the paper if a file has no network.

    :func:`~kornia_lift.weights.load_network` reports what is wrong with the file.
    """
    tensors, _ = load_tensors(pretrained, PART)
    weight = tensors.get(f"{PART}.input.weight")
    if weight is None or weight.dim() != 3:
        return CHANNELS, BLOCKS, False
    blocks = {name.split(".")[2] for name in tensors if name.startswith(f"{PART}.blocks.")}
    return len(weight), len(blocks), weight.shape[1] > 4


def _check_units(matches: Tensor, intrinsics: tuple[Tensor, Tensor] | None, who: str) -> None:
    """Raise if pixels are given as normalised coordinates, or vice versa."""
    if not matches.numel():
        return
    largest = float(matches.detach().abs().amax())
    if intrinsics is None:
        if largest > MAX_NORMALISED:
            raise ValueError(
                f"{who} expects normalised coordinates (u - cx) / fx, got values up to {largest:g}, which look like "
                "pixels; give intrinsics=(K1, K2), or where they are unknown "
                "kornia_lift.geometry.epipolar.assumed_intrinsics"
            )
        return
    focal = min(float(k.detach()[..., 0, 0].amin()) for k in intrinsics)
    if largest < 2 and focal > MAX_NORMALISED:
        raise ValueError(
            f"{who} expects pixels where intrinsics are given, got values up to {largest:g} for a focal length of "
            f"{focal:g}, which look normalised already; leave intrinsics out"
        )
