"""Trainings from folders on the command line: TILDE's filters, learned correspondences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.convert import load_tilde
from kornia_lift.files.lock import FileLock
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.training.config import ConfigError, read_mapping
from kornia_lift.training.folder_run import FOLDER_RECIPES, read_folder_run
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.tilde import recipe as tilde
from kornia_lift.weights import WeightFileError, save_model
from tests.helpers.training import aligned_stack

TILDE = """
recipe = "tilde"
data = ["nowhere"]
[tilde]
num_sum = 2
num_max = 2
channels = 1
filter_size = 11
map_size = 7
keypoints = 30
apart = 8.0
locations_per_batch = 8
[tilde.tilde]
steps = 40
learning_rate = 1e-3
validate_every = 20
checkpoint_every = 20
"""


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Two stacks of dots on a background that changes."""
    cv2 = pytest.importorskip("cv2")
    for name, seed in (("one", 0), ("two", 1)):
        folder = tmp_path / "data" / "illumination" / name
        folder.mkdir(parents=True)
        for n, image in enumerate(aligned_stack(seed).images):
            cv2.imwrite(str(folder / f"{n}.png"), (image[0] * 255).round().to(torch.uint8).numpy())
    (tmp_path / "tilde.toml").write_text(TILDE)
    return tmp_path


def test_command_trains_filters_that_find_the_dots(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(stacks / "tilde.toml"), "--data", str(stacks / "data"), "--out", str(stacks / "run")]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "tilde: validation error" in said.out and "weights:" in said.out
    response = load_tilde(stacks / "run" / "tilde.safetensors")
    unseen = aligned_stack(7)
    with torch.no_grad():
        score = response(unseen.images)[:, 0]
    (x, y), (u, v) = (points.astype(int).T for points in (unseen.positives, unseen.negatives))
    order = score[:, y, x][:, :, None] > score[:, v, u][:, None]
    assert order.float().mean() > 0.95  # by chance half
    assert main(command) == 0  # nothing is left to do
    assert "at step" in capsys.readouterr().out


def test_two_runs_do_not_train_in_one_folder(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stacks / "run"
    out.mkdir()
    with FileLock(out / tilde.WEIGHTS):
        assert main(["train", str(stacks / "tilde.toml"), "--data", str(stacks / "data"), "--out", str(out)]) == 2
    assert "is being written by another run" in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_command_trains_correspondences(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("pycolmap")
    (tmp_path / "data" / "sfm").mkdir(parents=True)
    for name in ("castle_facade", "reichstag"):
        (tmp_path / "data" / "sfm" / name).symlink_to(shared / "data/train/sfm" / name)
    (tmp_path / "few.toml").write_text(
        'recipe = "correspondences"\ndata = ["nowhere"]\n[correspondences]\nkeypoints = 80\nmax_pairs = 2\n'
        "max_size = 256\nmatches_per_pair = 60\nchannels = 8\nblocks = 2\nside = true\n"
        "[correspondences.loop]\nsteps = 2\n"
    )
    out = tmp_path / "run"
    command = ["train", str(tmp_path / "few.toml"), "--data", str(tmp_path / "data"), "--out", str(out)]
    assert main([*command, "--features", "opencv-sift", "--max-minutes", "5"]) == 0
    assert "correspondences: validation error" in capsys.readouterr().out
    assert CorrespondenceNet(out / "correspondence.safetensors", channels=8, blocks=2, side=True) is not None


@pytest.mark.parametrize("name", FOLDER_RECIPES)
def test_shipped_recipes_are_read_and_take_a_budget(name: str) -> None:
    run = read_folder_run(read_mapping(recipe_path(Path(name))), {"data": ["here"]}, 7.0)
    assert run.recipe == name and run.data == (Path("here"),)
    loop = run.tilde.tilde if name == "tilde" else run.correspondences.loop
    assert loop.max_minutes == 7.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ["opencv-sift", "lift"]}, "takes one of features"),
        ({"features": []}, "features names nothing"),
        ({"stages": ["tilde"]}, "unknown option stages"),
        ({"init": "lift"}, "unknown option init"),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_folder_run({"recipe": "tilde", "data": ["here"]}, options)


def test_unknown_feature_is_an_error_of_the_command(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(stacks / "tilde.toml"), "--data", str(stacks / "data"), "--out", str(stacks / "run")]
    assert main([*command, "--features", "no-such-feature"]) == 2
    assert "unknown feature 'no-such-feature'" in capsys.readouterr().err


def test_weights_of_something_else_are_no_filters(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", {"tilde": torch.nn.Linear(2, 2)})
    with pytest.raises(WeightFileError, match="does not say which filters"):
        load_tilde(tmp_path / "a.safetensors")
    config = '{"num_sum": 100000, "num_max": 4, "channels": 6, "filter_size": 21}'
    save_model(tmp_path / "b.safetensors", {"tilde": torch.nn.Linear(2, 2)}, {"config": config})
    with pytest.raises(WeightFileError, match="impossible size"):
        load_tilde(tmp_path / "b.safetensors")
