"""The picture of a run shows its logs: every stage, every figure, the best step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kornia_lift.cli import main
from kornia_lift.training.curves import find_logs, plot_runs

pytest.importorskip("matplotlib")


def write_log(folder: Path, errors: list[float], **more: float) -> Path:
    folder.mkdir(parents=True)
    entries: list[dict[str, object]] = [{"step": s, "kind": "train", "loss": 1 / (s + 1)} for s in range(120)]
    entries += [{"step": 10 * s, "kind": "validation", "error": e, **more} for s, e in enumerate(errors)]
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in entries))
    return path


def texts(svg: Path) -> list[str]:
    """What matplotlib wrote, kept as comments beside the outlines of the letters."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def test_every_stage_has_its_panels_and_its_best_error(tmp_path: Path) -> None:
    write_log(tmp_path / "run" / "descriptor", [0.5, 0.125, 0.25], pr_auc=0.9)
    write_log(tmp_path / "run" / "orientation", [0.75, 0.625])
    shown = texts(plot_runs([tmp_path / "run"], tmp_path / "curves.svg"))
    assert {"descriptor", "orientation", "training loss", "validation error"} <= set(shown)
    assert "0.125" in shown and "0.625" in shown  # the best of each
    assert "pr_auc" in shown
    assert shown.count("none") == 1  # the orientation has no other figures


def test_runs_are_laid_over_one_another_and_named(tmp_path: Path) -> None:
    for name in ("paper", "modern-0.001"):
        write_log(tmp_path / name / "descriptor", [0.5, 0.25])
    shown = texts(plot_runs([tmp_path / "paper", tmp_path / "modern-0.001"], tmp_path / "both.svg"))
    assert shown.count("descriptor") == 3
    assert {"paper", "modern-0.001"} <= set(shown)


def test_runs_that_share_no_stage_or_have_one_name_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, stage in (("a/paper", "descriptor"), ("a/modern", "repeatable"), ("b/paper", "orientation")):
        write_log(tmp_path / run / stage, [0.5, 0.25])
    shown = texts(plot_runs([tmp_path / "a" / "paper", tmp_path / "a" / "modern"], tmp_path / "two.svg"))
    assert {"paper", "modern"} <= set(shown)
    same = [tmp_path / "a" / "paper", tmp_path / "b" / "paper"]
    assert {str(run) for run in same} <= set(texts(plot_runs(same, tmp_path / "same.svg")))
    logs = [
        tmp_path / "a" / "paper" / "descriptor" / "log.jsonl",
        tmp_path / "a" / "modern" / "repeatable" / "log.jsonl",
    ]
    assert {"descriptor", "repeatable"} <= set(texts(plot_runs(logs, tmp_path / "logs.svg")))
    assert main(["plot-training", *map(str, logs), "--out", str(tmp_path / "logs.svg")]) == 0
    said = capsys.readouterr().err
    assert f"no two runs have a stage in common, so nothing is compared ({logs[0]}: descriptor; {logs[1]}: " in said
    assert main(["plot-training", str(logs[0]), "--out", str(tmp_path / "one.svg")]) == 0
    write_log(tmp_path / "b" / "paper" / "descriptor", [0.5])
    assert main(["plot-training", *map(str, same), "--out", str(tmp_path / "same.svg")]) == 0
    assert capsys.readouterr().err == ""
    alone = texts(plot_runs([tmp_path / "a" / "paper"], tmp_path / "one.svg"))
    assert "paper" not in alone  # nothing to tell apart


def test_a_single_logged_value_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "refine"
    folder.mkdir(parents=True)
    entries = [{"step": 1, "kind": "train", "loss": 0.5}, {"step": 1, "kind": "validation", "error": 0.25}]
    (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    drawn = plot_runs([tmp_path / "run"], tmp_path / "one.svg").read_text()
    none = write_log(tmp_path / "none" / "refine", [0.25]).parents[1]
    (none / "refine" / "log.jsonl").write_text(json.dumps(entries[1]) + "\n")
    without = plot_runs([none], tmp_path / "none.svg").read_text()
    markers = [len(re.findall(r"<g clip-path[^>]*>\s*<use ", text)) for text in (drawn, without)]
    assert markers[0] == markers[1] + 1


def test_the_same_logs_give_the_same_picture(tmp_path: Path) -> None:
    log = write_log(tmp_path / "descriptor", [0.5])
    one, two = (plot_runs([log], tmp_path / name) for name in ("a.png", "b.png"))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")


def test_a_run_a_stage_and_a_log_are_found(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run" / "descriptor", [0.5])
    assert find_logs(tmp_path / "run") == find_logs(log.parent) == find_logs(log) == {"descriptor": log}


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "descriptor", [0.5])
    empty = tmp_path / "empty" / "log.jsonl"
    empty.parent.mkdir()
    empty.touch()
    other = tmp_path / "other.jsonl"
    other.write_text('{"step": 1}\n')
    for run, out, message in (
        (tmp_path / "empty" / "nothing", "a.svg", "holds no log of a training"),
        (empty, "a.svg", "the stage has not begun"),
        (other, "a.svg", "line 1 is not from a training"),
        (log, "a.jpg", "a figure ends in .svg, .png, .pdf"),
    ):
        assert main(["plot-training", str(run), "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "a.svg").exists()
    assert main(["plot-training", str(log), "--out", str(tmp_path / "a.svg")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.svg'}\n"
