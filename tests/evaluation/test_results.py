"""Result files of evaluations: written, read back, and refused where they are damaged."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.report.blocks import to_html, to_markdown
from kornia_lift.evaluation.report.plots import plots, svg
from kornia_lift.evaluation.report.results import FeatureResults, Results, compare_features, provenance
from kornia_lift.evaluation.report.tables import MOST_COLUMNS, report, scenes_table
from kornia_lift.evaluation.runner import OK, PairResult, evaluate
from kornia_lift.scenes.homographies import HomographySequence
from tests.helpers.small_scenes import (
    write_perfect,
)


def test_results_survive_the_file(tmp_path: Path, sequence: HomographySequence) -> None:
    write_perfect(tmp_path / "f.h5", sequence.name)
    with FeatureStore(tmp_path / "f.h5") as store:
        rows = evaluate(store, [sequence])
    results = Results("t", [FeatureResults("a", {"homography": rows})], {"num_features": 5}, provenance())
    results.save(tmp_path / "r.json")
    loaded = Results.load(tmp_path / "r.json")
    assert loaded.feature("a").estimate("homography", "nn_map") == results.feature("a").estimate("homography", "nn_map")
    same = compare_features(loaded.feature("a"), results.feature("a"), "homography", "nn_map")
    assert (same.verdict, same.ratio) == ("undecided", 1)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not a result file"):
        Results.load(tmp_path / "x.json")


def test_results_hold_no_nan(tmp_path: Path) -> None:
    rows = [PairResult("s", "1", "2", OK, "", {"pose_error": np.inf, "nn_map": np.nan, "mma_1": 0.5}, np.nan)]
    Results("t", [FeatureResults("a", {"posed": rows})], {}, {}).save(tmp_path / "r.json")
    pair = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)["features"][0]["pairs"]["posed"][0]
    assert (pair["values"], pair["angle_deg"]) == ({"pose_error": None, "nn_map": None, "mma_1": 0.5}, None)
    with pytest.raises(ValueError, match="JSON"):
        Results("t", [], {"threshold": np.nan}, {}).save(tmp_path / "r.json")


@pytest.mark.parametrize("text", ["[]", "{", '{"format": "kornia_lift.evaluation/1"}', "[" * 100_000])
def test_damaged_results_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r\.json is"):
        Results.load(tmp_path / "r.json")


def test_results_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a named pipe"):
        Results.load(tmp_path / "pipe")


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    """Dollar signs are no mathematics, bars no cells, angle brackets no HTML."""
    name = "a|b $x$ <i> *c* `d`"
    rows = [PairResult(scene, "1", "2", OK, "", {"correct_matches": 5.0, "mma_1": 0.5}, 3.0) for scene in ("s", "t|u")]
    results = Results(name, [FeatureResults(name, {name: rows})], {"num_features": 5, "threshold": 3.0}, {})
    text = to_markdown(report(results))
    cells = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in cells[:3]} == {len(cells[0])}
    assert r"a\|b \$x\$ \<i\> \*c\* \`d\`" in text
    page = to_html(report(results))
    assert "<i>" not in page
    assert "&lt;i&gt;" in page
    assert all("a|b $x$" in svg(figure) or "svg" in svg(figure) for figure in plots(results).values())


@pytest.mark.parametrize("count", [2, MOST_COLUMNS, MOST_COLUMNS + 1])
def test_many_scenes_are_rows(count: int) -> None:
    scenes = [f"s{n}" for n in range(count)]
    rows = [
        FeatureResults(name, {"g": [PairResult(s, "1", "2", OK, "", {"correct_matches": n}, 3.0) for s in scenes]})
        for n, name in enumerate(["a", "b", "c"])
    ]
    table = scenes_table(Results("t", rows, {}, {}), "g")
    assert table is not None
    by_scene = count > MOST_COLUMNS
    assert table.head[1:] == (["a", "b", "c"] if by_scene else scenes)
    assert table.rows[-1] == ([scenes[-1], "0", "1", "2"] if by_scene else ["c", *["2"] * count])
