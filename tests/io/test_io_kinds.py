"""Every kind of file gives the same picture as its 8-bit sibling."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift._io import (
    ImageFileError,
    describe_unread,
    list_images,
    list_unread_images,
    load_image,
    load_image_and_orientation,
)
from kornia_lift._io.stored import MAX_PIXELS
from kornia_lift.scenes.images import image_file_size

PIL = pytest.importorskip("PIL")
Image = pytest.importorskip("PIL.Image")
cv2 = pytest.importorskip("cv2")
tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def rgb() -> np.ndarray:
    levels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    levels[0, 0] = 255  # the whole range is used
    return levels


def close(found: Tensor, levels: np.ndarray, atol: float = 1e-6) -> None:
    expected = torch.from_numpy(levels.reshape(*levels.shape[:2], -1).astype(np.float32) / 255)
    torch.testing.assert_close(found, expected.permute(2, 0, 1)[None], atol=atol, rtol=0)


def deep(levels: np.ndarray) -> np.ndarray:
    """The same picture in 16 bits."""
    return levels.astype(np.uint16) * 257


def oriented(levels: np.ndarray, orientation: int) -> np.ndarray:
    """Pillow's own answer, through a PNG in memory."""
    import io

    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", exif=exif)
    with Image.open(file) as opened:
        return np.asarray(ImageOps.exif_transpose(opened))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["8.tif", "16.tif", "gray16.tif", "float.tif", "8.webp", "8.bmp"])
def test_orientation_of_every_container(tmp_path: Path, rgb: np.ndarray, orientation: int, kind: str) -> None:
    path = tmp_path / kind
    expected, stored = oriented(rgb, orientation), rgb
    if kind == "8.webp":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(rgb).save(path, lossless=True, exif=exif)
    elif kind == "8.bmp":  # has no tag
        Image.fromarray(rgb).save(path)
        expected = rgb
    else:
        stored = rgb[..., 0] if kind == "gray16.tif" else rgb
        expected = expected[..., 0] if kind == "gray16.tif" else expected
        values = {"8.tif": stored, "float.tif": stored.astype(np.float32) / 255}.get(kind, deep(stored))
        photometric = "minisblack" if kind == "gray16.tif" else "rgb"
        tifffile.imwrite(path, values, photometric=photometric, extratags=[(274, "H", 1, orientation, True)])
    close(load_image(path), expected)
    close(load_image(path, apply_exif=False), stored)
    assert image_file_size(path) == expected.shape[1::-1]
    assert image_file_size(path, apply_exif=False) == (WIDTH, HEIGHT)
    assert load_image_and_orientation(path)[1] == (1 if kind == "8.bmp" else orientation)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_16(
    tmp_path: Path, rgb: np.ndarray, bits: int, tagged: bool, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    levels = rgb[..., :channels].squeeze()
    values = np.round(levels / 255 * (2**bits - 1)).astype(np.uint16)
    extra = [(281, "H", channels, (2**bits - 1,) * channels if channels > 1 else 2**bits - 1, True)] if tagged else []
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if channels == 3 else "minisblack", extratags=extra)
    with caplog.at_level(logging.WARNING):
        close(load_image(tmp_path / "a.tif"), levels, atol=1e-3)
    assert (f"uses {bits} of its 16 bits" in caplog.text) is not tagged


