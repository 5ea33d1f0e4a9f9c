"""A run that starts from weights never ends worse on the held-out pairs; its table and picture say what it did."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.evaluation.measures.epipolar import scene_epipolar_distance
from kornia_lift.evaluation.report.results import FeatureResults
from kornia_lift.evaluation.runner import OK, PairResult
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.training.held_out.referee import Referee, Verdict, judge
from kornia_lift.training.held_out.report import PICTURE, REPORT, RESULTS, make_report
from kornia_lift.training.held_out.scenes import HeldOutConfig, StoredCameras, held_out_scenes
from kornia_lift.training.held_out.verdicts import read_verdicts
from kornia_lift.training.initial import weights_digest
from kornia_lift.training.modern.descriptor import HardestDescriptorStage
from kornia_lift.training.run import _sentences, read_run, with_budget
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.training.watch import Watch
from kornia_lift.weights import load_tensors
from tests.helpers.plane_store import plane_in_two_views
from tests.helpers.tiny_recipes import TINY
from tests.helpers.training import picture

HELD_OUT = """
[held_out]
warped = 3
num_features = 80
[held_out.crops]
size = 160
per_image = 1
max_step = 1.2
"""
SMALL = HeldOutConfig(warped=2, num_features=70, crops=CropConfig(size=160, per_image=1, max_step=1.2))


@pytest.mark.parametrize("max_size", [1024, 200])
def test_cameras_of_a_store_agree_with_its_images_at_any_size(max_size: int) -> None:
    pytest.importorskip("pycolmap")
    store, homography = plane_in_two_views()
    groups = held_out_scenes(store, dataclasses.replace(SMALL, max_size=max_size, warped=0))
    (scene,) = groups["cameras"]
    assert isinstance(scene, StoredCameras) and len(scene.pairs) == 1
    factor = scene.image_size(0)[0] / 400
    assert scene.image(0).shape[-2:] == (round(300 * factor), round(400 * factor))
    xy = np.random.default_rng(1).uniform(50, 250, (40, 2))
    ends = [(points + 0.5) * factor - 0.5 for points in (xy, apply_homography(homography, xy))]
    assert scene_epipolar_distance(scene, (0, 1), *ends).max() < 1e-6
    assert np.median(scene_epipolar_distance(scene, (0, 1), ends[0], ends[1] + 3 * factor)) > 0.5 * factor


def test_homographies_come_back_from_the_tracks() -> None:
    store, homography = plane_in_two_views()
    flat = tuple(dataclasses.replace(i, kind="homography", camera=None) for i in store.images)
    (scene,) = held_out_scenes(dataclasses.replace(store, images=flat), dataclasses.replace(SMALL, warped=0))[
        "homographies"
    ]
    xy = np.random.default_rng(1).uniform(50, 250, (40, 2))
    assert np.abs(scene.transfer(0, 1, xy).points - apply_homography(homography, xy)).max() < 0.01


def test_few_pairs_are_joined_by_warped_crops() -> None:
    store, _ = plane_in_two_views()
    groups = held_out_scenes(store, dataclasses.replace(SMALL, warped=4))
    assert {name: sum(len(s.pairs) for s in scenes) for name, scenes in groups.items()} == {"cameras": 1, "warped": 4}


def scored(counts: list[float], accuracy: list[float]) -> FeatureResults:
    rows = [
        PairResult("s", str(n), "b", OK, "", {"epipolar_matches": c, "pose_auc_10": a})
        for n, (c, a) in enumerate(zip(counts, accuracy, strict=True))
    ]
    return FeatureResults("x", {"cameras": rows})


@pytest.mark.parametrize(
    ("counts", "accuracy", "accepted", "clear"),
    [
        ([11, 21, 31, 41, 51, 61], [0.5] * 6, True, True),
        ([9, 19, 29, 39, 49, 59], [0.9] * 6, False, True),
        ([10, 20, 30, 40, 50, 60], [0.5] * 6, True, False),  # the same weights
        ([20, 10, 40, 30, 60, 51], [0.5] * 6, True, False),  # one more, and far within chance
        ([11, 21, 31, 41, 51, 61], [0.3] * 6, False, True),  # more matches that give a worse pose
        ([11], [0.4], True, False),
    ],
)
def test_weights_are_judged_by_correct_matches_and_accuracy(
    counts: list[float], accuracy: list[float], accepted: bool, clear: bool
) -> None:
    before = scored([10.0, 20, 30, 40, 50, 60][: len(counts)], [0.5] * len(counts))
    verdict = judge(before, scored(counts, accuracy))
    assert (verdict.accepted, verdict.clear) == (accepted, clear)
    assert ("too few to tell" in verdict.as_text()) is not (clear or verdict.unchanged)


def test_a_run_from_random_weights_chose_nothing_on_the_held_out_pairs() -> None:
    referee = SimpleNamespace(groups={}, config=HeldOutConfig(), results=lambda title, rows: None)
    verdict = Verdict((10.0, 20.0), (0.5, 0.6), accuracy_fell=False, clear=True, pairs=16)
    text = make_report(referee, [], verdict, ["said"], chosen=False).as_text()  # type: ignore[arg-type]
    assert "USAC_MAGSAC." in text and "said" in text and "chosen" not in text


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    store, _ = plane_in_two_views()
    said: list[str] = []
    first = Referee(store, tmp_path, SMALL, say=said.append).measure("lift", "lift")
    again = Referee(store, tmp_path, SMALL, say=said.append).measure("after", "lift")
    assert starts(said) == 1 and first.pairs == again.pairs and again.name == "after"
    assert first.pairs["cameras"][0].values["epipolar_matches"] > 20
    other = dataclasses.replace(SMALL, num_features=50)
    Referee(store, tmp_path, other, say=said.append).measure("lift", "lift")
    assert starts(said) == 2
    (tmp_path / "held_out.json").write_text("{")
    Referee(store, tmp_path, SMALL, say=said.append).measure("lift", "lift")
    assert starts(said) == 3


def starts(said: list[str]) -> int:
    """Number of measurements, without the progress of slow ones."""
    return sum("held-out pairs" in text for text in said)


def test_measuring_shows_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = plane_in_two_views()
    monkeypatch.setattr("kornia_lift.training.held_out.referee.Watch", functools.partial(Watch, every=0.0))
    said: list[str] = []
    Referee(store, tmp_path, SMALL, say=said.append).measure("lift", "lift")
    assert said[0] == "measuring lift on 3 held-out pairs"
    assert {f"measuring lift: {done} of 6 images" for done in range(6)} <= set(said)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("safetensors")
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"holiday{i}.jpg"), picture(i, 220))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(data=folder.as_posix()) + HELD_OUT)
    return path


def tensors_of(model: str | Path) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in load_tensors(model)[0].items()}


def test_a_stage_that_makes_matching_worse_is_undone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage destroys the descriptor and calls that its best step; only the held-out pairs can tell."""

    def validate(stage: Any, batches: int = 6) -> dict[str, float]:
        validate.calls += 1  # type: ignore[attr-defined]
        return {"error": 1 / validate.calls}  # type: ignore[attr-defined]

    validate.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(HardestDescriptorStage, "validate", validate)
    text = config.read_text().replace("[modern.refine]\nsteps = 1", "[modern.refine]\nsteps = 4\nlearning_rate = 0.5")
    config.write_text(text.replace("[modern]\n", "[modern]\nmargin = 2.0\n"))
    out = tmp_path / "run"
    command = ["train", str(config), "--out", str(out), "--init", "lift", "--stages", "refine"]
    assert main([*command]) == 0
    said = capsys.readouterr().out
    assert "refine: undone" in said and "the weights are those of the start" in said
    assert not read_verdicts(out)["refine"].accepted
    start, end = tensors_of("lift"), tensors_of(out / "weights.safetensors")
    assert start.keys() == end.keys() and all(torch.equal(start[n], end[n]) for n in start)
    assert main([*command]) == 0  # nothing is trained or measured again, and the decision is the same
    again = capsys.readouterr()
    assert "measuring" not in again.err and "refine: undone" in again.out
    monkeypatch.undo()
    # a later stage does not go on from what was undone
    assert main([*command[:-1], "orientation"]) == 0
    end = tensors_of(out / "weights.safetensors")
    assert all(torch.equal(start[n], end[n]) for n in start if n.startswith("descriptor"))


