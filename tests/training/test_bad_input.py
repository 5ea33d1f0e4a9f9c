"""Data that cannot teach, and disks that are full: one sentence that says what is missing and what to do."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.training.data.prepare.alike import check_different, thumbnail
from kornia_lift.training.loop.log import TrainingLog
from tests.helpers.tiny_recipes import TINY
from tests.helpers.training import picture


def write(path: Path, image: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def complaint(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(list(command)) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("single", [False, True])
def test_frames_of_a_video_that_stands_still(tmp_path: Path, capsys: pytest.CaptureFixture[str], single: bool) -> None:
    pytest.importorskip("pycolmap")
    generator = np.random.default_rng(0)
    for k in range(6):
        noise = generator.normal(0, 3, (200, 200))
        write(tmp_path / "video" / f"{k}.png", (picture(1, 200) + noise).clip(0, 255).astype(np.uint8))
    command = ["build-dataset", str(tmp_path / "video"), "--out", str(tmp_path / "set"), *["--single"] * single]
    said = complaint(capsys, *command)
    assert "5 of 5 images are the same as the one before" in said
    assert "keep one of each" in said
    assert ("without --single" if single else "move the camera between images") in said
    assert not (tmp_path / "set" / "reconstructions" / "video").exists()


def test_images_that_differ_are_not_alike() -> None:
    import torch

    images = [thumbnail(torch.from_numpy(picture(k, 200))) for k in range(4)]
    check_different(images, "x", str)
    check_different([images[0], images[0], *images], "x", str)  # two copies among others
    check_different(images[:1], "x", str)
    flat = [thumbnail(torch.full((200, 200), 90.0 + 5 * k)) for k in range(4)]
    check_different(flat, "x", str)  # no texture that would tell a motion: another error says so


@pytest.mark.parametrize("pixels", [1, 2, 3, 4])
@pytest.mark.parametrize("single", [False, True])
def test_neighbouring_frames_of_a_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], single: bool, pixels: int
) -> None:
    """A camera that moves by a few pixels from frame to frame, with noise, while it gets darker."""
    pytest.importorskip("pycolmap")
    scene, generator = texture(700, 1100), np.random.default_rng(0)
    for k in range(30):
        frame = scene[k : k + 600, pixels * k : pixels * k + 800] * (1 - 0.002 * k)
        frame = frame + generator.normal(0, 2, frame.shape)
        write(tmp_path / "video" / f"{k:02d}.png", frame.clip(0, 255).astype(np.uint8))
    command = ["build-dataset", str(tmp_path / "video"), "--out", str(tmp_path / "set"), *["--single"] * single]
    said = complaint(capsys, *command)
    assert "29 of 29 images are nearly the same as the one before, moved by about 0." in said
    step = int(re.search(r"keep every (\d+)(?:st|nd|rd|th) image", said).group(1))  # type: ignore[union-attr]
    assert 0.03 * 800 < step * math.hypot(1, pixels) < 0.15 * 800
    too_few = 29 // step + 1 < (2 if single else 3)
    assert ("too few for that: take images over a longer movement" in said) == too_few
    assert ("without --single" in said) == single
    assert not list((tmp_path / "set").rglob("*.npz"))


@pytest.mark.parametrize("pixels", [24, 60])
def test_frames_that_are_apart_are_not_alike(pixels: int) -> None:
    import torch

    scene = texture(600, 1400)
    frames = [scene[:, pixels * k : pixels * k + 800] for k in range(8)]
    check_different([thumbnail(torch.from_numpy(frame.copy())) for frame in frames], "x", str)


def texture(height: int, width: int) -> np.ndarray:
    """Structures of all sizes, as images have them: amplitudes that fall with the frequency."""
    generator = np.random.default_rng(3)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum = np.fft.rfft2(generator.standard_normal((height, width))) / (np.hypot(y, x) + 1 / width)
    pixels = np.fft.irfft2(spectrum, (height, width))
    return np.asarray((120 + 45 * (pixels - pixels.mean()) / pixels.std()).clip(0, 255), dtype=np.float64)


def test_images_without_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycolmap")
    for k in range(3):
        write(tmp_path / "trip" / f"{k}.png", picture(k, 200))
    said = complaint(capsys, "build-dataset", str(tmp_path / "trip"), "--out", str(tmp_path / "set"))
    assert "too few matches" in said and "overlapping viewpoints" in said


def test_one_image_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mine" / "a.png", picture(1, 200))
    said = complaint(
        capsys, "train", "modern", "--data", str(tmp_path / "mine"), "--init", "lift", "--out", str(tmp_path / "run")
    )
    assert "leave nothing to hold out" in said and "two single images" in said
    assert not (tmp_path / "run").exists()


def test_an_image_that_is_not_the_one_of_the_model(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("pycolmap")
    scene = tmp_path / "scene"
    shutil.copytree(shared / "data" / "train" / "sfm" / "unity_hall", scene)
    victim = sorted((scene / "images").iterdir())[1]
    height, width = cv2.imread(str(victim)).shape[:2]
    victim.chmod(0o644)
    victim.parent.chmod(0o755)
    write(victim, cv2.resize(picture(2, 400), (width, height)))
    said = complaint(capsys, "build-dataset", str(scene), "--out", str(tmp_path / "set"))
    assert victim.name in said and "changed or exchanged since the model was made" in said
    victim.unlink()
    said = complaint(capsys, "build-dataset", str(scene), "--out", str(tmp_path / "set"))
    assert f"images of the model are missing in images/: {victim.name}; put them back, or give" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "x", 0, 10, progress=False)
    log._file.close()
    log._file = Path("/dev/full").open("w")  # noqa: SIM115
    with pytest.raises(OSError, match="make room, and start the same command again") as error:
        log.write(1, "train", {"loss": 1.0})
    assert "No space left" in str(error.value) and "/dev/full" in str(error.value)
    log.close()


def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third checkpoint finds no room; with room again, the same command goes on from the second."""
    for k in range(3):
        write(tmp_path / "mine" / f"{k}.png", picture(k, 200))
    config = tmp_path / "tiny.toml"
    steps = "[modern.descriptor]\nsteps = 4\ncheckpoint_every = 1"
    config.write_text(TINY.format(data=(tmp_path / "mine").as_posix()).replace("[modern.descriptor]\nsteps = 1", steps))
    command = ["train", str(config), "--out", str(tmp_path / "run"), "--stages", "descriptor"]
    original, saved = Path.write_bytes, []

    def write_bytes(self: Path, data: bytes) -> int:
        if self.parent.name == "descriptor" and ".pt" in self.name:
            saved.append(self)
            if len(saved) == 4:
                original(self, b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    said = complaint(capsys, *command)
    assert "No space left on device; make room, and start the same command again" in said and "run/descriptor/" in said
    monkeypatch.undo()
    assert not list((tmp_path / "run").rglob("*.tmp*"))
    assert main(command) == 0
    assert "descriptor: validation error" in capsys.readouterr().out


def test_what_nothing_can_be_held_out_of_is_said_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "mine" / "a.png", picture(1, 260))
    assert main(["build-dataset", str(tmp_path / "mine"), "--single", "--out", str(tmp_path / "set")]) == 0
    assert main(["check-dataset", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().out
    assert "held out: nothing" in said and "nothing can be held out, and `train` needs something to measure on" in said
    assert "their validation errors" not in said
