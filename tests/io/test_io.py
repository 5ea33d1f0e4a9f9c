"""Reading images, and writing all or nothing; the kinds of files are in test_io_kinds.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.color import rgb_to_grayscale

from kornia_lift._extras import MissingExtraError, require
from kornia_lift._io import ImageFileError, atomic_write, check_writable, list_images, load_image

cv2 = pytest.importorskip("cv2")
Image = pytest.importorskip("PIL.Image")

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def as_tensor(array: np.ndarray, top: int = 255) -> torch.Tensor:
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).astype(np.float32) / top).permute(2, 0, 1)[None]


def test_png_is_read_exactly(tmp_path: Path, rgb: np.ndarray) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, as_tensor(rgb))
    torch.testing.assert_close(load_image(tmp_path / "a.png", gray=True), rgb_to_grayscale(as_tensor(rgb)))


def test_jpeg_is_read_nearly(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, WIDTH, dtype=np.uint8)[None, :, None], HEIGHT, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    torch.testing.assert_close(load_image(tmp_path / "a.jpg"), as_tensor(ramp), atol=0.02, rtol=0)


def test_gray_files_have_one_channel(tmp_path: Path, rgb: np.ndarray) -> None:
    Image.fromarray(rgb[..., 0]).save(tmp_path / "a.png")
    torch.testing.assert_close(load_image(tmp_path / "a.png"), as_tensor(rgb[..., 0]))
    torch.testing.assert_close(load_image(tmp_path / "a.png", gray=True), as_tensor(rgb[..., 0]))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_their_precision(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), deep[..., ::-1])
    torch.testing.assert_close(load_image(path), as_tensor(deep, 65535), atol=1e-6, rtol=0)


def test_transparent_pixels_show_white(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.zeros((HEIGHT, WIDTH, 1), dtype=np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 255, 51
    expected = as_tensor(rgb)
    expected[..., 10:20] = 0.2 * expected[..., 10:20] + 0.8
    expected[..., 20:] = 1
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(tmp_path / "rgba.png")
    torch.testing.assert_close(load_image(tmp_path / "rgba.png"), expected, atol=1e-6, rtol=0)
    Image.fromarray(np.concatenate([rgb[..., :1], alpha], 2), mode=None).save(tmp_path / "la.png")
    torch.testing.assert_close(load_image(tmp_path / "la.png"), expected[:, :1], atol=1e-6, rtol=0)


def test_transparent_16_bit_colour(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    clear = np.concatenate([deep[..., ::-1], np.zeros((HEIGHT, WIDTH, 1), np.uint16)], 2)
    cv2.imwrite(str(tmp_path / "a.png"), clear)
    assert load_image(tmp_path / "a.png").eq(1).all()


def test_palette(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "a.png")
    torch.testing.assert_close(load_image(tmp_path / "a.png")[0, :, 0, 1] * 255, torch.tensor([40.0, 50.0, 60.0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_exif_orientation(tmp_path: Path, orientation: int, bits: int) -> None:
    """Rotating the stored pixels by each kind of tag gives what Pillow's own exif_transpose shows."""
    from PIL import ImageOps

    levels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    tagged = tmp_path / "8.png"
    Image.fromarray(levels).save(tagged, exif=exif)
    with Image.open(tagged) as opened:
        expected = as_tensor(np.asarray(ImageOps.exif_transpose(opened)))
    path = tagged
    if bits == 16:
        path = tmp_path / "16.png"
        cv2.imwrite(str(path), levels[..., ::-1].astype(np.uint16) * 257)
        chunk = _exif_chunk(exif.tobytes())
        raw = path.read_bytes()
        path.write_bytes(raw[:33] + chunk + raw[33:])  # after the signature and IHDR
    torch.testing.assert_close(load_image(path), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(load_image(path, apply_exif=False), as_tensor(levels), atol=1e-6, rtol=0)


def _exif_chunk(exif: bytes) -> bytes:
    import struct
    import zlib

    body = b"eXIf" + exif.removeprefix(b"Exif\x00\x00")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_damaged_files_are_named(tmp_path: Path, rgb: np.ndarray, name: str, damage: str) -> None:
    path = tmp_path / name
    Image.fromarray(rgb).save(path)
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not an image at all", "cut": raw[: len(raw) // 2]}[damage])
    with pytest.raises(ImageFileError, match=name) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_jpeg_with_an_embedded_second_image(tmp_path: Path) -> None:
    """JPEGs of this kind (MPO) come from cameras and phones: the first image is the one to read."""
    levels = [Image.new("RGB", (WIDTH, HEIGHT), (level, 0, 0)) for level in (200, 10)]
    exif = Image.Exif()
    exif[0x0112] = 6
    levels[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=levels[1:], exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    image = load_image(tmp_path / "a.jpg")
    assert image.shape == (1, 3, WIDTH, HEIGHT)
    assert float(image[:, 0].mean()) == pytest.approx(200 / 255, abs=0.02)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png does not exist"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_image(tmp_path)


def test_list_images(tmp_path: Path) -> None:
    for name in ["b.JPG", "a.png", "sub/c.tiff", "notes.txt", ".hidden.png", ".cache/d.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a.png", "b.JPG", "sub/c.tiff"]
    with pytest.raises(NotADirectoryError, match=r"a\.png is not a folder"):
        list_images(tmp_path / "a.png")


def test_list_images_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/a.png").touch()
    root = tmp_path / "links"
    root.mkdir()
    for name, target in {"one": "../elsewhere", "two": "../elsewhere/deep", "gone.jpg": "../absent.jpg"}.items():
        (root / name).symlink_to(target)
    (tmp_path / "elsewhere/back").symlink_to("../links")
    found = [path.relative_to(root).as_posix() for path in list_images(root)]
    # a file that is missing is for load_image to report
    assert found == ["gone.jpg", "one/deep/a.png", "two/a.png"]


def test_atomic_write_leaves_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def broken() -> None:
        with atomic_write(path) as tmp:
            tmp.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert path.read_text() == "old"
    with atomic_write(path) as tmp:
        assert tmp.suffix == ".json"
        assert tmp.parent == tmp_path
        tmp.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_needs_a_folder(tmp_path: Path) -> None:
    missing = tmp_path / "absent" / "x"
    with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"), atomic_write(missing):
        pass
    with pytest.raises(IsADirectoryError, match="expected a file name"), atomic_write(tmp_path):
        pass


def test_atomic_write_of_a_long_name(tmp_path: Path) -> None:
    path = tmp_path / f"{'ü' * 125}.json"  # 255 bytes
    with atomic_write(path) as temporary:
        temporary.write_text("all")
    assert path.read_text() == "all"


def test_errors_of_writing_name_the_file_and_not_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(PermissionError) as caught, atomic_write(path) as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert str(caught.value) == f"cannot write {path}: Permission denied"
    with pytest.raises(PermissionError, match=r"other\.txt"), atomic_write(path):
        raise PermissionError(13, "Permission denied", "other.txt")

    def denied(**options: object) -> None:
        assert options == {"dir": tmp_path}
        raise PermissionError(13, "Permission denied", str(tmp_path / "tmp1234"))

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(PermissionError) as caught:
        check_writable(path)
    assert str(caught.value) == f"cannot write {path}: Permission denied (folder {tmp_path})"


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_names_the_command() -> None:
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*pip install 'kornia_lift\[cli\]'"):
        require("no_such_package.part", extra="cli")
    assert require("PIL.Image", extra="cli") is Image


def test_error_inside_an_installed_package_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_inside.py").write_text("import another_absent_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_absent_package") as caught:
        require("breaks_inside", extra="cli")
    assert not isinstance(caught.value, MissingExtraError)
