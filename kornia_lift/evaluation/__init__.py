"""Measure any local feature: ground-truth transfer, measures, protocols, reports."""

from kornia_lift.evaluation.measures.metrics import PairScores, score_pair, score_scene_pair
from kornia_lift.evaluation.validation import evaluate_feature, evaluate_warps
from kornia_lift.evaluation.warps import RESCALES, ROTATIONS, ImageWarp, WarpedScene
from kornia_lift.features import Features

__all__ = [
    "RESCALES",
    "ROTATIONS",
    "Features",
    "ImageWarp",
    "PairScores",
    "WarpedScene",
    "evaluate_feature",
    "evaluate_warps",
    "score_pair",
    "score_scene_pair",
]
