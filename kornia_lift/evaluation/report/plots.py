"""Curves of a result: MMA over the threshold, correct matches by viewpoint angle and by sequence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.measures.metrics import MMA_THRESHOLDS
from kornia_lift.evaluation.report.results import Results
from kornia_lift.evaluation.report.tables import heading, one_measure
from kornia_lift.viz import plain_label

#: Edges of the bins of viewpoint angles, degrees.
ANGLE_BINS = (0, 10, 20, 30, 40, 60, 90)
#: Colours that remain distinct for colour-blind readers (Okabe and Ito); of more features, the next seven are dashed.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
MARKERS = "osDv^<>PXhp"
HATCHES = ("", "////", "....")


def mma_plot(results: Results, group: str) -> Any | None:
    """MMA at 1..10 px, one line per feature, as a matplotlib figure; None if the group has no such measure."""
    curves = {
        f.name: [e.value for t in MMA_THRESHOLDS if (e := f.estimate(group, f"mma_{t}"))] for f in results.features
    }
    curves = {name: curve for name, curve in curves.items() if len(curve) == len(MMA_THRESHOLDS)}
    if not curves:
        return None
    figure, axes = _figure("error threshold (px)", "mean matching accuracy", group)
    for k, (name, curve) in enumerate(curves.items()):
        axes.plot(MMA_THRESHOLDS, curve, label=plain_label(name), **line_style(k))
    axes.set_ylim(0, 1)
    _legend(figure)
    return figure


def angle_plot(results: Results, group: str) -> Any | None:
    """Correct matches over the viewpoint angle; None if the pairs of the group have no angles."""
    pairs = [p for f in results.features for p in f.pairs.get(group, ()) if p.angle_deg is not None]
    if not pairs:
        return None
    measure = one_measure(results, group)
    figure, axes = _figure("viewpoint angle (degrees)", heading(measure), group)
    for k, feature in enumerate(f for f in results.features if group in f.pairs):
        known = [p for p in feature.pairs.get(group, ()) if p.angle_deg is not None and measure in p.values]
        angles = np.array([p.angle_deg for p in known], dtype=np.float64)
        scores = np.array([p.values[measure] for p in known])
        bins = np.digitize(angles, ANGLE_BINS)
        used = np.unique(bins)
        axes.plot(
            [angles[bins == b].mean() for b in used],
            [scores[bins == b].mean() for b in used],
            label=plain_label(feature.name),
            **line_style(k),
        )
    axes.set_ylim(0)
    _legend(figure)
    return figure


def sequence_plot(results: Results, group: str) -> Any | None:
    """Correct matches by sequence as bars; None for fewer than two sequences."""
    measure = one_measure(results, group)
    scenes = list(dict.fromkeys(s for f in results.features for s in f.values(group, measure)))
    if len(scenes) < 2:
        return None
    figure, axes = _figure("", heading(measure), group)
    measured = [f for f in results.features if group in f.pairs]
    width = 0.8 / len(measured)
    for k, feature in enumerate(measured):
        values = feature.values(group, measure)
        heights = [float(values[s].mean()) if s in values else 0.0 for s in scenes]
        at = np.arange(len(scenes)) + (k + 0.5) * width - 0.4
        axes.bar(at, heights, width, label=plain_label(feature.name), **bar_style(k))
    axes.set_xticks(np.arange(len(scenes)), [plain_label(s) for s in scenes], rotation=20, fontsize=8)
    _legend(figure)
    return figure


def line_style(k: int) -> dict[str, Any]:
    """Colour, dash and marker of the k-th line: no two of the first 21 have the same colour and dash."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[k % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.4,
    }


def bar_style(k: int) -> dict[str, Any]:
    """Colour and hatch of the k-th bar of a group."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "hatch": HATCHES[k // len(COLOURS) % len(HATCHES)],
        "edgecolor": "white",
        "linewidth": 0,
    }


def plots(results: Results) -> dict[str, Any]:
    """All figures that the results allow, by name."""
    figures = {}
    for group in results.groups:
        figures[f"{group}_mma"] = mma_plot(results, group)
        figures[f"{group}_angle"] = angle_plot(results, group)
        figures[f"{group}_sequences"] = sequence_plot(results, group)
    return {name: figure for name, figure in figures.items() if figure is not None}


def save_plots(results: Results, folder: Path, prefix: str = "") -> list[Path]:
    """Write all figures as SVG files, named with a prefix. Returns their paths."""
    paths = []
    for name, figure in plots(results).items():
        path = folder / f"{prefix}{name}.svg"
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        paths.append(path)
    return paths


def svg(figure: Any) -> str:
    """A figure as SVG text, to be put into a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(x: str, y: str, title: str) -> tuple[Any, Any]:
    # The object interface keeps clear of pyplot's global state and needs no display.
    figure = require("matplotlib.figure", extra="eval").Figure(figsize=(7.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(plain_label(title), fontsize=9)
    axes.grid(alpha=0.3)
    return figure, axes


def _legend(figure: Any) -> None:
    """Beside the axes: a dozen names would cover the curves."""
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, handlelength=3.2)
