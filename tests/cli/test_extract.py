"""``kornia-lift extract``: what the file holds, errors, names."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kornia_lift import LIFTFeature
from kornia_lift._io import opened
from kornia_lift.files import FeatureReader
from kornia_lift.geometry import lafs_from_lift
from tests.helpers.cli import NAMES, OPTIONS, Call, astronaut, contents, one_line, options_of, save


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


def test_mirrored_image_has_mirrored_keypoints(call: Call, tmp_path: Path) -> None:
    """Known answer for the frame: x' = 127 - x, and an angle a becomes 180 - a."""
    pixels = astronaut(128)
    save(tmp_path / "p/a.png", pixels)
    save(tmp_path / "p/b.jpg", np.ascontiguousarray(pixels[::-1, ::-1]))  # rotated by 180 degrees
    call("extract", tmp_path / "p", "--out", "f.h5", "-n", 40, "--resize", 64)
    a, b = contents(Path("f.h5")).values()
    distance = np.linalg.norm((127 - b["keypoints"])[None] - a["keypoints"][:, None], axis=-1)
    nearest = distance.argmin(1)
    same = distance.min(1) < 1
    assert same.sum() >= 10
    change = (a["oris"][same] - b["oris"][nearest[same]]) % 360
    assert np.median(np.abs(change - 180)) < 10


