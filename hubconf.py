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


def lift_plus(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """LIFT's detector with networks of our own, which find more correct matches; arguments as :func:`lift`.

    Random weights are those of the networks of :func:`lift`.
    """
    return LIFTFeature(num_features, pretrained="lift-plus" if pretrained else False, **kwargs)


def lift_plus_upright(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """:func:`lift_plus` without orientation, for cameras that are not rotated; the same arguments."""
    return LIFTFeature(num_features, True, pretrained="lift-plus-upright" if pretrained else False, **kwargs)


def lift_dense(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """:func:`lift_plus` with a response that sees its surroundings at several resolutions; the same arguments."""
    return LIFTFeature(num_features, pretrained="lift-dense" if pretrained else False, **kwargs)


def lift_dense_upright(pretrained: bool = True, num_features: int = 1000, **kwargs: Any) -> LIFTFeature:
    """:func:`lift_dense` without orientation, for cameras that are not rotated; the same arguments."""
    return LIFTFeature(num_features, True, pretrained="lift-dense-upright" if pretrained else False, **kwargs)
