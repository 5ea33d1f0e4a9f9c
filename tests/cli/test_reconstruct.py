"""``export-colmap`` and ``reconstruct``: from images to a database and a model, by COLMAP itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kornia_lift import LIFTFeature
from kornia_lift.cli import main
from kornia_lift.features import Features
from kornia_lift.files.lock import FileLock
from kornia_lift.reconstruction import matching_key
from tests.helpers.cli import Answer, one_line, save, sift
from tests.helpers.pictures import texture

pycolmap = pytest.importorskip("pycolmap")

FOCAL, SIZE = 300.0, (320, 240)  # width, height
CAMERA = f"PINHOLE,{FOCAL},{FOCAL},160,120"


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four views of two textured planes at different depths, by a camera that moves sideways and up."""
    import cv2

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("views")
    layers = []
    for depth, share in ((6.0, 1.0), (4.0, 0.5)):
        texture = np.zeros((480, 640))
        for cell in (6, 12, 24):
            texture += cv2.resize(rng.random((480 // cell, 640 // cell)), (640, 480), interpolation=cv2.INTER_CUBIC)
        texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
        layers.append((depth, share, texture))
    for k, (x, y) in enumerate([(0.0, 0.0), (0.4, 0.0), (0.8, 0.15), (1.2, 0.0)]):
        picture = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        for depth, share, texture in layers:
            # plane at this depth, 640 x 480 texture pixels of 0.0125 units, centred at (0.6, 0)
            scale = 0.0125 * FOCAL / depth
            shift = [
                160 + FOCAL * (0.6 - x) / depth - scale * 320,
                120 - FOCAL * y / depth - scale * 240 * (2 - share),
            ]
            warp = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
            flags = cv2.INTER_AREA
            here = cv2.warpAffine(texture, warp, SIZE, flags=flags)
            mask = cv2.warpAffine(np.full_like(texture, 255), warp, SIZE)
            if share < 1:  # the nearer plane covers the lower half
                mask[: SIZE[1] // 2] = 0
            picture = np.where(mask > 0, here, picture)
        cv2.imwrite(str(folder / f"view{k}.png"), picture)
    return folder


def test_database_holds_what_the_file_holds(call: Callable[..., Answer], views: Path, tmp_path: Path) -> None:
    assert call("extract", views, "--out", "features.h5", "-n", 800).code == 0
    (tmp_path / "pairs.txt").write_text("# neighbours\nview0.png view1.png\n\nview2.png view1.png\n")
    answer = call(
        "export-colmap", "features.h5", "--images", views, "--out", "a.db", "--pairs", "pairs.txt", "--camera", CAMERA
    )
    assert answer.code == 0, answer.err
    assert "4 images" in answer.out
    assert "2 pairs verified" in answer.out
    with pycolmap.Database.open("a.db") as database:
        (camera,) = database.read_all_cameras()
        assert camera.model.name == "PINHOLE"
        assert camera.params.tolist() == [FOCAL, FOCAL, 160, 120]
        assert camera.has_prior_focal_length
        assert sorted(image.name for image in database.read_all_images()) == [f"view{k}.png" for k in range(4)]
        assert database.num_matched_image_pairs() == 2
    again = call("export-colmap", "features.h5", "--images", views, "--out", "a.db")
    assert again.code == 2
    assert "a.db exists" in again.err


@pytest.mark.parametrize(("model", "stored"), [("lift", True), ("lift-plus", False)])
def test_descriptors_that_colmap_cannot_hold_are_said(
    call: Callable[..., Answer], views: Path, model: str, stored: bool
) -> None:
    def make(_: object) -> LIFTFeature:
        return LIFTFeature(100, pretrained=model)

    assert call("extract", views, "--out", "features.h5", "--model", model, make_feature=make).code == 0
    answer = call("export-colmap", "features.h5", "--images", views, "--out", "a.db", "--camera", CAMERA)
    assert answer.code == 0, answer.err
    assert ("descriptors of 4 images are not stored" in answer.err) is not stored
    with pycolmap.Database.open("a.db") as database:
        assert bool(database.num_descriptors()) is stored


def test_reconstruction_of_known_motion(call: Callable[..., Answer], views: Path, tmp_path: Path) -> None:
    arguments = ("reconstruct", views, "--out", "model", "-n", 1500, "--camera", CAMERA)
    answer = call(*arguments)
    assert answer.code == 0, answer.err
    assert "4 images registered" in answer.out
    model = pycolmap.Reconstruction("model/0")
    centres = {image.name: image.projection_center() for image in model.images.values()}
    path = np.array([centres[f"view{k}.png"] for k in range(4)])
    true = np.array([(0.0, 0.0, 0.0), (0.4, 0.0, 0.0), (0.8, 0.15, 0.0), (1.2, 0.0, 0.0)])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    expected = np.linalg.norm(np.diff(true, axis=0), axis=1)
    np.testing.assert_allclose(steps / steps.sum(), expected / expected.sum(), atol=0.02)
    # again: what is there is used
    features = (tmp_path / "model/features.h5").stat().st_mtime_ns
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "model/matches").rglob("*.npz")}
    assert len(parts) == 3
    assert call(*arguments).code == 0
    assert (tmp_path / "model/features.h5").stat().st_mtime_ns == features
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "model/matches").rglob("*.npz")} == parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--camera", "PINHOLE,300"), "the model PINHOLE does not have 1 parameters"),
        (("--camera", "FISH,300"), "camera 'FISH,300': unknown model 'FISH', expected one of SIMPLE_PINHOLE, PINHOLE"),
        (("--pairs", "pairs.txt"), "pairs.txt, line 1: there are no features of the image 'absent.png'"),
    ],
)
def test_wrong_arguments(
    call: Callable[..., Answer], views: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "pairs.txt").write_text("view0.png absent.png\n")
    assert call("extract", views, "--out", "features.h5", "-n", 50).code == 0
    answer = call("export-colmap", "features.h5", "--images", views, "--out", "a.db", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "a.db").exists()


