"""Two images in, verified matches out: extraction, matching and verification in one call."""

from __future__ import annotations

import math
import os
from numbers import Integral

from torch import Tensor, nn

from kornia_lift._checks import check_image
from kornia_lift._io import load_image
from kornia_lift._kornia import ShapeError
from kornia_lift.feature.lift import LIFTFeature
from kornia_lift.matching.filtering import CorrespondenceFilter
from kornia_lift.matching.pairs import PairMatch, match_tensors
from kornia_lift.matching.verification import Geometry, check_geometry

Image = Tensor | str | os.PathLike[str]


def match_images(
    first: Image,
    second: Image,
    feature: nn.Module | None = None,
    *,
    max_size: int = 1600,
    ratio: float = 0.95,
    geometry: Geometry = "fundamental",
    threshold: float = 2.0,
    keep: CorrespondenceFilter | None = None,
    refine: bool = True,
) -> PairMatch:
    """Extract, match and verify the features of two images; no gradient is recorded.

    Args:
        first: path, or tensor (1, 1 or 3, H, W) or (1 or 3, H, W) with values in [0, 1].
        second: the other image, of any size.
        feature: any kornia local feature, ``(image) -> (lafs, responses, descriptors)``; ``None``: the shipped LIFT
            with 2000 keypoints. Build it once where many pairs are matched. Images are moved to its device.
        max_size: larger images are reduced to this longer side before extraction, 0 for never; results are in pixels
            of the images as given.
        ratio: nearest over second-nearest descriptor distance at most, in both directions; 1 switches the test off.
        geometry: ``"fundamental"`` for any static scene, ``"homography"`` for planes and pure rotations.
        threshold: largest error of an inlier, in pixels.
        keep: a learned filter that chooses among all nearest neighbours instead of the ratio test, such as
            ``CorrespondenceFilter(CorrespondenceNet(pretrained=True))``.
        refine: move the matched positions in the second image to where it shows the keypoints of the first one
            (:class:`~kornia_lift.matching.refinement.MatchRefiner`).

    Returns:
        Features of both images, index pairs of the putative matches, which of them are inliers, and the matrix:
        :class:`~kornia_lift.matching.PairMatch`.

    Raises:
        FileNotFoundError: if there is no such file.
        kornia_lift.ImageFileError: if a file cannot be read as an image.
        kornia.core.exceptions.ShapeError: if a tensor has another shape.
        TypeError: if an image, the feature or the filter is of another kind.
        ValueError: if an option is out of range.
        MissingExtraError: if OpenCV is not installed: ``pip install 'kornia_lift[cli]'``.

    Example:
        >>> from kornia_lift import LIFTFeature, match_images
        >>> image = torch.rand(1, 1, 96, 128)
        >>> match = match_images(image, image, LIFTFeature(50, pretrained=False).eval())
        >>> match.pairs.shape[1], match.verified.shape == match.pairs[:, 0].shape
        (2, True)

    """
    _check_options(feature, max_size, ratio, geometry, threshold, keep)
    feature = LIFTFeature(2000) if feature is None else feature
    images = [_tensor(image) for image in (first, second)]
    weight = next(feature.parameters(), images[0])
    return match_tensors(
        feature,
        images[0],
        images[1],
        device=weight.device,
        max_size=max_size,
        ratio=ratio,
        geometry=geometry,
        threshold=threshold,
        keep=keep,
        refine=refine,
    )


def _check_options(
    feature: object, max_size: object, ratio: float, geometry: str, threshold: float, keep: object
) -> None:
    if feature is not None and not isinstance(feature, nn.Module):
        advice = f"LIFTFeature(2000, pretrained={feature!r})" if isinstance(feature, str) else "LIFTFeature(2000)"
        raise TypeError(f"match_images expects a feature such as {advice}, got {_kind(feature)}")
    if keep is not None and not isinstance(keep, nn.Module):
        raise TypeError(
            "match_images expects keep=CorrespondenceFilter(CorrespondenceNet(pretrained=True)) or None, got "
            f"{_kind(keep)}"
        )
    check_geometry(geometry)
    if isinstance(max_size, bool) or not isinstance(max_size, Integral) or int(max_size) < 0:
        raise ValueError(f"max_size expects a longer side in pixels, or 0 for any, got {max_size!r}")
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio expects a number above 0 and at most 1, which switches the test off, got {ratio!r}")
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold expects an error in pixels above 0, got {threshold!r}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {value!r}"


def _tensor(image: Image) -> Tensor:
    if not isinstance(image, (Tensor, str, os.PathLike)):
        raise TypeError(
            "match_images expects a path or a tensor (1, 1|3, H, W) with values in [0, 1], got "
            f"{type(image).__name__}; kornia.image.image_to_tensor(array).float() / 255 converts an array"
        )
    pixels = image if isinstance(image, Tensor) else load_image(image)
    pixels = pixels[None] if pixels.dim() == 3 else pixels
    check_image(pixels, "match_images", value_range=True)
    if len(pixels) != 1:
        raise ShapeError(f"match_images expects one image, (1, 1|3, H, W), got {tuple(pixels.shape)}")
    return pixels
