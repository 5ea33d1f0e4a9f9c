"""Learned rejection of outliers among putative matches: by itself, and after any of kornia's matchers."""

from __future__ import annotations

import torch
from kornia.core.exceptions import ShapeError
from torch import Tensor, nn

from kornia_lift.geometry.epipolar import assumed_intrinsics
from kornia_lift.networks.correspondence import Consensus, CorrespondenceNet

Camera = Tensor | tuple[int, int]


class CorrespondenceFilter(nn.Module):
    """Score putative matches between the keypoints of two images.

    Args:
        network: a trained :class:`~kornia_lift.networks.correspondence.CorrespondenceNet`. A random one scores at
            random: the package ships no weights yet.

    Shape:
        - Input: keypoints :math:`(N_1, 2)` and :math:`(N_2, 2)` in pixels; pairs :math:`(M, 2)` of their indices
        - Output: :class:`~kornia_lift.networks.correspondence.Consensus` of the M matches, without batch dimension

    Convention:
        The network wants all nearest neighbours of the first image, without ratio or mutual test. A robust estimator
        on the kept matches should follow. Without intrinsics the essential matrix is none: rank by logits only.

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
        self, keypoints1: Tensor, keypoints2: Tensor, pairs: Tensor, cameras: tuple[Camera, Camera]
    ) -> Consensus:
        """Score matches.

        Args:
            keypoints1: (x, y) in pixels of the first image, pixel centres at integers, shape (N1, 2).
            keypoints2: those of the second image, shape (N2, 2).
            pairs: indices into both, shape (M, 2).
            cameras: of each image its intrinsics K (3, 3), or its width and height where K is unknown; then a focal
                length of the longer side is assumed.

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
        found = self.network(matches[None], intrinsics=(first, second))
        return Consensus(found.weights[0], found.essential[0], found.logits[0], found.gap[0])


class FilteredMatcher(nn.Module):
    """Match images by any of kornia's matchers, then keep what :class:`CorrespondenceFilter` takes for inliers.

    It takes and gives what ``LocalFeatureMatcher`` and ``LoFTR`` do, so that it stands in for either. Kornia hands no
    positions to the matcher inside a ``LocalFeatureMatcher``, so the filter comes after it; that matcher should be
    ``DescriptorMatcher("nn")``.

    Args:
        matcher: maps a dictionary with ``image0`` and ``image1`` to one with ``keypoints0``, ``keypoints1``,
            ``confidence`` and ``batch_indexes``.
        network: a trained :class:`~kornia_lift.networks.correspondence.CorrespondenceNet`.

    Convention:
        The dictionary may hold ``intrinsics0`` and ``intrinsics1``, K of shape (B, 3, 3); without, a focal length of
        the longer side of the image is assumed.

    """

    def __init__(self, matcher: nn.Module, network: CorrespondenceNet) -> None:
        super().__init__()
        self.matcher = matcher
        self.filter = CorrespondenceFilter(network)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.matcher(data)
        image = found["batch_indexes"]
        kept = torch.zeros_like(image, dtype=torch.bool)
        for b in image.unique().tolist():
            mine = (image == b).nonzero()[:, 0]
            pairs = mine[:, None].expand(-1, 2)
            cameras = _camera(data, 0, b), _camera(data, 1, b)
            kept[mine] = self.filter(found["keypoints0"], found["keypoints1"], pairs, cameras).logits > 0
        # frames have a batch dimension of 1 before that of the matches
        return {name: t[:, kept] if name.startswith("lafs") else t[kept] for name, t in found.items()}


def _camera(data: dict[str, Tensor], which: int, index: int) -> Camera:
    intrinsics = data.get(f"intrinsics{which}")
    if intrinsics is not None:
        return intrinsics[index if len(intrinsics) > 1 else 0]
    height, width = data[f"image{which}"].shape[-2:]
    return width, height