def test_a_run_from_weights_ends_with_a_table_and_a_picture(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any stages, in the order of the recipe; those before them need not have been trained."""
    config.write_text(config.read_text().replace("table = false", "table = true"))
    out = tmp_path / "run"
    command = ["train", str(config), "--out", str(out), "--init", "lift", "--stages", "orientation", "refine"]
    assert main(command) == 0
    said = capsys.readouterr()
    for row in ("before (lift)", "after", "shipped lift", "SIFT"):
        assert f"| {row} |" in said.out
    assert said.err.index("refine (2/2): preparing") < said.err.index("refine (2/2): step 0 of")
    assert "refine (2/2): validation error: pairs with a wrong nearest neighbour among" in said.err
    assert "by chance" in said.err and "by chance" in said.out
    assert "not trained yet" not in said.out
    assert (out / REPORT).read_text().strip() in said.out
    assert "The kept weights were chosen on these pairs" in said.out
    assert (out / PICTURE).stat().st_size > 5000
    results = json.loads((out / RESULTS).read_text())
    assert [f["name"] for f in results["features"]] == ["before (lift)", "after", "shipped lift", "SIFT"]
    for verdict in read_verdicts(out).values():
        assert not verdict.accepted or verdict.correct[1] >= verdict.correct[0]
    assert json.loads((out / "initial.json").read_text())["weights_sha256"] == weights_digest("lift")


def test_a_run_goes_on_from_the_weights_that_it_was_begun_from(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, scratch = tmp_path / "begun", tmp_path / "scratch"
    stages = ["--stages", "orientation"]
    assert main(["train", str(config), "--out", str(begun), "--init", "lift", *stages]) == 0
    assert main(["train", str(config), "--out", str(scratch), *stages]) == 0
    assert main(["train", str(config), "--out", str(begun), *stages]) == 2
    said = "was started from the weights lift, not from random ones; continue with --init lift"
    assert said in capsys.readouterr().err
    assert main(["train", str(config), "--out", str(scratch), "--init", "lift", *stages]) == 2
    assert "was started from random weights" in capsys.readouterr().err
    own = str(begun / "weights.safetensors")
    assert main(["train", str(config), "--out", str(tmp_path / "own"), "--init", own, *stages]) == 0
    for model, message in (
        ("lift-plus", "use the recipe compact"),
        ("lifts", "unknown pretrained model 'lifts'"),
        (str(tmp_path / "none.safetensors"), "no weight file"),
    ):
        assert main(["train", str(config), "--out", str(tmp_path / "other"), "--init", model, *stages]) == 2
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("recipe", "init"), [("modern", "lift"), ("compact", "lift-plus"), ("paper", "lift"), ("lfnet", "lf-net")]
)
def test_a_name_with_weights_is_the_recipe_for_minutes(recipe: str, init: str, tmp_path: Path) -> None:
    from kornia_lift.training.config import read_mapping
    from kornia_lift.training.recipes import recipe_path

    scratch = read_run(read_mapping(recipe_path(Path(recipe))))
    run = read_run(read_mapping(recipe_path(Path(recipe), fine_tuning=True)), {"init": init})
    assert run.recipe == recipe and run.init == init and scratch.init is None
    for name in run.all_stages if recipe != "paper" else run.chosen_stages:
        loop, whole = getattr(run.options, name), getattr(scratch.options, name)
        assert loop.max_minutes <= 8 and loop.learning_rate < 0.5 * whole.learning_rate
    assert sum(getattr(run.options, n).max_minutes for n in run.chosen_stages) <= 10
    assert with_budget(run, 4).options != run.options


@pytest.mark.parametrize("accuracy", [0.5, 0.6])
def test_nothing_was_gained_only_where_the_weights_are_those_of_the_start(accuracy: float) -> None:
    """As many correct matches with another accuracy are of other weights."""
    stage = Verdict((10.0, 10.0), (0.5, accuracy), accuracy_fell=False, clear=False, pairs=16)
    config = read_run({"recipe": "modern", "data": ["x"], "init": "lift"})
    rows = [scored([10.0] * 6, [0.5] * 6)] * 4
    said = _sentences(config, stage, rows, {"refine": stage})
    assert ("refine: unchanged" in said[0]) == ("those of the start" in said[1]) == (accuracy == 0.5)
    assert ("the trained weights are kept" in said[1]) == (accuracy == 0.6)


def test_figures_that_did_not_change_are_no_unclear_difference() -> None:
    same = Verdict((10.0, 10.0), (0.5, 0.5), accuracy_fell=False, clear=False, pairs=16)
    assert same.unchanged and "too few" not in same.as_text()
    other = Verdict((10.0, 11.0), (0.5, 0.5), accuracy_fell=False, clear=False, pairs=16)
    assert not other.unchanged and "16 pairs are too few to tell from chance" in other.as_text()