def test_a_missing_folder_is_said_before_anything_is_matched(call: Callable[..., Answer], views: Path) -> None:
    assert call("extract", views, "--out", "features.h5", "-n", 50).code == 0
    answer = call("export-colmap", "features.h5", "--images", views, "--out", "absent/a.db")
    assert answer.code == 2
    assert "--out absent/a.db: its folder does not exist" in answer.err
    assert "putative" not in answer.out


def test_stored_pixels_are_needed(call: Callable[..., Answer], views: Path) -> None:
    answer = call("reconstruct", views, "--out", "model", "--apply-exif")
    assert answer.code == 2
    assert "COLMAP reads the stored pixels" in answer.err


def test_a_folder_with_the_name_of_a_model_is_left_alone(call: Callable[..., Answer], views: Path) -> None:
    (mine := Path("holidays") / "2024").mkdir(parents=True)
    answer = call("reconstruct", views, "--out", "holidays")
    assert answer.code == 2
    assert "2024 is no COLMAP model" in answer.err and "choose another folder" in answer.err
    assert mine.is_dir() and not (Path("holidays") / "features.h5").exists()


@pytest.mark.parametrize("tag", [3, 6])
def test_features_of_rotated_images_do_not_get_into_a_database(
    tag: int, call: Callable[..., Answer], tmp_path: Path
) -> None:
    """Square images, and those rotated by 180 degrees, have the size that COLMAP expects, and nothing else tells."""
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = tag
    folder = tmp_path / "square"
    folder.mkdir()
    for name, more in (("plain.jpg", {}), ("tagged.jpg", {"exif": exif.tobytes()})):
        image.fromarray((255 * texture(200, 200)[0, 0].numpy()).astype(np.uint8)).save(folder / name, **more)
    assert call("extract", folder, "--out", "rotated.h5", "-n", 50, "--apply-exif").code == 0
    answer = call("export-colmap", "rotated.h5", "--images", folder, "--out", "a.db")
    assert answer.code == 2 and not Path("a.db").exists()
    assert "1 image with an orientation tag (tagged.jpg): COLMAP reads the pixels as stored" in answer.err
    (folder / "tagged.jpg").unlink()
    (folder / "tagged.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    assert call("export-colmap", "rotated.h5", "--images", folder, "--out", "a.db").code == 0


def test_images_that_are_left_out_are_named(call: Callable[..., Answer], folder: Path) -> None:
    (folder / "phone.heic").touch()
    answer = call("extract", folder, "--out", "features.h5", "-n", 20)
    assert answer.code == 0
    assert "left out 1 .heic (phone.heic)" in answer.err


def test_matches_are_kept_for_descriptors_not_for_the_bytes_of_a_file() -> None:
    def features(name: str, seed: int = 0) -> Features:
        return Features(np.zeros((3, 2)), np.random.default_rng([seed, ord(name)]).random((3, 128), dtype=np.float32))

    first = {name: features(name) for name in "ab"}
    key = matching_key(first, 1.0)
    assert matching_key({name: features(name) for name in "ba"}, 1.0) == key  # written in another order
    for other in ({"a": first["a"]}, first | {"b": features("b", 1)}, {"a": first["b"], "b": first["a"]}):
        assert matching_key(other, 1.0) != key
    assert matching_key(first, 0.9) != key


def unlike(folder: Path) -> Path:
    """Three images without anything in common."""
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (60, 80), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        save(folder / f"{k}.png", pixels)
    return folder


def test_images_without_overlap_are_said_by_us_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, model = unlike(tmp_path / "unlike"), tmp_path / "model"
    assert main(["reconstruct", str(folder), "--out", str(model), "-n", "100"], make_feature=sift) == 2
    printed = capfd.readouterr()
    assert "no model was found: too few images overlap" in printed.err
    assert not re.search(r"^[IWEF]\d{8} ", printed.out + printed.err, re.MULTILINE)


def test_formats_that_colmap_does_not_read_are_said_early(call: Callable[..., Answer], tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    if pycolmap.Bitmap.read(save(tmp_path / "probe.webp", pixels), True) is not None:
        pytest.skip("this build of COLMAP reads WebP")
    folder = save(tmp_path / "images" / "a.webp", pixels).parent
    answer = call("reconstruct", folder, "--out", "model", "-n", 100)
    assert answer.code == 2
    assert "does not read the format of" in answer.err and "a.webp: convert such images to JPEG" in one_line(answer.err)
    assert not Path("model").exists()


def test_matches_of_other_features_or_another_ratio_are_removed(call: Callable[..., Answer], tmp_path: Path) -> None:
    folder = unlike(tmp_path / "unlike")
    command = ("reconstruct", folder, "--out", "model", "-n", 100)
    call(*command)
    matches = Path("model") / "matches"
    (first,) = matches.iterdir()
    # what we did not make, or not there
    mine = [matches / "notes", matches / "0123456789abcdef", matches / "0123456789abcdee"]
    for path in mine[:2]:
        path.mkdir()
        (path / "mine.txt").touch()
    mine[2].touch()
    call(*command)
    assert first.is_dir()  # a run with the same features and the same ratio uses it
    call(*command, "--ratio", 0.8)
    assert not first.exists()
    left = set(matches.iterdir())
    assert set(mine) < left and len(left) == 4
    assert all((path / "mine.txt").exists() for path in mine[:2])


def test_a_second_run_beside_the_first_loses_nothing(call: Callable[..., Answer], tmp_path: Path) -> None:
    folder = unlike(tmp_path / "unlike")
    call("reconstruct", folder, "--out", "model", "-n", 100)
    before = {path: path.read_bytes() for path in Path("model").rglob("*") if path.is_file()}
    with FileLock(Path("model") / "database.db"):
        answer = call("reconstruct", folder, "--out", "model", "-n", 100, "--ratio", 0.8)
        assert answer.code == 2
        assert "database.db is being written by another run" in one_line(answer.err)
    assert {path: path.read_bytes() for path in Path("model").rglob("*") if path.is_file()} == before
