"""From a config file to weights, through the command line as a user does it, and what it says when that fails."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.files.lock import FileLock
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.training.config import ConfigError, read_mapping
from kornia_lift.training.data.store import Store, save_store
from kornia_lift.training.loop.checkpoint import load_checkpoint
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import WEIGHTS, read_run, with_budget
from tests.helpers.training import with_image

TINY = """
recipe = "paper"
data = ["{folder}/store.npz"]
validation = ["{folder}/held_out"]
stages = ["overlap"]
table = false
[paper.overlap]
steps = 30
validate_every = 15
checkpoint_every = 2
log_every = 1
[paper.detector_options]
quadruplets = 4
mining_ratio = 1
validation_quadruplets = 20
"""


@pytest.fixture
def config(tiny_store: Store, tmp_path: Path) -> Path:
    save_store(tmp_path / "store.npz", tiny_store)
    held_out = tiny_store
    for index in range(3):
        held_out = with_image(held_out, index, tiny_store.decode(index).numpy(), 80)
    (tmp_path / "held_out").mkdir()
    save_store(tmp_path / "held_out" / "store.npz", held_out)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(folder=tmp_path.as_posix()))
    return path


@pytest.mark.parametrize("name", ["paper", "modern", "compact", "lfnet"])
def test_the_shipped_recipes_are_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(read_mapping(recipe_path(Path(name))))
    assert run.recipe == name
    assert run.chosen_stages
    monkeypatch.chdir(tmp_path)
    assert recipe_path(Path(f"{name}.toml")) == Path(f"{name}.toml")  # a path stays a path
    (tmp_path / name).touch()
    assert recipe_path(Path(name)) == Path(name)


def test_two_runs_do_not_train_in_one_folder(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would write each other's checkpoints."""
    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / WEIGHTS):
        assert main(["train", str(config), "--out", str(out)]) == 2
    assert f"{out / WEIGHTS} is being written by another run" in capsys.readouterr().err
    assert list(out.iterdir()) == []
    assert main(["train", str(config), "--out", str(out)]) == 0


def test_too_little_memory_is_said_with_what_to_change(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object) -> None:
        torch.empty(1 << 60)  # what torch says of it is what is to be recognised

    monkeypatch.setattr("kornia_lift.training.paper.recipe.PaperRecipe.make_stage", greedy)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("kornia-lift: out of memory: copy the recipe and lower the sizes of its batches")


def test_train_writes_weights_log_and_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(config), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    said = printed.out
    assert "stages: overlap (at most 30 steps); trained on 3 images of rotated, flat, " in printed.err
    assert "overlap: validation error" in said
    assert "not trained yet, random numbers in the weights: descriptor, orientation, detector\n" in said
    state = load_checkpoint(out / "overlap" / "last.pt")
    assert state["step"] == 30
    assert state["resolved"]["detector_options"]["quadruplets"] == 4
    lines = [json.loads(line) for line in (out / "overlap" / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in lines if e["kind"] == "train"] == list(range(1, 31))
    pytest.importorskip("safetensors")
    LIFTDescriptor(out / "weights.safetensors")
    assert main(["train", str(config), "--out", str(out)]) == 0  # nothing left to do


def test_max_minutes_ends_a_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("steps = 30", "steps = 1000000"))
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--max-minutes", "0.02"]) == 0
    said = capsys.readouterr().out
    assert "(out of time)" in said and "out of time: overlap; the same command with a larger --max-minutes" in said
    for minutes in ("-1", "0", "ten"):
        with pytest.raises(SystemExit):
            main(["train", str(config), "--out", str(tmp_path / "run"), "--max-minutes", minutes])
        assert f"expected a number above 0, got '{minutes}'" in capsys.readouterr().err


