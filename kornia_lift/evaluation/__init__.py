"""Measure any local feature: ground-truth transfer, measures, protocols, reports."""

from .features import Features
from .metrics import PairScores, score_pair, score_scene_pair
from .validation import evaluate_feature, evaluate_warps
from .warps import RESCALES, ROTATIONS, ImageWarp, WarpedScene

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
