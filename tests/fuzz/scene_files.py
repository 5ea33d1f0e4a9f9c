"""Small images and scenes, and what reading them must give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kornia_lift import load_image
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.dtu import DTUScan
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.images import image_file_size
from kornia_lift.scenes.posed import PosedScene


def picture(mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    """Write a small image."""

    def write(path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 255, (24, 31, 3), dtype=np.uint8)
        image = Image.fromarray(values)
        if mode == "I;16":
            image = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
        elif mode == "F":
            image = Image.fromarray(values[..., 0].astype(np.float32) / 255)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(path, **options)

    return write


def read_image(path: Path) -> None:
    """Read an image and its size."""
    image_file_size(path)
    pixels = load_image(path)
    assert pixels.min() >= 0 and pixels.max() <= 1


def tiff_bands_apart(path: Path) -> None:
    """Write a TIFF with three bands of 16 bits, one behind the other, which is left to tifffile."""
    import tifffile

    values = np.random.default_rng(0).integers(0, 2**16, (3, 24, 31), dtype=np.uint16)
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate")


def tiff_float_colour(path: Path) -> None:
    """Write a tiled, compressed TIFF of three floating-point bands, which Pillow does not know."""
    import tifffile

    values = np.random.default_rng(0).random((24, 31, 3), dtype=np.float32)
    tifffile.imwrite(path, values, photometric="rgb", tile=(16, 16), compression="zlib")


def deep_colour(path: Path) -> None:
    """Write a small image of three channels with 16 bits, which Pillow cannot write."""
    import cv2

    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 2**16, (24, 31, 3), dtype=np.uint16))


def sequence(path: Path) -> None:
    """Two images and a homography."""
    for name in ("1.png", "2.png"):
        picture("L")(path.with_name(name))
    path.write_text("1.1 0.02 3\n-0.01 0.9 2\n1e-5 0 1\n")


def read_sequence(path: Path) -> None:
    """Read it; what is kept must be usable."""
    scene = HomographySequence.load(path.parent)
    for pair in scene.pairs:
        moved = scene.transfer(pair.i, pair.j, np.array([[3.0, 4.0], [30.0, 20.0]]))
        assert np.isfinite(moved.points[moved.status == 1]).all()
    if not scene.pairs:
        raise ValueError(scene.skipped[0].reason)


CAMERA_FILE = "50 0 25\n0 50 20\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n50 40\n"


def read_strecha(path: Path) -> None:
    """Read cameras."""
    scene = CalibratedScene.from_strecha(path.parent)
    assert np.isfinite(scene.intrinsics).all() and np.isfinite(scene.translations).all()


def cameras(path: Path, **changes: Any) -> Path:
    """Two posed cameras, changed or with an array left out (None)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "K": np.tile(np.diag([50.0, 50.0, 1.0]), (2, 1, 1)),
        "R": np.tile(np.eye(3), (2, 1, 1)),
        "t": np.zeros((2, 3)),
        "names": np.array(["a", "b"]),
        "width": np.array(50),
        "height": np.array(40),
        "depth_scale": np.array(0.001),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def read_posed(path: Path) -> None:
    """Read a posed scene."""
    scene = PosedScene.load(path.parent)
    assert np.isfinite(scene.rotations).all() and 0 < scene.size[0] < 2**20
    assert np.isfinite(scene.relative_pose(0, 1)[1]).all() if len(scene) > 1 else True


def pairs_of_scene(path: Path) -> None:
    """A posed scene whose list of pairs is damaged."""
    cameras(path.with_name("cameras.npz"))
    path.write_text("0 1 0.5 20\n1 0\n")


MODEL = {
    "cameras.txt": "1 PINHOLE 50 40 50 50 25 20\n2 SIMPLE_RADIAL 50 40 50 25 20 0.01\n",
    "images.txt": "1 1 0 0 0 0 0 0 1 a.jpg\n10 11 1 20 21 2\n2 1 0 0 0 1 0 0 2 b.jpg\n12 11 1 22 21 2\n",
    "points3D.txt": "1 0 0 5 9 9 9 0.5 1 0 2 0\n2 1 0 5 9 9 9 0.5 1 1 2 1\n",
}


def model(path: Path) -> None:
    """A COLMAP model, binary or text."""
    for name, text in MODEL.items():
        path.with_name(name).write_text(text)
    if path.suffix == ".bin":
        import pycolmap

        pycolmap.Reconstruction(str(path.parent)).write_binary(str(path.parent))
        for name in MODEL:
            path.with_name(name).unlink()


def read_model(path: Path) -> None:
    """Read it as a scene."""
    scene = CalibratedScene.from_colmap(path.parent, path.parent, min_shared=1)
    for name in ("intrinsics", "rotations", "translations"):
        assert np.isfinite(getattr(scene, name)).all(), name


def dtu_file(path: Path) -> None:
    """Two scans of DTU's data: two images each, their cameras and a point cloud, once as text and once binary."""
    root = path.parents[2]
    for scan in (1, 2):
        folder = root / "Rectified" / f"scan{scan}"
        folder.mkdir(parents=True)
        for number in (1, 2):
            Image.new("L", (50, 40)).save(folder / f"rect_{number:03d}_3_r5000.png")
    for number, shift in ((1, 0), (2, -100)):
        text = f"50 0 25 {50 * shift}\n0 50 20 0\n0 0 1 0\n"
        _write(root / "Calibration" / "cal18" / f"pos_{number:03d}.txt", text.encode())
    points = np.random.default_rng(0).uniform((-100, -80, 400), (100, 80, 500), (20, 3)).astype(np.float32)
    header = "ply\nformat {} 1.0\nelement vertex 20\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    text = "".join(f"{x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in points)
    clouds = root / "Points" / "stl"
    _write(clouds / "stl001_total.ply", (header.format("ascii") + text).encode())
    _write(clouds / "stl002_total.ply", header.format("binary_little_endian").encode() + points.tobytes())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read_dtu(path: Path) -> None:
    """Read the scan that the file belongs to, and the depth of an image."""
    number = 2 if path.name.startswith("stl002") else 1
    scene = DTUScan.load(path.parents[2] / "Rectified" / f"scan{number}")
    for name in ("intrinsics", "rotations", "translations"):
        assert np.isfinite(getattr(scene, name)).all(), name
    moved = scene.transfer(0, 1, np.array([[25.0, 20.0], [10.0, 30.0]]))
    assert np.isfinite(moved.points[moved.status == 1]).all()