def test_a_budget_is_divided_over_the_chosen_stages() -> None:
    base = {"recipe": "paper", "data": ["x"], "stages": ["overlap", "detector"]}
    run = with_budget(read_run(base), 10)
    assert run.paper.overlap.max_minutes == run.paper.detector.max_minutes == 5
    assert run.paper.descriptor.max_minutes is None
    weighted = {"overlap": {"max_minutes": 30}, "detector": {"max_minutes": 10}}
    run = with_budget(read_run({**base, "paper": weighted}), 8)
    assert (run.paper.overlap.max_minutes, run.paper.detector.max_minutes) == (6, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "modernist"}, "recipe must be one of 'paper', 'modern', 'compact', 'lfnet', got 'modernist'"),
        ({"data": []}, "data names no training data"),
        ({"stages": ["describe"]}, "unknown stage 'describe'; the paper recipe has descriptor"),
        ({"modern": {}}, r"the table \[modern\] has no effect on the recipe 'paper'"),
        ({"paper": {"descriptor": {"step": 1}}}, r"unknown option paper\.descriptor\.step; valid are"),
        ({"paper": {"descriptor_options": {"validation_pairs": 0}}}, "validation_pairs must be at least 2, got 0"),
        ({"paper": {"descriptor_options": {"pairs": 0}}}, "paper.descriptor_options: pairs must be at least 1, got 0"),
        ({"paper": {"orientation_options": {"validation_pairs": 1}}}, "validation_pairs must be at least 2, got 1"),
        ({"paper": {"detector_options": {"validation_quadruplets": 0}}}, "validation_quadruplets must be at least 2"),
        ({"paper": {"split": {"share": 1.0}}}, "paper.split: share must be below 1"),
        ({"recipe": ["paper"]}, "recipe must be one of 'paper', 'modern', 'compact', 'lfnet', got"),
        ({"paper": {"descriptor": {"learning_rate": 10**400}}}, "learning_rate must be finite, got an integer of 401"),
        ({"paper": {"descriptor": {"steps": 10**400}}}, "steps must have at most 64 bits"),
        ({"paper": {"synthetic": {"zoom": 0.5}}}, "paper.synthetic: zoom must be at least 1, got 0.5"),
        ({"recipe": "modern", "modern": {"crops": {"max_step": 0.1}}}, "modern.crops: max_step must be at least 0.7"),
        ({"recipe": "modern", "modern": {"anchors_per_image": 1}}, "modern: anchors_per_image must be at least 2"),
    ],
)
def test_what_is_wrong_with_a_config_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_run({"recipe": "paper", "data": ["x"], **change})


def test_errors_of_the_data_are_one_line(
    config: Path, tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*more: str) -> str:
        assert main(["train", str(config), "--out", str(tmp_path / "run"), *more]) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    assert "build-dataset" in complaint("--data", str(tmp_path / "none.npz"))
    (tmp_path / "empty").mkdir()
    assert "holds no images" in complaint("--data", str(tmp_path / "empty"))
    store = tmp_path / "store.npz"
    store.write_bytes(store.read_bytes()[:3000])
    assert "truncated" in complaint()
    alone = tiny_store.tracks.take(tiny_store.tracks.point == 3)
    save_store(store, dataclasses.replace(tiny_store, tracks=alone))
    assert "at least two points" in complaint()
    config.write_text("recipe = ")
    assert "not well formed" in complaint()


@pytest.mark.parametrize("stage", ["orientation", "detector", "joint"])
def test_no_stage_trains_through_random_networks(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--stages", stage]) == 2
    assert "run/descriptor/best.pt is missing; train it first (`--stages descriptor" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_data_cannot_be_validation_data(
    config: Path, tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("other/0", "rotated/1", "other/2")
    images = tuple(dataclasses.replace(i, name=name) for i, name in zip(tiny_store.images, names, strict=True))
    renamed = dataclasses.replace(tiny_store, images=images)
    save_store(tmp_path / "renamed.npz", renamed)
    for path in ("store.npz", "renamed.npz"):
        more = ["--out", str(tmp_path / "run"), "--validation", str(tmp_path / path)]
        assert main(["train", str(config), *more]) == 2
        assert "3 of 3 images of the validation data are training data too" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("abacus", "cuda:77"):
        assert main(["train", str(config), "--out", str(tmp_path / "run"), "--device", device]) == 2
        said = capsys.readouterr().err
        assert "device expects a device of this machine (auto, cpu" in said and f"got '{device}': " in said
