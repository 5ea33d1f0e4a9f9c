"""From two images to verified matches: extract, match, refine, verify, each timed."""

from kornia_lift.feature.extract import extract_features, shrink
from kornia_lift.matching.clock import StageClock
from kornia_lift.matching.descriptors import match_descriptors
from kornia_lift.matching.images import match_images
from kornia_lift.matching.pairs import PairMatch, match_pair, match_tensors
from kornia_lift.matching.refinement import MatchRefiner
from kornia_lift.matching.verification import Geometry, verify

__all__ = [
    "Geometry",
    "MatchRefiner",
    "PairMatch",
    "StageClock",
    "extract_features",
    "match_descriptors",
    "match_images",
    "match_pair",
    "match_tensors",
    "shrink",
    "verify",
]
