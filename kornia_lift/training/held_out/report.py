"""The end of a run: what it did to the held-out pairs, as a table, a sentence and a picture of matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift._words import counted
from kornia_lift.evaluation.features.extraction import ExtractedFeatures
from kornia_lift.evaluation.measures.correct import THRESHOLD, correct_matches, mutual_matches, transfer_error
from kornia_lift.evaluation.measures.epipolar import EPIPOLAR_THRESHOLD, scene_epipolar_distance
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.measures.statistics import FEWEST_PAIRS
from kornia_lift.evaluation.report.blocks import Block, Heading, Paragraph, Table, to_markdown
from kornia_lift.evaluation.report.results import FeatureResults, Results
from kornia_lift.evaluation.runner import SKIPPED
from kornia_lift.features import Features
from kornia_lift.scenes.scene import HasPose, Scene
from kornia_lift.training.held_out.referee import Referee, Verdict
from kornia_lift.viz import Picture, draw_matches

REPORT, RESULTS, PICTURE = "held_out.md", "held_out_table.json", "matches.jpg"
_MEASURES = {
    "cameras": ("epipolar_matches", "pose_error", "pose_auc_10", "pose error, degrees", "pose AUC@10°"),
    "other": (
        "correct_matches",
        "homography_error",
        "homography_auc_5",
        "homography error, px",
        "homography AUC@5 px",
    ),
}
_ABOUT = {
    "cameras": f"images with known cameras; a match is correct within {EPIPOLAR_THRESHOLD:g} px of both epipolar lines",
    "homographies": f"images with known homographies; a match is correct within {THRESHOLD:g} px",
    "warped": f"crops of the held-out images and warped copies of them; a match is correct within {THRESHOLD:g} px",
}


@dataclass(frozen=True)
class HeldOutReport:
    """What a run did to the held-out pairs.

    Args:
        blocks: the tables and what they say.
        verdict: of the weights before and after.
        results: the figures of every pair.

    """

    blocks: Sequence[Block]
    verdict: Verdict
    results: Results

    def as_text(self) -> str:
        """Return the report in Markdown."""
        return to_markdown(self.blocks)


def make_report(
    referee: Referee, rows: Sequence[FeatureResults], verdict: Verdict, remarks: Sequence[str], *, chosen: bool
) -> HeldOutReport:
    """Put what was measured into tables, one per group of pairs.

    Args:
        referee: what measured.
        rows: what was measured, in the order of the table.
        verdict: of the weights before and after.
        remarks: further sentences.
        chosen: stages were kept or undone by these pairs.

    """
    blocks: list[Block] = [Heading("Held-out pairs", 2)]
    for group, scenes in referee.groups.items():
        blocks += [
            Paragraph(f"{_counts(scenes)}: {_ABOUT[group]}. Means over pairs; the error is the median."),
            _table(group, rows),
        ]
    how = f"{referee.config.num_features} keypoints, mutual nearest neighbours, OpenCV USAC_MAGSAC."
    biased = " The kept weights were chosen on these pairs, so their figures are slightly optimistic."
    blocks.append(Paragraph(how + biased if chosen else how))
    blocks += [Paragraph(text) for text in remarks]
    if verdict.pairs < FEWEST_PAIRS:
        blocks.append(Paragraph(f"{verdict.pairs} pairs are too few to tell small differences: hold out more images."))
    return HeldOutReport(blocks, verdict, referee.results("Held-out pairs of a training", rows))


def write_report(report: HeldOutReport, out: Path) -> None:
    """Write the tables as Markdown and the figures of every pair as JSON into the folder of the run."""
    report.results.save(out / RESULTS)
    with atomic_write(out / REPORT) as temporary:
        temporary.write_text(report.as_text(), encoding="utf-8")


def write_picture(
    referee: Referee, models: Mapping[str, str | Path], row: FeatureResults, path: Path, affine: bool = False
) -> str | None:
    """Draw the matches of one pair by several models, one below the other: correct ones green, wrong ones red.

    Args:
        referee: has the pairs.
        models: by the name in the picture.
        row: the pair is the one with the median number of correct matches in it.
        path: the picture.
        affine: with affine shapes.

    Returns:
        Names of the two images; None where no pair was measured.

    """
    found = _median_pair(referee, row)
    if found is None:
        return None
    scene, pair = found
    rows = []
    for name, model in models.items():
        source = ExtractedFeatures(referee.extractor(model, affine), [scene], referee.config.num_features)
        first, second = (source.read(scene.name, scene.names[k]) for k in pair)
        picture, correct, count = draw_pair(scene, pair, (first, second))
        rows.append(_titled(picture, f"{name}: {correct} of {count} correct"))
    width = max(r.shape[1] for r in rows)
    rows = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    with atomic_write(path) as temporary:
        image = require("PIL.Image", extra="train").fromarray(np.concatenate(rows))
        image.save(temporary, format="JPEG", quality=88)
    return " and ".join(scene.names[k] for k in pair)


def draw_pair(scene: Scene, pair: tuple[int, int], features: tuple[Features, Features]) -> tuple[Picture, int, int]:
    """Draw the mutual nearest neighbours of a pair; those that the geometry confirms count as correct.

    Returns:
        RGB picture (H, W, 3), the number of correct matches, and of all.

    """
    first, second = features
    neighbours = nearest_neighbours(first, second)
    a, matches = mutual_matches(first.keypoints, second.keypoints, neighbours)
    if hasattr(scene, "homography"):
        error, limit = transfer_error(scene.transfer(*pair, first.keypoints), a, matches[1]), THRESHOLD
    else:
        assert isinstance(scene, HasPose)
        error, limit = scene_epipolar_distance(scene, pair, *matches[:2]), EPIPOLAR_THRESHOLD
    order = np.argsort(matches[2], kind="stable")
    correct = (error <= limit)[order]
    lafs = first.lafs[a[order]], second.lafs[neighbours.forward[a][order]]
    picture = draw_matches(
        scene.image(pair[0]), scene.image(pair[1]), lafs, correct=correct, max_width=1160, max_height=500
    )
    return picture, len(correct_matches(matches, error, limit)), len(a)


def _titled(picture: Picture, text: str) -> Picture:
    cv2 = require("cv2", extra="train")
    bar = np.full((24, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def _median_pair(referee: Referee, row: FeatureResults) -> tuple[Scene, tuple[int, int]] | None:
    for group, scenes in referee.groups.items():
        measure = _measures(group)[0]
        scored = sorted((p for p in row.pairs[group] if p.status != SKIPPED), key=lambda p: p.values.get(measure, 0.0))
        if scored:
            chosen = scored[len(scored) // 2]
            scene = next(s for s in scenes if s.name == chosen.scene)
            return scene, (scene.names.index(chosen.first), scene.names.index(chosen.second))
    return None


def _measures(group: str) -> tuple[str, str, str, str, str]:
    return _MEASURES["cameras" if group == "cameras" else "other"]


def _counts(scenes: Sequence[Scene]) -> str:
    pairs, images = (sum(len(getattr(s, what)) for s in scenes) for what in ("pairs", "names"))
    named = ", ".join(s.name for s in scenes[:4]) + (", ..." if len(scenes) > 4 else "")
    return f"{counted(pairs, 'pair')} of {counted(images, 'image')} ({named})"


def _table(group: str, rows: Sequence[FeatureResults]) -> Table:
    count, error, area, error_heading, area_heading = _measures(group)
    cells = []
    for row in rows:
        pairs = [p.values for p in row.pairs.get(group, ()) if p.status != SKIPPED]
        errors = np.array([v.get(error, np.inf) for v in pairs] or [np.inf])
        median = float(np.median(errors))
        means = [float(np.mean([v.get(m, 0.0) for v in pairs])) if pairs else 0.0 for m in (count, area)]
        cells.append(
            [row.name, f"{means[0]:.1f}", f"{median:.2f}" if np.isfinite(median) else "none", f"{means[1]:.3f}"]
        )
    largest = {c: max((float(row[c]) for row in cells), default=0.0) for c in (1, 3)}
    best = {(r, c) for r, row in enumerate(cells) for c in largest if float(row[c]) == largest[c]}
    return Table(("weights", "correct matches", error_heading, area_heading), cells, frozenset(best))
