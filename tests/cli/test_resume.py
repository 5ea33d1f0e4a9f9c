"""``kornia-lift extract`` again: what was done is kept, whatever ended the run before."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from kornia.feature import SIFTFeature
from torch import nn

from kornia_lift.files import FeatureFile, FileInUseError
from tests.helpers.cli import NAMES, OPTIONS, Call, astronaut, contents, one_line, options_of, save
from tests.helpers.feature_files import random_features


def test_resumes_by_skipping(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = contents(Path("f.h5"))
    save(folder / "d.png", astronaut(128)[:100])

    seen: list[tuple[int, ...]] = []

    def counting(args: argparse.Namespace) -> nn.Module:
        feature = SIFTFeature(args.num_features)
        feature.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
        return feature

    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=counting)
    assert answer.code == 0
    assert seen == [(1, 1, 100, 128)]
    assert "1 image, " in answer.out
    assert "3 already present, skipped" in answer.out
    for name, image in contents(Path("f.h5")).items():
        for key, value in image.items():
            np.testing.assert_array_equal(value, before[name][key])


def stops_at(number: int) -> Callable[[argparse.Namespace], nn.Module]:
    """A feature at whose n-th image somebody presses Ctrl-C."""

    def make(args: argparse.Namespace) -> nn.Module:
        feature, calls = SIFTFeature(args.num_features), []

        def hook(module: nn.Module, inputs: object) -> None:
            calls.append(1)
            if len(calls) == number:
                raise KeyboardInterrupt

        feature.register_forward_pre_hook(hook)
        return feature

    return make


def test_a_stop_between_two_images_loses_nothing(call: Call, folder: Path) -> None:
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=stops_at(3))
    assert answer.code == 130
    assert "interrupted" in answer.err
    assert list(contents(Path("f.h5"))) == NAMES[:2]
    assert "2 already present, skipped" in call("extract", folder, "--out", "f.h5", *OPTIONS).out
    assert list(contents(Path("f.h5"))) == NAMES


def test_image_that_cannot_be_written_is_made_again(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that dies in the middle leaves no image that looks complete."""
    call("extract", folder / "a.png", "--out", "f.h5", *OPTIONS)
    create, made = h5py.Group.create_dataset, []

    def dies(group: h5py.Group, name: str, **kwargs: object) -> object:
        made.append(name)
        if len(made) == 3:
            raise OSError("disk full")
        return create(group, name, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Group, "create_dataset", dies)
        answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 2
    assert "disk full" in answer.err.splitlines()[-1]
    assert list(contents(Path("f.h5"))) == ["a.png"]
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    assert list(contents(Path("f.h5"))) == NAMES


def test_goes_on_from_the_parts_of_a_killed_run(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "whole.h5", *OPTIONS)
    with FeatureFile(Path("f.h5"), options_of("whole.h5")) as killed:
        killed.write("a.png", random_features(0))
        killed.write("deep/c.png", random_features(5))
    assert not Path("f.h5").exists()
    (killed.parts / ".1234.tmp.part.h5").write_text("the file that was being written")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 0
    assert "1 image, " in answer.out and "2 already present, skipped" in answer.out
    assert not killed.parts.exists()
    found = contents(Path("f.h5"))
    assert list(found) == NAMES
    assert [len(found[name]["keypoints"]) for name in ("a.png", "deep/c.png")] == [0, 5]
    assert len(found["b.jpg"]["keypoints"]) > 20


