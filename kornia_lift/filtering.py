"""Learned rejection of outliers among putative matches: by itself, and in kornia's ``LocalFeatureMatcher``."""

from __future__ import annotations

import torch
from kornia.core.exceptions import ShapeError
from kornia.feature import GeometryAwareDescriptorMatcher, get_laf_center, match_nn
from torch import Tensor, nn

from kornia_lift.epipolar import assumed_intrinsics
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


class LearnedMatcher(GeometryAwareDescriptorMatcher):
    """Nearest neighbours, then :class:`CorrespondenceFilter`: a matcher for kornia's ``LocalFeatureMatcher``.

    Args:
        network: a trained :class:`~kornia_lift.networks.correspondence.CorrespondenceNet`.
        cameras: of the first and the second images, K (3, 3) or width and height: kornia hands no image sizes to
            matchers.

    Shape:
        - Input: descriptors :math:`(N_1, D)`, :math:`(N_2, D)`; LAFs :math:`(1, N_1, 2, 3)`, :math:`(1, N_2, 2, 3)`
        - Output: distances :math:`(M, 1)`, index pairs :math:`(M, 2)`, as kornia's matchers give them

    """

    def __init__(self, network: CorrespondenceNet, cameras: tuple[Camera, Camera]) -> None:
        super().__init__("fginn")  # the mode is not used: kornia knows by the class that LAFs are wanted
        self.filter = CorrespondenceFilter(network)
        self.cameras = cameras

    def forward(self, desc1: Tensor, desc2: Tensor, lafs1: Tensor, lafs2: Tensor) -> tuple[Tensor, Tensor]:
        distance, pairs = match_nn(desc1, desc2)
        if not len(pairs):
            return distance, pairs
        points = get_laf_center(lafs1)[0], get_laf_center(lafs2)[0]
        inlier = self.filter(*points, pairs, self.cameras).logits > 0
        return distance[inlier], pairs[inlier]
