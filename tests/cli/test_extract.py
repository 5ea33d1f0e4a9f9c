"""``kornia-lift extract`` and ``merge``: what the file holds, resuming, faults, shards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from kornia.feature import SIFTFeature, laf_from_center_scale_ori
from torch import nn

from kornia_lift.export.hloc import FeatureFile
from kornia_lift.matching import Described

from .conftest import Answer, astronaut, one_line, save

Call = Callable[..., Answer]
NAMES = ["a.png", "b.jpg", "deep/c.png"]
OPTIONS = ("-n", 60)


def contents(path: Path) -> dict[str, dict[str, np.ndarray]]:
    with h5py.File(path) as file:
        return {name: {key: file[name][key][()] for key in file[name]} for name in NAMES if name in file}


def options_of(path: str) -> dict[str, object]:
    with h5py.File(path) as file:
        return dict(json.loads(file.attrs["options"]))


def described(count: int) -> Described:
    lafs = laf_from_center_scale_ori(torch.rand(1, count, 2) * 50)[0]
    return Described(lafs, torch.rand(count), torch.nn.functional.normalize(torch.rand(count, 128), dim=1), (64, 64))


def test_file_has_the_format_of_hloc(call: Call, folder: Path) -> None:
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 0
    assert answer.out.startswith("3 images, ")
    found = contents(Path("f.h5"))
    assert list(found) == NAMES
    for image in found.values():
        count = len(image["keypoints"])
        assert 20 < count <= 60
        shapes = {key: value.shape for key, value in image.items()}
        assert shapes == {
            "keypoints": (count, 2),
            "descriptors": (128, count),
            "scores": (count,),
            "scales": (count,),
            "oris": (count,),
            "image_size": (2,),
        }
        assert all(value.dtype == np.float32 for key, value in image.items() if key != "image_size")
        np.testing.assert_allclose(np.linalg.norm(image["descriptors"], axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(image["image_size"], [128, 128])
        assert np.abs(image["oris"]).max() <= 180
        assert (image["scales"] > 0).all()


def test_mirrored_photograph_has_mirrored_keypoints(call: Call, tmp_path: Path) -> None:
    """Known answer for the frame: x' = 127 - x, and an angle a becomes 180 - a."""
    pixels = astronaut(128)
    save(tmp_path / "p/a.png", pixels)
    save(tmp_path / "p/b.jpg", np.ascontiguousarray(pixels[::-1, ::-1]))  # half a turn
    call("extract", tmp_path / "p", "--out", "f.h5", "-n", 40, "--resize", 64)
    a, b = contents(Path("f.h5")).values()
    distance = np.linalg.norm((127 - b["keypoints"])[None] - a["keypoints"][:, None], axis=-1)
    nearest = distance.argmin(1)
    same = distance.min(1) < 1
    assert same.sum() >= 10
    turn = (a["oris"][same] - b["oris"][nearest[same]]) % 360
    assert np.median(np.abs(turn - 180)) < 10


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
    assert "1 images, " in answer.out
    assert "3 were there already" in answer.out
    for name, image in contents(Path("f.h5")).items():
        for key, value in image.items():
            np.testing.assert_array_equal(value, before[name][key])


def test_a_stop_between_two_images_loses_nothing(call: Call, folder: Path) -> None:
    def stops_at_the_third(args: argparse.Namespace) -> nn.Module:
        feature, calls = SIFTFeature(args.num_features), []

        def hook(module: nn.Module, inputs: object) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt

        feature.register_forward_pre_hook(hook)
        return feature

    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=stops_at_the_third)
    assert answer.code == 130
    assert "interrupted" in answer.err
    assert list(contents(Path("f.h5"))) == NAMES[:2]
    assert "2 were there already" in call("extract", folder, "--out", "f.h5", *OPTIONS).out
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
    killed = FeatureFile(Path("f.h5"), options_of("whole.h5"))
    killed.write("a.png", described(0))
    killed.write("deep/c.png", described(5))
    assert not Path("f.h5").exists()
    (killed.parts / ".b.jpg.1234.tmp.part.h5").write_text("the file that was being written")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 0
    assert "1 images, " in answer.out and "2 were there already" in answer.out
    assert not killed.parts.exists()
    found = contents(Path("f.h5"))
    assert list(found) == NAMES
    assert [len(found[name]["keypoints"]) for name in ("a.png", "deep/c.png")] == [0, 5]
    assert len(found["b.jpg"]["keypoints"]) > 20