def test_damaged_part_is_named_and_removed(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    with FeatureFile(Path("f.h5"), options_of("f.h5")) as killed:
        for name in ("d.png", "e.png", "f.png"):
            save(folder / name, astronaut(64))
            killed.write(name, random_features(3))
    parts = sorted(killed.parts.iterdir())
    parts[0].write_bytes(b"cut off by a power failure")  # found before the images are extracted
    with h5py.File(parts[2], "a") as part:  # found when they are packed
        name = part.attrs["name"].decode()
        part[f"{name}/scores"][0] = np.nan
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 2
    assert f"{parts[2]} was damaged" in one_line(answer.err)
    assert Path("f.h5").read_bytes() == before
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    with h5py.File("f.h5") as file:
        assert sorted(file) == ["a.png", "b.jpg", "d.png", "deep", "e.png", "f.png"]
        assert sorted(len(file[f"{name}.png/keypoints"]) > 3 for name in "def") == [False, True, True]


def test_overwrite_keeps_the_old_file_until_the_end(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    answer = call("extract", folder, "--out", "f.h5", "-n", 61, "--overwrite", "--device", "toaster")
    assert answer.code == 2
    assert Path("f.h5").read_bytes() == before
    assert "3 images, " in call("extract", folder, "--out", "f.h5", "-n", 61, "--overwrite").out
    assert options_of("f.h5")["num_features"] == 61


def test_other_options_are_refused(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    answer = call("extract", folder, "--out", "f.h5", "-n", 61)
    assert answer.code == 2
    assert "num_features 60, not 61" in one_line(answer.err)
    assert Path("f.h5").read_bytes() == before


def test_affine_frames_are_another_option(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, "--affine")
    assert answer.code == 2
    assert "affine False, not True" in one_line(answer.err)
    call("extract", folder, "--out", "affine.h5", *OPTIONS, "--affine")
    answer = call("extract", folder, "--out", "affine.h5", *OPTIONS)
    assert answer.code == 2
    assert "affine True, not False" in one_line(answer.err)


def test_a_switch_that_an_older_file_does_not_name_was_off(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    with h5py.File("f.h5", "r+") as file:
        options = json.loads(file.attrs["options"])
        del options["affine"]
        file.attrs["options"] = np.bytes_(json.dumps(options))
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, "--affine")
    assert "affine False, not True" in one_line(answer.err)


def test_other_weights_of_the_same_name_are_refused(call: Call, folder: Path) -> None:
    Path("mine.safetensors").write_bytes(b"first")
    assert call("extract", folder, "--out", "f.h5", *OPTIONS, "--model", "mine.safetensors").code == 0
    Path("mine.safetensors").write_bytes(b"second")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, "--model", "mine.safetensors")
    assert answer.code == 2
    assert "weights_sha256" in one_line(answer.err)


def test_interrupted_overwrite_leaves_the_old_file(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    again = ("extract", folder, "--out", "f.h5", "-n", 61)
    answer = call(*again, "--overwrite", make_feature=stops_at(3))
    assert answer.code == 130
    assert "f.h5 was not replaced, since the run did not end; the new images are in f.h5.parts" in answer.err
    assert Path("f.h5").read_bytes() == before
    # what was made is of use once the old file is out of the way
    assert "num_features 60, not 61" in one_line(call(*again).err)
    Path("f.h5").unlink()
    assert "1 image, " in (out := call(*again).out) and "2 already present, skipped" in out
    assert list(contents(Path("f.h5"))) == NAMES
    assert sorted(path.name for path in Path().iterdir()) == ["f.h5", "photos"]


def test_interrupted_overwrite_of_nothing_keeps_what_was_done(call: Call, folder: Path) -> None:
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, "--overwrite", make_feature=stops_at(3))
    assert answer.code == 130
    assert list(contents(Path("f.h5"))) == NAMES[:2]


def test_overwrite_loses_no_image_that_fails_now(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    (folder / "b.jpg").write_text("no image")
    again = ("extract", folder, "--out", "f.h5", "-n", 61, "--overwrite")
    answer = call(*again)
    assert answer.code == 1
    assert "f.h5 was not replaced, since it holds 1 image that failed now" in answer.err
    assert "1 of 3 images failed" in answer.err
    assert Path("f.h5").read_bytes() == before
    (folder / "b.jpg").rename(folder / "new.jpg")  # a broken image that the old file does not hold
    assert call(*again).code == 1
    assert list(contents(Path("f.h5"))) == ["a.png", "deep/c.png"]
    assert options_of("f.h5")["num_features"] == 61


def test_two_runs_cannot_write_one_file(call: Call, folder: Path) -> None:
    with FeatureFile("f.h5", {}) as other:
        for argv in (
            ("extract", folder, "--out", "f.h5", "--overwrite"),
            ("merge", "g.h5", "--out", "f.h5"),
        ):
            if argv[0] == "merge":
                call("extract", folder / "a.png", "--out", "g.h5", *OPTIONS)
            answer = call(*argv)
            assert answer.code == 2
            assert "f.h5 is being written by another run" in one_line(answer.err)
        other.write("x.png", random_features(3))
        other.finish()
    with h5py.File("f.h5") as file:
        assert list(file) == ["x.png"]
    assert call("extract", folder, "--out", "f.h5", *OPTIONS, "--overwrite").code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["f.h5", "g.h5", "photos"]


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    program = (
        "import sys, time; from kornia_lift.files import FeatureFile; "
        "file = FeatureFile(sys.argv[1], {}); print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "locked\n"
            with pytest.raises(FileInUseError, match=r"f\.h5 is being written by another run"):
                FeatureFile(path, {})
        finally:
            other.kill()
    FeatureFile(path, {}).close()
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_others_stay(call: Call, folder: Path) -> None:
    """A run of another shard, or of a file whose name begins like ours, may be writing them."""
    others = [Path(".f.shard-0-of-2.12345678.tmp.h5"), Path(".f.more.12345678.tmp.h5")]
    for path in others:
        path.touch()
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    assert all(path.exists() for path in others)


def test_what_a_kill_while_packing_leaves_is_removed(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "whole.h5", *OPTIONS)
    with FeatureFile("f.h5", options_of("whole.h5")) as killed:
        killed.write("a.png", random_features(3))
    (killed.parts / "packed.h5").write_bytes(b"half of it")
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    assert not killed.parts.exists()
    assert list(contents(Path("f.h5"))) == NAMES


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_sigterm_keeps_what_is_done(call: Call, folder: Path) -> None:
    def terminated(args: argparse.Namespace) -> nn.Module:
        feature, calls = SIFTFeature(args.num_features), []

        def hook(module: nn.Module, inputs: object) -> None:
            calls.append(1)
            if len(calls) == 3:
                signal.raise_signal(signal.SIGTERM)

        feature.register_forward_pre_hook(hook)
        return feature

    before = signal.getsignal(signal.SIGTERM)
    assert call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=terminated).code == 143
    assert list(contents(Path("f.h5"))) == NAMES[:2]
    assert signal.getsignal(signal.SIGTERM) == before
