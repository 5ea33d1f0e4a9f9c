"""``kornia-lift extract --shard`` and ``merge``: many processes, one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kornia.feature import SIFTFeature

from kornia_lift.extraction import shard_of
from tests.helpers.cli import NAMES, OPTIONS, Call, astronaut, contents, one_line, save


def test_merge_reports_what_shards_lack(call: Call, folder: Path) -> None:
    (folder / "bad.jpg").write_text("no image")
    codes = [call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/2").code for index in range(2)]
    assert sorted(codes) == [0, 1]
    answer = call("merge", *sorted(Path().glob("f.shard-*.h5")), "--out", "f.h5")
    assert answer.code == 1
    assert answer.out == "3 images from 2 files in f.h5\n"
    assert "1 image missing" in one_line(answer.err)


@pytest.mark.parametrize("how", ["option", "torchrun"])
def test_shards_merge_to_the_same_file(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    call("extract", folder, "--out", "whole.h5", *OPTIONS)
    for index in range(3):
        if how == "torchrun":
            monkeypatch.setenv("RANK", str(index))
            monkeypatch.setenv("WORLD_SIZE", "3")
        option = ["--shard", f"{index}/3"] if how == "option" else []
        assert call("extract", folder, "--out", "f.h5", *OPTIONS, *option).code == 0
    parts = [Path(f"f.shard-{index}-of-3.h5") for index in range(3)]
    assert [list(contents(part)) for part in parts] == [["b.jpg"], ["deep/c.png"], ["a.png"]]
    answer = call("merge", *parts, "--out", "f.h5")
    assert answer.code == 0
    assert answer.out == "3 images from 3 files in f.h5\n"
    whole, merged = contents(Path("whole.h5")), contents(Path("f.h5"))
    assert list(whole) == list(merged) == NAMES
    for name in NAMES:
        for key, value in whole[name].items():
            np.testing.assert_array_equal(merged[name][key], value)
    # A merged file is a feature file: nothing is left to do.
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "3 already present, skipped" in call("extract", folder, "--out", "f.h5", *OPTIONS).out


def test_merge_refuses_what_does_not_belong_together(call: Call, folder: Path) -> None:
    for index in range(2):
        call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/2")
    call("extract", folder, "--out", "g.h5", "-n", 61)
    call("extract", folder, "--out", "h.h5", *OPTIONS, make_feature=lambda args: SIFTFeature(args.num_features, True))
    first, second = "f.shard-0-of-2.h5", "f.shard-1-of-2.h5"
    for argv, message in [
        ([first, "--out", "f.h5"], "shard 1 of 2 is missing"),
        ([first, second, "g.h5", "--out", "f.h5"], "g.h5 was made with other options"),
        ([first, second, "h.h5", "--out", "f.h5"], "hold the image 'a.png', with different features"),
        ([first, "absent.h5", "--out", "f.h5"], "absent.h5 does not exist"),
        ([first, second, "--out", first], "one of the files to merge"),
    ]:
        answer = call("merge", *argv)
        assert answer.code == 2, argv
        assert message in one_line(answer.err)
    assert not Path("f.h5").exists()


def test_shard_without_images_still_counts(call: Call, folder: Path) -> None:
    for index in range(5):
        assert call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/5").code == 0
    answer = call("merge", *sorted(Path().glob("f.shard-*.h5")), "--out", "f.h5")
    assert answer.out == "3 images from 5 files in f.h5\n"


def test_added_images_keep_the_shards_of_the_others(call: Call, folder: Path) -> None:
    def shards() -> list[Path]:
        for index in range(2):
            assert call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/2").code == 0
        return sorted(Path().glob("f.shard-*.h5"))

    assert call("merge", *shards(), "--out", "f.h5").code == 0
    for name in ("0.png", "aa.png", "d.png"):
        save(folder / name, astronaut(64))
    answer = call("merge", *shards(), "--out", "f.h5")
    assert (answer.code, answer.out) == (0, "6 images from 2 files in f.h5\n")


def test_shards_are_balanced() -> None:
    sizes = np.bincount([shard_of(f"DSC{number:05d}.JPG", 8) for number in range(8000)])
    assert len(sizes) == 8
    assert 900 < sizes.min() <= sizes.max() < 1100  # 1000 +- 30 by chance


def test_merge_takes_equal_copies(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    call("extract", folder / "deep", folder / "a.png", "--out", "g.h5", *OPTIONS)
    answer = call("merge", "f.h5", "g.h5", "--out", "h.h5")
    assert (answer.code, answer.out) == (0, "4 images from 2 files in h.h5\n")  # c.png and deep/c.png
    merged, whole = contents(Path("h.h5")), contents(Path("f.h5"))
    for name in NAMES:
        np.testing.assert_array_equal(merged[name]["descriptors"], whole[name]["descriptors"])
