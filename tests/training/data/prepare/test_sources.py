"""Which scenes of several folders are trained on, and which are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from kornia_lift.training.data.prepare.sources import split_folders
from kornia_lift.training.data.split import SplitConfig


def write_stacks(root: Path, *names: str) -> Path:
    for name in names:
        (root / "illumination" / name).mkdir(parents=True)
    return root


def test_scenes_of_one_kind_are_divided_by_their_names(tmp_path: Path) -> None:
    roots = [write_stacks(tmp_path / "a", "one", "two"), write_stacks(tmp_path / "b", "three")]
    (roots[0] / "posed" / "castle").mkdir(parents=True)
    train, held_out = split_folders(roots, "exposures", SplitConfig(held_out=("t*",)))
    assert train == [roots[0] / "illumination" / "one"]
    assert held_out == [roots[0] / "illumination" / "two", roots[1] / "illumination" / "three"]


def test_scenes_of_the_same_name_are_refused_instead_of_one_being_lost(tmp_path: Path) -> None:
    roots = [write_stacks(tmp_path / "a", "one", "two"), write_stacks(tmp_path / "b", "two")]
    with pytest.raises(ValueError, match="two scenes are called illumination/two.*rename"):
        split_folders(roots, "exposures", SplitConfig())


def test_a_folder_that_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        split_folders([tmp_path / "nowhere"], "exposures", SplitConfig())


def test_what_a_recipe_needs_is_said(tmp_path: Path) -> None:
    root = write_stacks(tmp_path / "a", "one")
    with pytest.raises(ValueError, match=r"at least two folders of aligned images.* found illumination/one in"):
        split_folders([root], "exposures", SplitConfig())
    with pytest.raises(ValueError, match=r"at least two reconstructed scenes.* found none in"):
        split_folders([root], "sfm", SplitConfig())
    stores = tmp_path / "stores"
    stores.mkdir()
    (stores / "church.npz").touch()
    with pytest.raises(FileNotFoundError, match="it holds stores, which this does not read"):
        split_folders([stores], "sfm", SplitConfig())
