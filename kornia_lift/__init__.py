"""LIFT, the Learned Invariant Feature Transform (Yi et al., ECCV 2016), for kornia."""

import importlib as _importlib
import typing as _typing

from kornia_lift._version import __version__

if _typing.TYPE_CHECKING:
    from kornia_lift import convert as convert
    from kornia_lift import evaluation as evaluation
    from kornia_lift import feature as feature
    from kornia_lift import features as features
    from kornia_lift import files as files
    from kornia_lift import geometry as geometry
    from kornia_lift import integrations as integrations
    from kornia_lift import matching as matching
    from kornia_lift import networks as networks
    from kornia_lift import reconstruction as reconstruction
    from kornia_lift import scenes as scenes
    from kornia_lift import training as training
    from kornia_lift import viz as viz
    from kornia_lift import weights as weights
    from kornia_lift._io import ImageFileError, load_image
    from kornia_lift.detector.detector import LIFTDetector
    from kornia_lift.detector.scale_space import ScaleSpaceConfig
    from kornia_lift.feature import LIFTFeature
    from kornia_lift.feature.mixing import mix_features
    from kornia_lift.matching.images import match_images
    from kornia_lift.networks.descriptor import LIFTDescriptor
    from kornia_lift.networks.orientation import LIFTOrientation
    from kornia_lift.networks.response import LIFTResponse
    from kornia_lift.viz import draw_keypoints, draw_matches

__all__ = [
    "ImageFileError",
    "LIFTDescriptor",
    "LIFTDetector",
    "LIFTFeature",
    "LIFTOrientation",
    "LIFTResponse",
    "ScaleSpaceConfig",
    "__version__",
    "draw_keypoints",
    "draw_matches",
    "load_image",
    "match_images",
    "mix_features",
]

_MODULES = {
    "ImageFileError": "_io.images",
    "LIFTDescriptor": "networks.descriptor",
    "LIFTDetector": "detector.detector",
    "LIFTFeature": "feature.lift",
    "LIFTOrientation": "networks.orientation",
    "LIFTResponse": "networks.response",
    "ScaleSpaceConfig": "detector.scale_space",
    "draw_keypoints": "viz",
    "draw_matches": "viz",
    "load_image": "_io.images",
    "match_images": "matching.images",
    "mix_features": "feature.mixing",
}
_SUBPACKAGES = frozenset(
    {
        "convert",
        "evaluation",
        "feature",
        "features",
        "files",
        "geometry",
        "integrations",
        "matching",
        "networks",
        "reconstruction",
        "scenes",
        "training",
        "viz",
        "weights",
    }
)


# torch and kornia take seconds to import: `kornia-lift --help` does without them
def __getattr__(name: str) -> _typing.Any:
    if name in _SUBPACKAGES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
