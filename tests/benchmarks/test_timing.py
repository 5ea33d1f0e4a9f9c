"""The benchmarks of time and memory run in miniature, and write what the documentation quotes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cv2")
pytest.importorskip("skimage")

from benchmarks.timing import compiled, gradients, inference_paths
from benchmarks.timing.cases import Case, measure
from benchmarks.timing.results import quotient
from benchmarks.timing.turns import take_turns


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["provenance"]["commit"] and content["provenance"]["versions"]["torch"]
    return content


def test_calls_take_turns() -> None:
    called: list[str] = []
    seconds = take_turns({name: partial(called.append, name) for name in "ab"}, rounds=2)
    assert called == ["a", "b"] * 3
    assert all(len(values) == 2 and min(values) >= 0 for values in seconds.values())


def test_memory_with_gradients(tmp_path: Path) -> None:
    cases = (gradients.Case("lift", 120), gradients.Case("lift", 120, kept=True))
    assert gradients.main(["--size", "128", "96", "--out", str(tmp_path / "a.json")], cases) == 0
    again, kept = read(tmp_path / "a.json")["cases"]
    for row in (again, kept):
        assert 100 < row["loaded_mb"] < row["forward_mb"] <= row["backward_mb"]
    assert not again["kept"] and kept["kept"]
    assert kept["forward_mb"] > again["forward_mb"] + 20  # 2 MB for a patch


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    """With a backend that compiles nothing: the real one takes minutes."""
    options = ["--patches", "9", "--size", "120", "100", "--keypoints", "5", "--rounds", "1", "--models", "lift"]
    assert compiled.main([*options, "--backend", "eager", "--out", str(tmp_path / "a.json")]) == 0
    content = read(tmp_path / "a.json")
    assert content["graphs"] == {"lift": 1}
    assert set(content["seconds"]) == {"descriptor", "orientation", "detector", "feature"}
    for row in content["seconds"].values():
        assert len(row) == 6 and min(row.values()) > 0


def test_inference_paths(tmp_path: Path) -> None:
    options = ["--size", "300", "200", "--patches", "16", "--rounds", "1", "--out", str(tmp_path / "a.json")]
    assert inference_paths.main(options) == 0
    rows = {row["name"]: row for row in read(tmp_path / "a.json")["rows"]}
    assert len(rows) == 7
    for row in rows.values():
        assert {"as defined", "float32"} <= set(row["time"]) and min(row["time"].values()) > 0
    described = [row for name, row in rows.items() if name.endswith("descriptor")]
    assert len(described) == 2
    for row in described:
        assert row["cosine"]["as defined"]["smallest"] > 0.9999 and row["cosine"]["bfloat16"]["mean"] > 0.999


def test_quotients_are_of_calls_one_after_the_other() -> None:
    """A machine of half the pace for some of the pairs changes nothing."""
    calls = [{"total": seconds} for seconds in (2.0, 4.0, 2.0)]
    assert quotient({"seconds": calls, "beside_seconds": [1.0, 2.0, 1.0]}) == 2
    assert quotient({"seconds": calls}) is None
    assert quotient({"seconds": [], "beside_seconds": []}) is None


def test_a_method_is_timed_beside_another() -> None:
    row = measure(Case("opencv-orb", 320, 240, 100, threads=1, clock="wall", repeats=2, beside="opencv-sift"))
    assert len(row["seconds"]) == len(row["beside_seconds"]) == 2
    assert 0 < (quotient(row) or 0) < 1  # ORB is the faster one
