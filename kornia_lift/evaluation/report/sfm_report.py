"""Reconstructions of several features as a file and as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from kornia_lift._io import atomic_write, read_json
from kornia_lift.evaluation.report.blocks import Block, Heading, Paragraph, Table
from kornia_lift.evaluation.sfm import SfmScores

FORMAT = "kornia_lift.sfm/1"
_HEAD = (
    "feature",
    "images",
    "points",
    "track length",
    "reprojection error, px",
    "camera centres, mm",
    "focal length, %",
)


@dataclass(frozen=True)
class SfmResults:
    """What several features reconstruct.

    Attributes:
        features: by feature the scores of its scenes, first with known intrinsics, then with unknown ones.
        options: of the reconstruction.
        provenance: versions, machine, time.
    """

    features: Mapping[str, Sequence[SfmScores]]
    options: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        content = {
            "format": FORMAT,
            "options": dict(self.options),
            "provenance": dict(self.provenance),
            "features": {name: [s.as_dict() for s in scores] for name, scores in self.features.items()},
        }
        text = json.dumps(content, allow_nan=False, indent=1) + "\n"
        with atomic_write(path) as temporary:
            temporary.write_text(text)

    @classmethod
    def load(cls, path: str | Path) -> SfmResults:
        """Read JSON that :meth:`save` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            content = read_json(Path(path))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            features = {name: [_scores(s) for s in scores] for name, scores in content["features"].items()}
            return cls(features, dict(content["options"]), dict(content["provenance"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is not a result file of reconstructions (format {FORMAT}): {error}") from None

    def merge(self, newer: SfmResults) -> SfmResults:
        """Rows of both; where a feature is in both, the row of ``newer``.

        Raises:
            ValueError: if they were made with other options.
        """
        if dict(self.options) != dict(newer.options):
            raise ValueError(f"the reconstructions were made with {dict(self.options)} and {dict(newer.options)}")
        return SfmResults({**self.features, **newer.features}, newer.options, newer.provenance)


def _scores(content: Mapping[str, Any]) -> SfmScores:
    scores = SfmScores(**content)
    for name, kind in get_type_hints(SfmScores).items():
        value = getattr(scores, name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} is {value!r}")
    return scores


def sfm_table(scores: Mapping[str, SfmScores]) -> Table:
    """One scene: a row per feature."""
    focal = any(s.focal_error is not None for s in scores.values())
    millimetres = all(s.metric for s in scores.values())
    head = list(_HEAD if focal else _HEAD[:-1])
    if not millimetres:
        head[5] = "camera centres, units of the scene"
    rows: list[Sequence[str]] = []
    for name, s in scores.items():
        row = [
            name,
            f"{s.registered} of {s.images}",
            str(s.points),
            f"{s.track_length:.2f}",
            "–" if s.reprojection_error is None else f"{s.reprojection_error:.2f}",
            "–" if s.centre_error is None else f"{s.centre_error * (1000 if millimetres else 1):.3g}",
            "–" if s.focal_error is None else f"{100 * s.focal_error:.2f}",
        ]
        rows.append(row if focal else row[:-1])
    return Table(head, rows)


def sfm_report(results: SfmResults) -> list[Block]:
    """All scenes, with known and with unknown intrinsics."""
    blocks: list[Block] = [
        Heading("Structure from motion", 1),
        Paragraph(
            f"{results.options.get('num_features')} keypoints per image at most, mutual nearest neighbours of all "
            "pairs of images, geometric verification and incremental mapping by pycolmap "
            f"{results.options.get('pycolmap')}. Camera centres: mean distance from the true ones after alignment by "
            "a similarity; it varies by some millimetres from run to run."
        ),
    ]
    keys = dict.fromkeys((s.scene, s.known_intrinsics) for scores in results.features.values() for s in scores)
    for scene, known in keys:
        rows = {
            name: s
            for name, scores in results.features.items()
            for s in scores
            if (s.scene, s.known_intrinsics) == (scene, known)
        }
        blocks += [Heading(f"{scene}, {'known' if known else 'unknown'} intrinsics"), sfm_table(rows)]
    return blocks
