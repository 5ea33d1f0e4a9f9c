"""Learned rejection of outliers among putative matches: by itself, and after any of kornia's matchers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kornia_lift._kornia import ShapeError
from kornia_lift.geometry.epipolar import assumed_intrinsics
from kornia_lift.matching.putative import putative_matches
from kornia_lift.networks.correspondence import Consensus, CorrespondenceNet

Camera = Tensor | tuple[int, int]


class CorrespondenceFilter(nn.Module):
    """Score putative matches between the keypoints of two images.

    Args:
        network: a trained :class:`~kornia_lift.networks.correspondence.CorrespondenceNet`; with random weights the
            scores are random.

    Shape:
        - Input: keypoints :math:`(N_1, 2)` and :math:`(N_2, 2)` in pixels; pairs :math:`(M, 2)` of their indices; for a
          network with ``side``, its columns :math:`(M, 2)`
        - Output: :class:`~kornia_lift.networks.correspondence.Consensus` of the M matches, without batch dimension

    Convention:
        The network expects all nearest neighbours of the first image, without ratio or mutual test, as
        :func:`~kornia_lift.matching.putative.putative_matches` returns them. A robust estimator on the kept matches
        should follow. Without intrinsics the essential matrix has no meaning: use only the logits, to rank matches.

    Example:
        >>> matches = CorrespondenceFilter(CorrespondenceNet().eval())
        >>> pairs = torch.arange(50)[:, None].expand(-1, 2)
        >>> found = matches(torch.rand(50, 2) * 640, torch.rand(50, 2) * 640, pairs, ((640, 480), (640, 480)))
        >>> kept = pairs[found.logits > 0]

    """

    def __init__(self, network: CorrespondenceNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        keypoints1: Tensor,
        keypoints2: Tensor,
        pairs: Tensor,
        cameras: tuple[Camera, Camera],
        side: Tensor | None = None,
    ) -> Consensus:
        """Score matches.

        Args:
            keypoints1: (x, y) in pixels of the first image, pixel centres at integers, shape (N1, 2).
            keypoints2: those of the second image, shape (N2, 2).
            pairs: indices into both, shape (M, 2).
            cameras: for each image its intrinsics K (3, 3), or, if they are unknown, its width and height: the focal
                length is then assumed to be the longer side.
            side: columns for a network with ``side``, shape (M, 2); others ignore them.

        Raises:
            kornia.core.exceptions.ShapeError: if a shape differs.
            IndexError: if an index is beyond the keypoints.

        """
        for name, points in (("keypoints1", keypoints1), ("keypoints2", keypoints2)):
            if points.dim() != 2 or points.shape[1] != 2:
                raise ShapeError(f"CorrespondenceFilter expects {name} (N, 2) as (x, y), got {tuple(points.shape)}")
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ShapeError(f"CorrespondenceFilter expects pairs (M, 2) of indices, got {tuple(pairs.shape)}")
        first, second = (c if isinstance(c, Tensor) else assumed_intrinsics(c) for c in cameras)
        matches = torch.cat([keypoints1[pairs[:, 0]], keypoints2[pairs[:, 1]]], 1)
        columns = side[None] if side is not None and self.network.side else None
        found = self.network(matches[None], intrinsics=(first, second), side=columns)
        return Consensus(found.weights[0], found.essential[0], found.logits[0], found.gap[0])


class PutativeMatcher(nn.Module):
    """The descriptor matcher for a ``LocalFeatureMatcher`` inside a :class:`FilteredMatcher`: all nearest neighbours.

    Kornia's matchers return one number per match. This one is the ratio of the distances of the nearest and of the
    second-nearest descriptor, plus 1 where the match is not mutual. Kornia's confidence, 1 minus it, holds both.

    Shape:
        - Input: descriptors :math:`(N, D)` and :math:`(M, D)`
        - Output: numbers :math:`(N, 1)` in [0, 2], indices :math:`(N, 2)`

    """

    def forward(self, desc1: Tensor, desc2: Tensor) -> tuple[Tensor, Tensor]:
        found = putative_matches(desc1, desc2)
        ratio, mutual = found.side.unbind(1)
        # 1 + a smaller ratio would be rounded to 1, which means mutual
        least = 2 * max(torch.finfo(dtype).eps for dtype in (desc1.dtype, ratio.dtype))
        number = torch.where(mutual > 0, ratio, 1 + ratio.clamp(min=least))
        return number[:, None].to(desc1.dtype), found.pairs

    @staticmethod
    def side_columns(confidence: Tensor) -> Tensor:
        """Return ratio and mutuality (N, 2) of matches whose confidences (N,) a ``LocalFeatureMatcher`` returned."""
        number = 1 - confidence
        mutual = number <= 1
        return torch.stack([torch.where(mutual, number, number - 1), mutual.to(number.dtype)], 1)


class FilteredMatcher(nn.Module):
    """Match images by any of kornia's matchers, then keep the inliers that :class:`CorrespondenceFilter` finds.

    It has the interface of ``LocalFeatureMatcher`` and ``LoFTR``, so that it can replace either. Kornia passes no
    positions to the matcher inside a ``LocalFeatureMatcher``, so the filter follows it. That matcher has to be a
    :class:`PutativeMatcher`; for a network without ``side``, ``DescriptorMatcher("nn")`` will do.

    Args:
        matcher: maps a dictionary with ``image0`` and ``image1`` to one with ``keypoints0``, ``keypoints1``,
            ``confidence`` and ``batch_indexes``.
        network: a trained :class:`~kornia_lift.networks.correspondence.CorrespondenceNet`.

    Raises:
        ValueError: if the network needs ratio and mutuality of the matches, and the matcher does not give them.

    Convention:
        The dictionary may hold ``intrinsics0`` and ``intrinsics1``, K of shape (B, 3, 3); without, a focal length of
        the longer side of the image is assumed. ``confidence`` is the network's weight, 0 to 1.

    Example:
        >>> from kornia.feature import LocalFeatureMatcher
        >>> from kornia_lift import LIFTFeature
        >>> matcher = LocalFeatureMatcher(LIFTFeature(100), PutativeMatcher())
        >>> network = CorrespondenceNet(side=True).eval()  # random weights
        >>> found = FilteredMatcher(matcher, network)({"image0": torch.rand(1, 1, 96, 96),
        ...                                            "image1": torch.rand(1, 1, 96, 96)})
        >>> sorted(found)
        ['batch_indexes', 'confidence', 'keypoints0', 'keypoints1', 'lafs0', 'lafs1']

    """

    def __init__(self, matcher: nn.Module, network: CorrespondenceNet) -> None:
        super().__init__()
        inner = getattr(matcher, "matcher", None)
        if network.side and not isinstance(inner, PutativeMatcher):
            raise ValueError(
                "this network needs ratio and mutuality of every match: FilteredMatcher expects "
                f"LocalFeatureMatcher(feature, PutativeMatcher()), got {type(matcher).__name__} with "
                f"{type(inner).__name__}"
            )
        self.matcher = matcher
        self.filter = CorrespondenceFilter(network)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.matcher(data)
        image, confidence = found["batch_indexes"], found["confidence"].flatten()
        side = PutativeMatcher.side_columns(confidence) if self.filter.network.side else None
        kept = torch.zeros_like(image, dtype=torch.bool)
        weights = torch.zeros_like(confidence)
        for b in image.unique().tolist():
            mine = (image == b).nonzero()[:, 0]
            pairs = mine[:, None].expand(-1, 2)
            cameras = _camera(data, 0, b), _camera(data, 1, b)
            columns = side[mine] if side is not None else None
            scored = self.filter(found["keypoints0"], found["keypoints1"], pairs, cameras, columns)
            kept[mine], weights[mine] = scored.logits > 0, scored.weights.to(weights.dtype)
        # frames have a batch dimension of 1 before that of the matches
        result = {name: t[:, kept] if name.startswith("lafs") else t[kept] for name, t in found.items()}
        return {**result, "confidence": weights[kept]}


def _camera(data: dict[str, Tensor], which: int, index: int) -> Camera:
    intrinsics = data.get(f"intrinsics{which}")
    if intrinsics is not None:
        return intrinsics if intrinsics.dim() == 2 else intrinsics[index if len(intrinsics) > 1 else 0]
    height, width = data[f"image{which}"].shape[-2:]
    return width, height