def test_a_dark_image_of_16_bits_with_a_tag_stays_dark(tmp_path: Path, rgb: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep(rgb[..., 0] // 8), extratags=[(281, "H", 1, 65535, True)])
    close(load_image(tmp_path / "a.tif"), rgb[..., 0] // 8)


def test_black_stays_black(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    assert load_image(tmp_path / "a.png").eq(0).all()


def test_12_bits_packed(tmp_path: Path, rgb: np.ndarray) -> None:
    """Two values in three bytes, as some cameras write them: read by libtiff through Pillow."""
    values = np.round(rgb[..., 0] / 255 * 4095).astype(np.uint16)
    first, second = values[:, 0::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    _write_tiff(tmp_path / "a.tif", packed.tobytes(), bits=12)
    close(load_image(tmp_path / "a.tif"), rgb[..., 0], atol=1e-3)


def _write_tiff(path: Path, data: bytes, bits: int, **extra: int) -> None:
    """A little-endian TIFF with one strip of gray values, tag by tag."""
    import struct

    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT, 279: len(data)}
    tags |= {int(key.removeprefix("tag")): value for key, value in extra.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero(tmp_path: Path, rgb: np.ndarray, bits: int) -> None:
    levels = 255 - rgb[..., 0]
    values = levels if bits == 8 else deep(levels)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    close(load_image(tmp_path / "a.tif"), rgb[..., 0])


@pytest.mark.parametrize(("dtype", "top"), [("uint32", 2**32 - 1), ("int16", 32767), ("int32", 2**31 - 1)])
def test_other_integers(tmp_path: Path, rgb: np.ndarray, dtype: str, top: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.round(rgb[..., 0] / 255 * top).astype(dtype))
    close(load_image(tmp_path / "a.tif"), rgb[..., 0], atol=1e-4)


def test_negative_and_out_of_range_values_are_refused(tmp_path: Path, rgb: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rgb[..., 0].astype(np.int16) - 10)
    with pytest.raises(ImageFileError, match=r"a\.tif.* gray values from -10"):
        load_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "f.tif", rgb[..., 0].astype(np.float32))
    with pytest.raises(ImageFileError, match=r"must lie in \[0, 1\]"):
        load_image(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "g.tif", rgb[..., 0].astype(np.float32) / 255)
    close(load_image(tmp_path / "g.tif"), rgb[..., 0])


@pytest.mark.parametrize("bits", [8, 16])
def test_fourth_band(tmp_path: Path, rgb: np.ndarray, bits: int) -> None:
    """An unspecified band is left out; opacity is blended, also where the colours are multiplied by it already."""
    levels = np.concatenate([rgb, rgb[..., :1]], 2)
    raise_ = deep if bits == 16 else np.asarray
    kinds = {"unspecified": rgb / 255.0}
    opacity = rgb[..., :1] / 255.0
    kinds["unassalpha"] = rgb / 255 * opacity + 1 - opacity
    for kind, expected in kinds.items():
        tifffile.imwrite(tmp_path / "a.tif", raise_(levels), photometric="rgb", extrasamples=[kind])
        close(load_image(tmp_path / "a.tif"), expected * 255, atol=1e-5)
    multiplied = np.round(levels[..., :3] * opacity).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        raise_(np.concatenate([multiplied, rgb[..., :1]], 2)),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    close(load_image(tmp_path / "a.tif"), (multiplied / 255 + 1 - opacity) * 255, atol=0.01)


def test_gray_with_opacity_in_16_bits(tmp_path: Path, rgb: np.ndarray) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 2), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(_png(values, colour_type=4))
    opacity = values[..., 1] / 65535
    close(load_image(tmp_path / "a.png"), (values[..., 0] / 65535 * opacity + 1 - opacity) * 255)


def _png(values: np.ndarray, colour_type: int) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB"])
def test_modes_of_pillow(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    """What a file in this mode holds is the picture that Pillow converts it to."""
    from PIL import ImageCms

    # 8 bits of LAB hold no saturated colours
    smooth = np.asarray(Image.fromarray(rgb // 4 + 96).resize((WIDTH, HEIGHT), box=(3, 3, 6, 6)))
    picture = Image.fromarray(smooth)
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "a.tif")
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        with pytest.raises(ImageFileError, match="Pillow from version 13 on"):
            load_image(tmp_path / "a.tif")
        return
    if mode == "LAB":
        close(load_image(tmp_path / "a.tif"), smooth, atol=0.03)
        return
    expected = np.asarray(picture.convert("L" if mode in ("1", "L") else "RGB"))
    close(load_image(tmp_path / "a.tif"), expected)


def test_the_first_page_is_read_with_a_notice(
    tmp_path: Path, rgb: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    tifffile.imwrite(tmp_path / "deep.tif", np.stack([deep(rgb), deep(255 - rgb)]), photometric="rgb")
    for name in ("a.tif", "deep.tif"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            close(load_image(tmp_path / name), rgb)
        assert f"{name} holds 2 images: the first one is read" in caplog.text


def test_more_pixels_than_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    close(load_image(tmp_path / "a.png"), rgb)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr("kornia_lift._io.stored.MAX_PIXELS", 100)
    with pytest.raises(ImageFileError, match="30 x 20 pixels, at most 100 are read"):
        load_image(tmp_path / "a.png")
    assert MAX_PIXELS > 179_000_000


@pytest.mark.slow
def test_180_million_pixels(tmp_path: Path) -> None:
    values = np.zeros((12000, 15100), np.uint8)
    values[-1] = 255
    Image.fromarray(values).save(tmp_path / "a.png", compress_level=1)
    image = load_image(tmp_path / "a.png")
    assert image.shape == (1, 1, 12000, 15100)
    assert image[0, 0, -1].eq(1).all()
    assert image[0, 0, -2].eq(0).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_broken_tags_do_not_matter(tmp_path: Path, rgb: np.ndarray, name: str) -> None:
    """Only the orientation is read: a tag that cannot be decoded, or written back, is nobody's concern."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\xff\xff\0\0" + b"\x69\x87\x04\0\x01\0\0\0\xff"
    options: dict[str, Any] = {"exif": exif} if name != "a.tif" else {}
    if name in ("a.webp",):
        options["lossless"] = True
    picture = np.full_like(rgb, 100)
    Image.fromarray(picture).save(tmp_path / name, **options)
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, picture, extratags=[(34665, "I", 1, 2**31, True), (274, "H", 1, 99, True)])
    close(load_image(tmp_path / name), picture, atol=0.01)
    assert image_file_size(tmp_path / name) == (WIDTH, HEIGHT)


def test_tags_that_pillow_cannot_write_back(tmp_path: Path, rgb: np.ndarray) -> None:
    """A rational where a number is expected: Pillow's exif_transpose fails on it."""
    import struct

    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x9286, 3, 1, b"\0\0\0\0")
    entries += struct.pack("<HHI4s", 0xA405, 2, 4, b"abc\0")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + b"\0\0\0\0"
    Image.fromarray(np.full_like(rgb, 100)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").shape == (1, 3, WIDTH, HEIGHT)
    assert load_image(tmp_path / "a.jpg", apply_exif=False).shape == (1, 3, HEIGHT, WIDTH)
    assert image_file_size(tmp_path / "a.jpg") == (HEIGHT, WIDTH)


def test_gray_is_the_same_in_one_step(tmp_path: Path) -> None:
    from kornia.color import rgb_to_grayscale

    levels = np.random.default_rng(0).integers(0, 256, (700, 40, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png", gray=True), rgb_to_grayscale(load_image(tmp_path / "a.png")))


def test_images_that_are_left_out_are_named(tmp_path: Path) -> None:
    for name in ["a.jfif", "b.PNM", "c.heic", "d.HEIC", "sub/e.nef", "f.txt", "g.avif"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.jfif", "b.PNM", "g.avif"]
    unread = list_unread_images(tmp_path)
    assert [p.name for p in unread] == ["c.heic", "d.HEIC", "e.nef"]
    text = describe_unread(unread)
    assert text.startswith("left out 2 .heic, 1 .nef (c.heic, ...): convert with `heif-convert`")
    assert "raw developer" in text
    assert describe_unread([]) == ""


def test_heic_says_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ImageFileError, match=r"a\.heic as an image: .*; convert it to JPEG or PNG, .*heif-convert"):
        load_image(tmp_path / "a.heic")


def test_avif(tmp_path: Path) -> None:
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 50)).save(tmp_path / "a.avif", quality=100)
    assert float(load_image(tmp_path / "a.avif")[:, 0].mean()) == pytest.approx(200 / 255, abs=0.02)
