"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from kornia_lift.evaluation.report.results import Results, compare_features
from kornia_lift.evaluation.runner import OK

#: Columns of the tables: measure, heading.
MAIN = (
    ("matching_score", "matching score"),
    ("nn_map", "NN mAP"),
    ("repeatability", "repeatability"),
    ("mma_3", "MMA@3"),
)
POSE = (("pose_auc_5", "pose AUC@5°"), ("pose_auc_10", "AUC@10°"), ("pose_auc_20", "AUC@20°"))
HOMOGRAPHY = (("homography_auc_1", "homography AUC@1"), ("homography_auc_3", "AUC@3"), ("homography_auc_5", "AUC@5"))
OVERLAP = tuple(
    (f"{measure}_overlap{form}", f"{heading} {form.rstrip('n')} %{' norm.' if form.endswith('n') else ''}")
    for form in ("40", "50", "40n", "50n")
    for measure, heading in (("repeatability", "rep."), ("matching_score", "m. score"), ("nn_map", "mAP"))
)


def group_table(
    results: Results,
    group: str,
    *,
    columns: Sequence[tuple[str, str]] = (*MAIN, *POSE, *HOMOGRAPHY),
    intervals: bool = True,
    baseline: str | None = None,
) -> str:
    """One table: a row per feature, a column per measure that the group has.

    Args:
        results: what to show.
        group: group of scenes.
        columns: measures and their headings.
        intervals: print the 95 % interval of the first measure.
        baseline: feature by which the first measure is divided in an additional column.
    """
    measured = {m for f in results.features for m in f.measures(group)}
    columns = [c for c in columns if c[0] in measured]
    if not columns:
        return ""
    head = ["feature", *(heading for _, heading in columns)]
    first = columns[0][0]
    reference = next((f for f in results.features if f.name == baseline), None)
    if intervals:
        head.insert(2, "95 %")
    if reference is not None:
        head.insert(2, f"/ {reference.name}")
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    estimates = {(f.name, m): f.estimate(group, m) for f in results.features for m, _ in columns}
    best = {m: max((e.value for f in results.features if (e := estimates[f.name, m])), default=0.0) for m, _ in columns}
    for feature in (f for f in results.features if group in f.pairs):
        cells = [feature.name]
        for measure, _ in columns:
            estimate = estimates[feature.name, measure]
            text = "–" if estimate is None else f"{estimate.value:.3f}"
            cells.append(
                f"**{text}**" if estimate is not None and round(estimate.value - best[measure], 4) >= 0 else text
            )
        interval = estimates[feature.name, first]
        if intervals:
            cells.insert(2, "–" if interval is None else f"{interval.low:.3f}–{interval.high:.3f}")
        if reference is not None:
            known = interval is not None and reference.values(group, first)
            cells.insert(2, f"{compare_features(feature, reference, group, first).ratio:.2f}" if known else "–")
        lines.append(_row(cells))
    return "\n".join(lines)


def counts_text(results: Results, group: str) -> str:
    """How many pairs there were, and every pair that failed or was skipped, with the reason."""
    lines = []
    counts = {f.name: f.counts(group) for f in results.features if group in f.pairs}
    if len({str(c) for c in counts.values()}) == 1:
        only = next(iter(counts.values()))
        lines.append(f"{only['pairs']} pairs, {only['failed']} failed, {only['skipped']} skipped.")
    else:
        lines += [f"{n}: {c['pairs']} pairs, {c['failed']} failed, {c['skipped']} skipped." for n, c in counts.items()]
    told: dict[str, list[str]] = {}
    for feature in results.features:
        for pair in feature.pairs.get(group, ()):
            if pair.status != OK:
                text = f"{pair.scene} {pair.first}–{pair.second} {pair.status}: {pair.reason}"
                told.setdefault(text, []).append(feature.name)
    for text, names in told.items():
        lines.append(f"- {'all' if len(names) == len(counts) else ', '.join(names)}: {text}")
    return "\n".join(lines)


def scenes_table(results: Results, group: str, measure: str = "matching_score") -> str:
    """One measure by scene: a row per feature, a column per scene; empty for a single scene."""
    scenes = list(dict.fromkeys(s for f in results.features for s in f.values(group, measure)))
    if len(scenes) < 2:
        return ""
    lines = [_row([measure.replace("_", " "), *scenes]), _row(["---", *["---:"] * len(scenes)])]
    for feature in (f for f in results.features if group in f.pairs):
        values = feature.values(group, measure)
        lines.append(_row([feature.name, *(f"{values[s].mean():.3f}" if s in values else "–" for s in scenes)]))
    return "\n".join(lines)


def warps_table(results: Results, measure: str = "matching_score") -> str:
    """The robustness protocol: a row per feature, a column per warp of the second image."""
    lines = [_row(["feature", *results.groups]), _row(["---", *["---:"] * len(results.groups)])]
    for feature in results.features:
        estimates = [feature.estimate(group, measure) for group in results.groups]
        lines.append(_row([feature.name, *("–" if e is None else f"{e.value:.3f}" for e in estimates)]))
    return "\n".join(lines)


def report(results: Results, *, baseline: str | None = None) -> str:
    """The whole report in Markdown."""
    info, options = results.provenance, results.options
    parts = [f"# {results.title}", ""]
    parts.append(
        f"{options.get('num_features')} keypoints per image at most, common view region, plain nearest neighbour, "
        f"threshold {options.get('threshold'):g} px. Values are means over the pairs of a scene, then over scenes; "
        "95 % bootstrap intervals over pairs belong to the first column."
    )
    if options.get("estimator_label"):
        parts.append(f"Robust estimator: {options['estimator_label']}.")
    for group in results.groups:
        parts += [
            "",
            f"## {group}",
            "",
            group_table(results, group, baseline=baseline),
            "",
            counts_text(results, group),
        ]
        by_scene = scenes_table(results, group)
        if by_scene:
            parts += ["", by_scene]
        overlap = group_table(results, group, columns=OVERLAP, intervals=False)
        if overlap:
            parts += ["", "Overlap form (norm.: regions normalised to 30 px):", "", overlap]
    versions = ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items())
    parts += ["", f"Made {info.get('time')} at commit {info.get('commit')} on {info.get('machine')}; {versions}."]
    return "\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
