"""Lines and bars of the curves can be told apart, and the gallery shows the pairs that its page promises."""

from __future__ import annotations

import pytest

from kornia_lift.evaluation.report.plots import bar_style, line_style, mma_plot
from kornia_lift.evaluation.report.results import Results
from tests.helpers.repository import ROOT, load_script

RESULTS = ROOT / "benchmarks" / "results" / "accuracy" / "accuracy.json"


def test_twenty_features_have_twenty_styles() -> None:
    lines = {(style["color"], style["linestyle"]) for style in map(line_style, range(20))}
    bars = {(style["color"], style["hatch"]) for style in map(bar_style, range(20))}
    assert len(lines) == len(bars) == 20


def test_lines_of_a_plot_differ_and_the_legend_names_them_all() -> None:
    pytest.importorskip("matplotlib")
    figure = mma_plot(Results.load(RESULTS), "posed")
    lines = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) > 10
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [line.get_label() for line in lines]


def test_gallery_shows_the_middle_and_the_last_pair_of_each_scene() -> None:
    pytest.importorskip("PIL")
    gallery = load_script("benchmarks/pages/gallery.py")
    results = Results.load(RESULTS)
    (lift,) = [feature for feature in results.features if feature.name == "lift"]
    for section, rank in (("middle", 0.5), ("worst", 1.0)):
        shown = gallery.chosen(results, "lift", section)
        assert len(shown) == len({s.scene for s in shown}) == 6
        for entry in shown:
            counts = [p.values["correct_matches"] for p in lift.pairs[entry.group] if p.scene == entry.scene]
            rank_index = min(int(rank * len(counts)), len(counts) - 1)
            assert entry.found["lift"] == sorted(counts, reverse=True)[rank_index]