def test_damaged_part_is_named_and_removed(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    killed = FeatureFile(Path("f.h5"), options_of("f.h5"))
    for name in ("d.png", "e.png", "f.png"):
        save(folder / name, astronaut(64))
        killed.write(name, described(3))
    for name in ("d.png", "f.png"):
        (killed.parts / f"{name}.part.h5").write_bytes(b"cut off by a power failure")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 2
    assert "f.png.part.h5 was damaged" in one_line(answer.err)
    assert Path("f.h5").read_bytes() == before
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    with h5py.File("f.h5") as file:
        assert sorted(file) == ["a.png", "b.jpg", "d.png", "deep", "e.png", "f.png"]
        assert len(file["e.png/keypoints"]) == 3


def test_overwrite_keeps_the_old_file_until_the_end(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    answer = call("extract", folder, "--out", "f.h5", "-n", 61, "--overwrite", "--device", "toaster")
    assert answer.code == 2
    assert Path("f.h5").read_bytes() == before
    assert "3 images, " in call("extract", folder, "--out", "f.h5", "-n", 61, "--overwrite").out
    assert options_of("f.h5")["num_features"] == 61


def test_continues_past_broken_images(call: Call, folder: Path) -> None:
    (folder / "bad.jpg").write_text("no image")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 1
    assert "1 of 4 images failed" in answer.err
    assert str(folder / "bad.jpg") in answer.err
    assert list(contents(Path("f.h5"))) == NAMES


def test_nothing_but_broken_images_leaves_no_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    assert call("extract", "bad.jpg", "--out", "f.h5").code == 1
    assert [p.name for p in Path().iterdir()] == ["bad.jpg"]


def test_merge_tells_what_shards_lack(call: Call, folder: Path) -> None:
    (folder / "bad.jpg").write_text("no image")
    codes = [call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/2").code for index in range(2)]
    assert sorted(codes) == [0, 1]
    answer = call("merge", *sorted(Path().glob("f.shard-*.h5")), "--out", "f.h5")
    assert answer.code == 1
    assert answer.out == "3 images from 2 files in f.h5\n"
    assert "1 images are missing" in one_line(answer.err)


def test_image_without_keypoints(call: Call, tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((48, 64, 3), 90, np.uint8))
    assert call("extract", "a.png", "--out", "f.h5", "-n", 20).code == 0
    image = contents(Path("f.h5"))["a.png"]
    assert image["keypoints"].shape == (0, 2)
    assert image["descriptors"].shape == (128, 0)
    np.testing.assert_array_equal(image["image_size"], [64, 48])


def test_other_options_are_refused(call: Call, folder: Path) -> None:
    call("extract", folder, "--out", "f.h5", *OPTIONS)
    before = Path("f.h5").read_bytes()
    answer = call("extract", folder, "--out", "f.h5", "-n", 61)
    assert answer.code == 2
    assert "num_features 60, not 61" in one_line(answer.err)
    assert Path("f.h5").read_bytes() == before


def test_other_weights_of_the_same_name_are_refused(call: Call, folder: Path) -> None:
    Path("mine.safetensors").write_bytes(b"first")
    assert call("extract", folder, "--out", "f.h5", *OPTIONS, "--model", "mine.safetensors").code == 0
    Path("mine.safetensors").write_bytes(b"second")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, "--model", "mine.safetensors")
    assert answer.code == 2
    assert "weights_sha256" in one_line(answer.err)


def test_bad_input_ends_with_one_line(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "text.h5").write_text("not hdf5")
    for argv, message in [
        (["absent", "--out", "f.h5"], "absent does not exist"),
        (["none", "--out", "f.h5"], "no images in the folder none"),
        ([folder, "--out", "f.txt"], "must end in .h5"),
        ([folder, "--out", "no/f.h5"], "its folder does not exist"),
        ([folder, "--out", "text.h5"], "cannot open text.h5"),
        ([folder, "--out", "f.h5", "--shard", "2/2"], "expected I/N"),
        ([folder, "--out", "f.h5", "--device", "cuda:99"], "--device cuda:99"),
        ([folder], "required: --out"),
    ]:
        answer = call("extract", *argv)
        assert answer.code == 2, argv
        assert answer.out == ""
        assert message in one_line(answer.err)
    assert sorted(p.name for p in Path().iterdir()) == ["none", "photos", "text.h5"]


def test_same_name_twice_is_refused(call: Call, folder: Path) -> None:
    answer = call("extract", folder, folder / "deep" / ".." / "a.png", "--out", "f.h5", *OPTIONS)
    assert answer.code == 0  # the same file, given twice
    save(folder.parent / "other" / "a.png", astronaut(64))
    answer = call("extract", folder, folder.parent / "other", "--out", "g.h5")
    assert answer.code == 2
    assert "two images have the name a.png" in one_line(answer.err)


@pytest.mark.parametrize("how", ["option", "torchrun"])
def test_shards_merge_to_the_same_file(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    call("extract", folder, "--out", "whole.h5", *OPTIONS)
    for index in range(2):
        if how == "torchrun":
            monkeypatch.setenv("RANK", str(index))
            monkeypatch.setenv("WORLD_SIZE", "2")
        option = ["--shard", f"{index}/2"] if how == "option" else []
        assert call("extract", folder, "--out", "f.h5", *OPTIONS, *option).code == 0
    parts = [Path(f"f.shard-{index}-of-2.h5") for index in range(2)]
    assert [list(contents(part)) for part in parts] == [["a.png", "deep/c.png"], ["b.jpg"]]
    answer = call("merge", *parts, "--out", "f.h5")
    assert answer.code == 0
    assert answer.out == "3 images from 2 files in f.h5\n"
    whole, merged = contents(Path("whole.h5")), contents(Path("f.h5"))
    assert list(whole) == list(merged) == NAMES
    for name in NAMES:
        for key, value in whole[name].items():
            np.testing.assert_array_equal(merged[name][key], value)
    # A merged file is a feature file: nothing is left to do.
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "3 were there already" in call("extract", folder, "--out", "f.h5", *OPTIONS).out


def test_merge_refuses_what_does_not_belong_together(call: Call, folder: Path) -> None:
    for index in range(2):
        call("extract", folder, "--out", "f.h5", *OPTIONS, "--shard", f"{index}/2")
    call("extract", folder, "--out", "g.h5", "-n", 61)
    call("extract", folder, "--out", "h.h5", *OPTIONS)
    first, second = "f.shard-0-of-2.h5", "f.shard-1-of-2.h5"
    for argv, message in [
        ([first, "--out", "f.h5"], "shard 1 of 2 is missing"),
        ([first, second, "g.h5", "--out", "f.h5"], "g.h5 was made with other options"),
        ([first, second, "h.h5", "--out", "f.h5"], "hold the image 'a.png'"),
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
