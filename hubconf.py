"""Entry points of ``torch.hub``: ``torch.hub.load(".", "lift", source="local")`` in a clone."""

from typing import Any

from kornia_lift.feature import LIFTFeature

dependencies = ["torch", "kornia", "numpy"]


def lift(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """LIFT with the shipped weights, in eval mode: ``feature(image) -> (lafs, responses, descriptors)``.

    Args:
        pretrained: ``False`` for random weights.
        num_features: keypoints per image.
        kwargs: further arguments of :class:`kornia_lift.LIFTFeature`.

    """
    return LIFTFeature(num_features, pretrained=pretrained, **kwargs)


def lift_upright(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """LIFT without orientation, for cameras that are not rotated; arguments as :func:`lift`."""
    return LIFTFeature(num_features, True, pretrained="lift-upright" if pretrained else False, **kwargs)


def lift_plus(num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """LIFT's detector with networks of our own, which find more correct matches; arguments as :func:`lift`."""
    return LIFTFeature(num_features, pretrained="lift-plus", **kwargs)


def lift_fast(num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """A convolutional detector and smaller networks than those of ``lift-plus``; arguments as :func:`lift`."""
    return LIFTFeature(num_features, pretrained="lift-fast", **kwargs)
