"""Results as tables: what users do next with the matches first, then keypoints and descriptors by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kornia_lift._words import counted
from kornia_lift.evaluation.measures.correct import THRESHOLD
from kornia_lift.evaluation.report.blocks import Block, Heading, Items, Paragraph, Table
from kornia_lift.evaluation.report.results import FeatureResults, Results, compare_features, smaller_is_better
from kornia_lift.evaluation.runner import OK


class Column(NamedTuple):
    """A measure in a table.

    Args:
        measure: its name in the results.
        heading: its name in the table.
        digits: behind the decimal point.
    """

    measure: str
    heading: str
    digits: int = 3


#: Numbers of correct matches, spread, precision, then what is estimated from them.
LEADING = (
    Column("correct_matches", "correct matches", 0),
    Column("epipolar_matches", "epipolar-consistent matches", 0),
    Column("coverage", "coverage", 2),
    Column("epipolar_coverage", "coverage", 2),
    Column("epipolar_precision", "epipolar precision"),
    Column("pose_auc_5", "pose AUC@5°"),
    Column("pose_auc_10", "@10°"),
    Column("pose_auc_20", "@20°"),
    Column("pose_auc_5_filtered", "learned filter + MAGSAC, pose AUC@5°"),
    Column("pose_auc_10_filtered", "@10°"),
    Column("pose_auc_20_filtered", "@20°"),
    Column("homography_auc_1", "homography AUC@1 px"),
    Column("homography_auc_3", "@3 px"),
    Column("homography_auc_5", "@5 px"),
    Column("mma_1", "MMA@1 px"),
    Column("median_error", "error, px", 2),
    Column("median_epipolar_error", "epipolar error, px", 2),
    Column("crowding", "crowding", 2),
)
#: Keypoints and descriptors by themselves.
KEYPOINTS = (
    Column("repeatability", "repeatability"),
    Column("repeatability_one_to_one", "one-to-one"),
    Column("matching_score", "matching score"),
    Column("matching_score_one_to_one", "one-to-one"),
    Column("nn_map", "NN mAP"),
    Column("mma_3", "MMA@3 px"),
)
OVERLAP = tuple(
    Column(f"{measure}_overlap{form}", f"{heading} {form.rstrip('n')} %{' norm.' if form.endswith('n') else ''}")
    for form in ("40", "50", "40n", "50n")
    for measure, heading in (("repeatability", "rep."), ("matching_score", "m. score"), ("nn_map", "mAP"))
)
#: Scenes that a table has columns for.
MOST_COLUMNS = 12
#: The measure by scene, by warp and over the angle: the first of these that a group has.
ONE_MEASURE = ("correct_matches", "epipolar_matches", "matching_score")


def group_table(
    results: Results,
    group: str,
    *,
    columns: Sequence[Column] = LEADING,
    intervals: bool = True,
    baseline: str | None = None,
) -> Table | None:
    """One table: a row per feature, a column per measure that the group has.

    Args:
        results: what to show.
        group: group of scenes.
        columns: measures and their headings.
        intervals: print the 95 % interval of the first measure.
        baseline: feature by which the first measure is divided in an additional column.

    Returns:
        The table; None if the group has none of the measures.
    """
    measured = {m for f in results.features for m in f.measures(group)}
    columns = [c for c in columns if c.measure in measured]
    if not columns:
        return None
    reference = next((f for f in results.features if f.name == baseline), None)
    features = [f for f in results.features if group in f.pairs]
    estimates = {(f.name, c.measure): f.estimate(group, c.measure) for f in features for c in columns}
    extra = int(reference is not None) + int(intervals)
    head = ["feature", *(c.heading for c in columns)]
    if intervals:
        head.insert(2, "95 %")
    if reference is not None:
        head.insert(2, f"/ {reference.name}")
    rows, bold = [], set()
    for r, feature in enumerate(features):
        cells = [feature.name]
        for k, column in enumerate(columns):
            estimate = estimates[feature.name, column.measure]
            cells.append("–" if estimate is None else f"{estimate.value:.{column.digits}f}")
            known = [e.value for f in features if (e := estimates[f.name, column.measure]) is not None]
            best = min(known) if smaller_is_better(column.measure) and known else max(known, default=0.0)
            if estimate is not None and cells[-1] == f"{best:.{column.digits}f}":
                bold.add((r, k + 1 + (extra if k else 0)))
        first = columns[0]
        interval = estimates[feature.name, first.measure]
        if intervals:
            text = "–" if interval is None else f"{interval.low:.{first.digits}f}–{interval.high:.{first.digits}f}"
            cells.insert(2, text)
        if reference is not None:
            cells.insert(2, _ratio(feature, reference, group, first.measure))
        rows.append(cells)
    return Table(head, rows, frozenset(bold))


def counts(results: Results, group: str) -> list[Block]:
    """How many pairs there were, and every pair that failed or was skipped, with the reason."""
    numbers = {f.name: f.counts(group) for f in results.features if group in f.pairs}
    texts = {
        name: f"{counted(of['pairs'], 'pair')}, {of['failed']} failed, {of['skipped']} skipped."
        for name, of in numbers.items()
    }
    same = len(set(texts.values())) == 1
    blocks: list[Block] = [Paragraph(next(iter(texts.values())))] if same else []
    items = [] if same else [f"{name}: {text}" for name, text in texts.items()]
    reasons: dict[str, list[str]] = {}
    for feature in results.features:
        for pair in feature.pairs.get(group, ()):
            if pair.status != OK:
                text = f"{pair.scene} {pair.first}–{pair.second} {pair.status}: {pair.reason}"
                reasons.setdefault(text, []).append(feature.name)
    for text, names in reasons.items():
        items.append(f"{'all' if len(names) == len(numbers) else ', '.join(names)}: {text}")
    if items:
        blocks.append(Items(items))
    return blocks


def scenes_table(results: Results, group: str, measure: str | None = None) -> Table | None:
    """One measure by scene: a row per feature, a column per scene; None for a single scene.

    More than :data:`MOST_COLUMNS` scenes have a row each, and the features a column.
    """
    measure = measure or one_measure(results, group)
    scenes = list(dict.fromkeys(s for f in results.features for s in f.values(group, measure)))
    if len(scenes) < 2:
        return None
    digits = _digits(measure)
    rows = []
    for feature in (f for f in results.features if group in f.pairs):
        values = feature.values(group, measure)
        rows.append([feature.name, *(f"{values[s].mean():.{digits}f}" if s in values else "–" for s in scenes)])
    table = [[heading(measure), *scenes], *rows]
    if len(scenes) > MOST_COLUMNS:
        table = [list(column) for column in zip(*table, strict=True)]
    return Table(table[0], table[1:])


def warps_table(results: Results, measure: str | None = None) -> Table:
    """The robustness protocol: a row per feature, a column per warp of the second image."""
    measure = measure or one_measure(results, *results.groups)
    digits = _digits(measure)
    rows = []
    for feature in results.features:
        estimates = [feature.estimate(group, measure) for group in results.groups]
        rows.append([feature.name, *("–" if e is None else f"{e.value:.{digits}f}" for e in estimates)])
    return Table([heading(measure), *results.groups], rows)


def report(results: Results, *, baseline: str | None = None) -> list[Block]:
    """The whole report; :func:`~kornia_lift.evaluation.report.blocks.to_markdown` writes it."""
    info, options = results.provenance, results.options
    blocks: list[Block] = [Heading(results.title, 1)]
    threshold = options.get("threshold", THRESHOLD)
    blocks.append(
        Paragraph(
            f"{options.get('num_features')} keypoints per image at most. Correct matches: mutual nearest neighbours "
            f"within {threshold:g} px of the true transfer, thinned so that no two lie within 3 px of each other in "
            "either image. Values are means over the pairs of a scene, then over scenes; 95 % bootstrap intervals over "
            "pairs belong to the first column."
        )
    )
    if options.get("refine"):
        blocks.append(Paragraph("The positions of the matches in B were refined (`--refine`)."))
    if options.get("estimator_label"):
        blocks.append(Paragraph(f"Robust estimator: {options['estimator_label']}."))
    for group in results.groups:
        tables = [
            group_table(results, group, baseline=baseline),
            group_table(results, group, columns=KEYPOINTS, intervals=False),
            scenes_table(results, group),
        ]
        blocks += [Heading(group), *(t for t in tables if t is not None), *counts(results, group)]
        overlap = group_table(results, group, columns=OVERLAP, intervals=False)
        if overlap is not None:
            blocks += [Paragraph("Overlap form (norm.: regions normalised to 30 px):"), overlap]
    versions = ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items())
    blocks.append(
        Paragraph(f"Made {info.get('time')} at commit {info.get('commit')} on {info.get('machine')}; {versions}.")
    )
    return blocks


def one_measure(results: Results, *groups: str) -> str:
    """The first of :data:`ONE_MEASURE` that these groups have."""
    measured = {m for f in results.features for g in groups for m in f.measures(g)}
    return next((m for m in ONE_MEASURE if m in measured), ONE_MEASURE[-1])


def heading(measure: str) -> str:
    """The name of a measure in a table."""
    return next((c.heading for c in (*LEADING, *KEYPOINTS) if c.measure == measure), measure.replace("_", " "))


def _digits(measure: str) -> int:
    return next((c.digits for c in (*LEADING, *KEYPOINTS) if c.measure == measure), 3)


def _ratio(feature: FeatureResults, reference: FeatureResults, group: str, measure: str) -> str:
    try:
        return f"{compare_features(feature, reference, group, measure).ratio:.2f}"
    except ValueError:  # one of them was not measured here
        return "–"
