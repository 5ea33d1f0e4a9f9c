"""What is held out of the training, on data that declare a split and on anyone's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kornia_lift.training.data.images import list_sources
from kornia_lift.training.data.split import SplitConfig, describe_sources, find_sources, split_sources


def fill(root: Path, *names: str) -> Path:
    """Files that nobody decodes, each with a content of its own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def scene(name: str) -> tuple[str, ...]:
    return f"{name}/images/0.jpg", f"{name}/images/deep/1.jpg", f"{name}/sparse/points3D.bin"


def names(root: Path, config: SplitConfig | None = None) -> tuple[list[str], list[str]]:
    train, held_out = split_sources(root, split=config)
    return describe_sources(root, train), describe_sources(root, held_out)


def test_of_undeclared_data_a_share_of_each_kind_is_held_out(tmp_path: Path) -> None:
    photos = [f"photos/{i}.jpg" for i in range(10)]
    root = fill(tmp_path, *scene("sfm/church"), *scene("sfm/market"), *photos, "illumination/room/1.jpg")
    train, held_out = names(root)
    assert sorted(train + held_out) == sorted(["sfm/church", "sfm/market", *photos, "illumination/room"])
    assert [sum(n.startswith(kind) for n in held_out) for kind in ("sfm", "photos", "illumination")] == [1, 2, 0]
    assert names(root) == (train, held_out)
    others = {tuple(names(root, SplitConfig(seed=s))[1]) for s in range(5)}
    assert len(others) > 1
    assert len(names(root, SplitConfig(share=0.5))[1]) == 6
    assert names(root, SplitConfig(share=0.0))[1] == []


def test_declared_names_win_kind_by_kind(tmp_path: Path) -> None:
    photos = [f"photos/{i}.jpg" for i in range(5)]
    root = fill(tmp_path, *scene("sfm/reichstag"), *scene("sfm/a"), *scene("sfm/b"), *photos)
    train, held_out = names(root)
    assert [n for n in held_out if n.startswith("sfm")] == ["sfm/reichstag"]
    assert sum(n.startswith("photos") for n in held_out) == 1
    own = SplitConfig(held_out=("sfm/[ab]", "photos/3.jpg"))
    assert names(root, own)[1] == ["photos/3.jpg", "sfm/a", "sfm/b"]
    with pytest.raises(ValueError, match="held_out names 'sfm/c', which is not in"):
        names(root, SplitConfig(held_out=("sfm/c",)))
    with pytest.raises(ValueError, match="at least 0 and below 1, got 1"):
        SplitConfig(share=1.0)


def test_copies_of_a_photograph_stay_on_one_side(tmp_path: Path) -> None:
    root = fill(tmp_path, *(f"photos/{i}.jpg" for i in range(12)), *scene("sfm/a"), *scene("sfm/b"))
    for i in range(0, 12, 2):
        (root / f"photos/{i}.jpg").write_bytes((root / f"photos/{i + 1}.jpg").read_bytes())
    (root / "photos/5.jpg").write_bytes((root / "sfm/a/images/deep/1.jpg").read_bytes())
    (root / "photos/4.jpg").write_bytes((root / "sfm/a/images/deep/1.jpg").read_bytes())
    for seed in range(20):
        _, held_out = names(root, SplitConfig(seed=seed, share=0.4))
        assert 0 < len(held_out) <= 7
        for i in range(0, 12, 2):
            assert (f"photos/{i}.jpg" in held_out) == (f"photos/{i + 1}.jpg" in held_out)
        assert ("photos/4.jpg" in held_out) == ("sfm/a" in held_out)


def test_a_scene_alone_is_divided_by_photographs(tmp_path: Path) -> None:
    photos = [f"sfm/church/images/{i}.jpg" for i in range(10)]
    root = fill(tmp_path, *photos, "sfm/church/sparse/points3D.bin")
    train, held_out = names(root)
    assert sorted(train + held_out) == sorted(photos) and len(held_out) == 2
    sources = split_sources(root)
    assert not sources[0].sfm and not sources[0].empty and not sources[1].empty
    assert split_sources(root, split=SplitConfig(share=0.0))[1].empty
    fill(root, "photos/a.jpg", "photos/b.jpg")  # something else to hold out
    assert split_sources(root)[0].sfm == (root / "sfm" / "church",)
    few = fill(tmp_path / "few", *scene("church"), "church/images/2.jpg")
    assert split_sources(few)[1].empty


def test_photographs_and_scenes_directly_in_the_folder(tmp_path: Path) -> None:
    root = fill(tmp_path, *scene("church"), "a.jpg", "b.PNG", "._a.jpg", "notes.txt", "other/c.jpg")
    sources = list_sources(root)
    assert describe_sources(root, sources) == ["a.jpg", "b.PNG", "church"]
    assert sources.sfm == (root / "church",)
    assert len(find_sources(root, validation=True).photos) == 1
    assert list_sources(root / "church").sfm == (root / "church",)
    with pytest.raises(FileNotFoundError, match="holds no photographs"):
        list_sources(fill(tmp_path / "bare", "store.npz"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_sources(tmp_path / "none")
