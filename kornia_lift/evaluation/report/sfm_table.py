"""Reconstructions as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kornia_lift.evaluation.report.blocks import Table
from kornia_lift.evaluation.sfm import SfmScores

_HEAD = (
    "feature", "images", "points", "track length", "reprojection error, px", "camera centres, mm", "focal length, %",
)  # fmt: skip


def sfm_table(scores: Mapping[str, SfmScores], *, millimetres: bool = True) -> Table:
    """One scene: a row per feature.

    Args:
        scores: by feature.
        millimetres: the unit of the scene is the metre; False prints camera centres in its own unit.
    """
    head = list(_HEAD)
    if not millimetres:
        head[5] = "camera centres, units of the scene"
    focal = any(s.focal_error is not None for s in scores.values())
    rows: list[Sequence[str]] = []
    for name, s in scores.items():
        centre = "–" if s.centre_error is None else f"{s.centre_error * (1000 if millimetres else 1):.3g}"
        row = [
            name,
            f"{s.registered} of {s.images}",
            str(s.points),
            f"{s.track_length:.2f}",
            "–" if s.reprojection_error is None else f"{s.reprojection_error:.2f}",
            centre,
            "–" if s.focal_error is None else f"{100 * s.focal_error:.2f}",
        ]
        rows.append(row if focal else row[:-1])
    return Table(head if focal else head[:-1], rows)
