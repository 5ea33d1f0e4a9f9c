"""One picture in every container, mode and depth gives the same pixels as in 8 bits."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_lift._io import ImageFileError, load_image
from kornia_lift.scenes.images import image_file_size

PIL = pytest.importorskip("PIL")
Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 32, 48
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([X * 255 // (WIDTH - 1), Y * 255 // (HEIGHT - 1), (X + Y) * 255 // (WIDTH + HEIGHT - 2)], -1).astype(
    "u1"
)
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))[..., None]
ALPHA = (255 - X * 200 // (WIDTH - 1)).astype("u1")[..., None]

#: Format of Pillow, options that lose as little as it can, and the largest difference left, of 255.
CONTAINERS: dict[str, tuple[dict[str, Any], float]] = {
    "AVIF": ({"quality": 100, "subsampling": "4:4:4"}, 3),
    "BMP": ({}, 0),
    "DDS": ({}, 0),
    "GIF": ({}, 0),
    "ICO": ({"sizes": [(WIDTH, HEIGHT)]}, 0),
    "JPEG": ({"quality": 100, "subsampling": 0}, 4),
    "JPEG2000": ({}, 0),
    "PCX": ({}, 0),
    "PNG": ({}, 0),
    "PPM": ({}, 0),
    "SGI": ({}, 0),
    "TGA": ({}, 0),
    "TIFF": ({}, 0),
    "WEBP": ({"lossless": True, "exact": True}, 0),
}
#: What a writer leaves out: opacity, more than one bit of it, more than 8 bits, more than 256 colours.
LOSES = {
    *itertools.product(["GIF"], ["LA", "RGB", "RGBA", "I;16", "I", "F"]),
    *itertools.product(["AVIF", "WEBP"], ["I;16", "I", "F"]),
    *itertools.product(["BMP", "PPM"], ["RGBA"]),
}


def blended(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours * (ALPHA / 255) + 255 - ALPHA)


def mode(name: str) -> tuple[Any, np.ndarray]:
    """The picture in a mode of Pillow, and its values of 0 to 255."""
    picture, gray = Image.fromarray(RGB), Image.fromarray(GRAY[..., 0])
    alpha = Image.fromarray(ALPHA[..., 0])
    match name:
        case "LA":
            return Image.merge("LA", [gray, alpha]), blended(GRAY)
        case "RGBA":
            return Image.merge("RGBA", [*picture.split(), alpha]), blended(RGB)
        case "I;16":
            return Image.fromarray(GRAY[..., 0].astype(np.uint16) * 257), GRAY
        case "I":
            return Image.fromarray(GRAY[..., 0].astype(np.int32) * 257), GRAY
        case "F":
            return Image.fromarray((GRAY[..., 0] / 255).astype(np.float32)), GRAY
        case "PA":
            palette = picture.quantize(256)
            image = palette.convert("PA")
            image.putalpha(alpha)
            return image, blended(np.asarray(palette.convert("RGB")))
        case "1" | "L":
            image = gray.convert(name)
            return image, np.asarray(image.convert("L"))[..., None]
    image = picture.quantize(256) if name == "P" else picture.convert(name)
    return image, np.asarray(image.convert("RGB"))


def check(path: Path, expected: np.ndarray, atol: float = 0) -> None:
    found = load_image(path)
    assert image_file_size(path) == (WIDTH, HEIGHT)
    wide = np.broadcast_to(expected, (HEIGHT, WIDTH, found.shape[1])) if expected.shape[2] == 1 else expected
    torch.testing.assert_close(
        found[0].permute(1, 2, 0) * 255, torch.tensor(wide, dtype=torch.float32), atol=atol + 0.01, rtol=0
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_pillow_writes(tmp_path: Path, container: str) -> None:
    options, atol = CONTAINERS[container]
    written = []
    for name in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"):
        if (container, name) in LOSES:
            continue
        image, expected = mode(name)
        path = tmp_path / f"{name.replace(';', '')}.{container.lower()}"
        try:
            image.save(path, container, **options)
        except (OSError, KeyError, ValueError):  # Pillow does not write this mode
            continue
        written.append(name)
        if (container, name) == ("TIFF", "YCbCr") and int(PIL.__version__.split(".")[0]) < 13:
            with pytest.raises(ImageFileError, match="Pillow from version 13 on"):
                load_image(path)
            continue
        check(path, expected, atol)
    if not written:
        pytest.skip(f"this Pillow does not write {container}")
    assert {"L", "RGB"} & set(written)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
def test_bands_and_depths_of_tiff(
    tmp_path: Path, dtype: str, planes: str, byteorder: str, compression: str | None
) -> None:
    """Gray and colour, with and without opacity, bands together or apart, in both orders of bytes."""
    kind = np.dtype(dtype)
    top = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
    for colours, alpha in itertools.product((GRAY, RGB), (False, True)):
        levels = np.concatenate([colours, ALPHA], -1) if alpha else colours
        values = levels / 255 * top
        values = (values if kind.kind == "f" else values.round()).astype(kind)
        apart = planes == "separate" and values.shape[2] > 1
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.moveaxis(values, -1, 0) if apart else values.squeeze(),
            photometric="rgb" if colours is RGB else "minisblack",
            planarconfig=planes if values.shape[2] > 1 else None,
            extrasamples=["unassalpha"] if alpha else None,
            byteorder=byteorder,
            compression=compression,
        )
        check(tmp_path / "a.tif", blended(colours) if alpha else colours, {"int8": 2, "float16": 0.1}.get(dtype, 0))


def test_a_tiff_of_many_bands_shows_the_first(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.concatenate([GRAY, RGB, ALPHA], -1), photometric="minisblack", planarconfig="contig"
    )
    check(tmp_path / "a.tif", GRAY)


def test_tiffs_that_are_no_image_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "lab.tif", RGB.astype(np.float32), photometric="cielab")
    with pytest.raises(ImageFileError, match=r"CIELAB in 32 bits; convert it to RGB"):
        load_image(tmp_path / "lab.tif")
    with pytest.raises(ImageFileError, match=r"CIELAB in 32 bits; convert it to RGB"):
        image_file_size(tmp_path / "lab.tif")
    tifffile.imwrite(tmp_path / "negative.tif", RGB.astype(np.int16) - 1, photometric="rgb")
    with pytest.raises(ImageFileError, match=r"values from -1"):
        load_image(tmp_path / "negative.tif")


def png(values: np.ndarray, bits: int, key: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    digits = ["".join(format(v, f"0{bits}b") for v in row) for row in values.tolist()]
    rows = [b"\0" + int(row + "0" * (-len(row) % 8), 2).to_bytes(-(-len(row) // 8), "big") for row in digits]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", key)) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
    )
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_gray_value_of_a_png_is_transparent(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    values = (GRAY[..., 0] / 255 * top).round().astype(int)
    key = int(np.median(values[values > 0]))
    (tmp_path / "a.png").write_bytes(png(values, bits, key))
    check(tmp_path / "a.png", np.where(values == key, 255, values / top * 255)[..., None])


@pytest.mark.parametrize("white", [1, 15, 100, 255, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_whites_of_pnm(tmp_path: Path, white: int, plain: bool) -> None:
    for levels in (GRAY, RGB):
        values = (levels / 255 * white).round()
        kind = {1: 5, 3: 6}[levels.shape[2]] - 3 * plain
        body = " ".join(f"{v:.0f}" for v in values.ravel()).encode() if plain else b""
        body = body or values.astype(">u1" if white < 256 else ">u2").tobytes()
        (tmp_path / "a.pnm").write_bytes(f"P{kind}\n{WIDTH} {HEIGHT}\n{white}\n".encode() + body)
        check(tmp_path / "a.pnm", values / white * 255, atol=0.5)  # Pillow rounds colours to 8 bits


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)], ids=["565", "555"])
def test_bmp_of_16_bits(tmp_path: Path, masks: tuple[int, int, int]) -> None:
    colours = [(mask // (mask & -mask), mask & -mask) for mask in masks]  # the largest value of each, and its place
    levels = [(RGB[..., k] / 255 * top).round().astype(int) for k, (top, _) in enumerate(colours)]
    pixels = sum(level * place for level, (_, place) in zip(levels, colours, strict=True))
    body = np.asarray(pixels, "<u2")[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiIIIII", 40, WIDTH, HEIGHT, 1, 16, 3, len(body), 0, 0, 0, 0, *masks)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 66 + len(body), 0, 0, 66) + header + body)
    expected = np.stack([level / top * 255 for level, (top, _) in zip(levels, colours, strict=True)], -1)
    check(tmp_path / "a.bmp", expected, atol=1)