def test_each_image_is_opened_once(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag that asks for a rotation comes with the pixels: of a PNG it may lie behind them."""
    names: list[str] = []

    def counting(path: Path) -> AbstractContextManager[object]:
        names.append(path.name)
        return opened(path)

    monkeypatch.setattr("kornia_lift._io.decode.opened", counting)
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    assert sorted(names) == sorted(Path(name).name for name in NAMES)


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


def test_image_without_keypoints(call: Call, tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((48, 64, 3), 90, np.uint8))
    assert call("extract", "a.png", "--out", "f.h5", "-n", 20).code == 0
    image = contents(Path("f.h5"))["a.png"]
    assert image["keypoints"].shape == (0, 2)
    assert image["descriptors"].shape == (128, 0)
    np.testing.assert_array_equal(image["image_size"], [64, 48])


def test_bad_input_ends_with_one_line(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "text.h5").write_text("not hdf5")
    for argv, message in [
        (["absent", "--out", "f.h5"], "absent does not exist"),
        (["none", "--out", "f.h5"], "no images in the folder none"),
        ([folder, "--out", "f.txt"], "must end in .h5"),
        ([folder, "--out", "f.h5", "--apply-exif", "--ignore-exif"], "not allowed with"),
        ([folder, "--out", "no/f.h5"], "its folder does not exist"),
        ([folder, "--out", "text.h5"], "cannot open text.h5"),
        ([folder, "--out", "f.h5", "--shard", "2/2"], "expected I/N"),
        ([folder, "--out", "f.h5", "--device", "cuda:99"], "got 'cuda:99': "),
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


@pytest.mark.parametrize("name", [".hidden.jpg", f"{'x' * 246}.png", f"{'ü' * 120}.jpg"])
def test_any_name_that_a_file_can_have(call: Call, tmp_path: Path, name: str) -> None:
    save(tmp_path / "photos" / "a.jpg", astronaut(64)).rename(tmp_path / "photos" / name)
    assert call("extract", tmp_path / "photos" / name, "--out", "f.h5", *OPTIONS).code == 0
    with h5py.File("f.h5") as file:
        assert list(file) == [name]
    assert "1 already present, skipped" in call("extract", tmp_path / "photos" / name, "--out", "f.h5", *OPTIONS).out


def test_name_that_is_not_unicode_fails_alone(call: Call, folder: Path) -> None:
    bad = os.fsencode(folder) + b"/b\xe9ton.png"  # Latin-1, from an old disk
    try:
        with open(bad, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 1
    assert "1 of 4 images failed" in answer.err
    assert "ton.png: the name is not valid Unicode" in answer.err
    assert list(contents(Path("f.h5"))) == NAMES


def test_folder_with_the_name_of_a_dataset(call: Call, folder: Path) -> None:
    save(folder / "deep/keypoints/e.png", astronaut(64))
    for done in ("4 images, ", "0 images, 0 keypoints, 4 already present, skipped"):
        answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
        assert answer.code == 0
        assert answer.out.startswith(done)
    with FeatureReader("f.h5") as file:
        assert list(file.names()) == ["a.png", "b.jpg", "deep/c.png", "deep/keypoints/e.png"]


def test_image_with_the_name_of_a_folder_is_refused(call: Call, folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "other/a.png/x.png", astronaut(64))
    answer = call("extract", folder, "other", "--out", "f.h5")
    assert answer.code == 2
    assert "a.png has the name of the folder of other/a.png/x.png" in one_line(answer.err)


def test_links_to_folders_are_followed(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links/scene").symlink_to(folder)
    assert "3 images, " in call("extract", "links", "--out", "f.h5", *OPTIONS).out
    with FeatureReader("f.h5") as file:
        assert list(file.names()) == [f"scene/{name}" for name in NAMES]


class KnownFrame(nn.Module):
    """A detector that finds one keypoint of sigma 4, pixels."""

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return lafs_from_lift(torch.tensor([[[40.0, 30.0]]]), torch.tensor([[4.0]])), torch.ones(1, 1)


@pytest.mark.parametrize("resize", [0, 64])
def test_scales_are_the_sigma_of_the_detector(call: Call, folder: Path, resize: int) -> None:
    """LIFTFeature describes an enlarged frame; other programs want the keypoint's scale."""

    def feature(args: argparse.Namespace, **options: float) -> nn.Module:
        return LIFTFeature(detector=KnownFrame(), upright=True, pretrained=False, **options)

    options = ("extract", folder / "a.png", "--out", "f.h5", "--resize", resize)
    assert call(*options, make_feature=feature).code == 0
    np.testing.assert_allclose(contents(Path("f.h5"))["a.png"]["scales"], [8 if resize else 4], rtol=1e-5)
    assert options_of("f.h5")["scaling_coef"] == 1.5
    answer = call(*options, make_feature=lambda args: feature(args, scaling_coef=1.0))
    assert answer.code == 2
    assert "scaling_coef 1.5, not 1.0" in one_line(answer.err)
    assert call(*options, "--overwrite", make_feature=lambda args: feature(args, scaling_coef=1.0)).code == 0
    np.testing.assert_allclose(contents(Path("f.h5"))["a.png"]["scales"], [8 if resize else 4], rtol=1e-5)


@pytest.mark.parametrize("command", ["extract", "merge"])
def test_folder_that_cannot_be_written_is_found_first(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    call("extract", folder, "--out", "g.h5", *OPTIONS)

    def denied(**options: object) -> None:
        raise PermissionError(13, "Permission denied", "some temporary name")

    def never(args: argparse.Namespace) -> nn.Module:
        raise AssertionError("a feature was built")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    answer = call(command, folder if command == "extract" else "g.h5", "--out", "f.h5", make_feature=never)
    assert answer.code == 2
    assert one_line(answer.err) == "kornia-lift: cannot write f.h5: Permission denied (folder .)"


def with_exif(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("option", [[], ["--ignore-exif"], ["--apply-exif"]])
def test_exif_is_left_to_hloc_and_colmap(call: Call, tmp_path: Path, option: list[str]) -> None:
    """Keypoints are in the stored pixels, of 96 x 128, unless asked for those that viewers show."""
    pixels = np.ascontiguousarray(astronaut(128)[:96])
    with_exif(tmp_path / "p/a.png", pixels, 6)
    with_exif(tmp_path / "p/b.png", pixels, 1)
    save(tmp_path / "p/c.png", pixels)
    answer = call("extract", "p", "--out", "f.h5", *OPTIONS, *option)
    assert answer.code == 0
    applied = option == ["--apply-exif"]
    with h5py.File("f.h5") as file:
        assert [file[name]["image_size"][()].tolist() for name in ("a.png", "b.png", "c.png")] == [
            [96, 128] if applied else [128, 96],
            [128, 96],
            [128, 96],
        ]
        same = np.array_equal(file["a.png/keypoints"][()], file["b.png/keypoints"][()])
    assert same is not applied
    assert options_of("f.h5")["exif"] is applied
    assert "1 of 3 images have an EXIF tag that rotates them" in answer.out.splitlines()[1]
    assert ("stored pixels" in answer.out) is True
    other = call("extract", "p", "--out", "f.h5", *OPTIONS, "--ignore-exif" if applied else "--apply-exif")
    assert other.code == 2
    assert "exif" in one_line(other.err)


def test_suffix_in_any_case(call: Call, folder: Path) -> None:
    assert call("extract", folder / "a.png", "--out", "x.H5", *OPTIONS).code == 0
    assert Path("x.H5").is_file()


def test_image_whose_features_are_not_finite_fails_alone(call: Call, folder: Path) -> None:
    from kornia.feature import SIFTFeature

    def broken(args: argparse.Namespace) -> nn.Module:
        feature, calls = SIFTFeature(args.num_features), []

        def hook(module: nn.Module, inputs: object, out: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            calls.append(1)
            return (*out[:2], out[2] * float("nan")) if len(calls) == 2 else out

        feature.register_forward_hook(hook)
        return feature

    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=broken)
    assert answer.code == 1
    assert "b.jpg: " in answer.err and "descriptors are not finite" in answer.err
    assert list(contents(Path("f.h5"))) == ["a.png", "deep/c.png"]
    assert "1 image, " in call("extract", folder, "--out", "f.h5", *OPTIONS).out


def test_file_with_links_is_refused_and_others_stay(call: Call, folder: Path) -> None:
    call("extract", folder / "a.png", "--out", "other.h5", *OPTIONS)
    call("extract", folder / "a.png", "--out", "f.h5", *OPTIONS)
    before = Path("other.h5").read_bytes()
    with h5py.File("f.h5", "a") as file:
        file["deep"] = h5py.ExternalLink("other.h5", "/")
    answer = call("extract", folder, "--out", "f.h5", *OPTIONS)
    assert answer.code == 2
    assert "f.h5: deep: a link to other.h5:/; links are not followed" in one_line(answer.err)
    assert Path("other.h5").read_bytes() == before


def test_parts_removed_during_the_run_end_it(call: Call, folder: Path) -> None:
    from kornia.feature import SIFTFeature

    def removing(args: argparse.Namespace) -> nn.Module:
        feature, calls = SIFTFeature(args.num_features), []

        def hook(module: nn.Module, inputs: object) -> None:
            calls.append(1)
            if len(calls) == 3:
                while len(list(Path("f.h5.parts").glob("[!.]*.part.h5"))) < 2:  # written by a thread
                    time.sleep(0.01)
                shutil.rmtree("f.h5.parts")

        feature.register_forward_pre_hook(hook)
        return feature

    answer = call("extract", folder, "--out", "f.h5", *OPTIONS, make_feature=removing)
    assert answer.code == 2
    assert "finished images were removed from f.h5.parts during the run: run the same command again" in answer.err
    assert call("extract", folder, "--out", "f.h5", *OPTIONS).code == 0
    assert list(contents(Path("f.h5"))) == NAMES
