"""COLMAP models as scenes: text and binary, names below images/, stored pixels, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import OK, evaluate
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.folders import UnreadableScene, load_scenes
from tests.helpers.small_scenes import HEIGHT, WIDTH, K, write_sequence

pycolmap = pytest.importorskip("pycolmap")

POINTS = 60


def write_model(root: Path, names: list[str], *, exif: int | None = None) -> Path:
    """A model in text, cameras side by side, and images of one brightness each."""
    generator = np.random.default_rng(0)
    world = np.c_[generator.uniform(-1, 1, (POINTS, 2)), generator.uniform(6, 9, POINTS)]
    (root / "sparse").mkdir(parents=True)
    camera = f"1 PINHOLE {WIDTH} {HEIGHT} {K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}\n"
    (root / "sparse" / "cameras.txt").write_text(camera)
    lines = []
    for index, name in enumerate(names):
        seen = (world + np.array([0.3 * index, 0, 0])) @ K.T
        xy = seen[:, :2] / seen[:, 2:] + 0.5
        lines.append(f"{index + 1} 1 0 0 0 {0.3 * index} 0 0 1 {name}")
        lines.append(" ".join(f"{x} {y} {k + 1}" for k, (x, y) in enumerate(xy)))
        picture = Image.fromarray(np.full((HEIGHT, WIDTH), 40 * (index + 1), np.uint8))
        picture.putpixel((0, 0), 255)
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = Image.Exif()
        if exif is not None:
            tags[0x0112] = exif
        picture.save(path, exif=tags)
    (root / "sparse" / "images.txt").write_text("\n".join(lines) + "\n")
    tracks = " ".join(f"{index + 1} {{k}}" for index in range(len(names)))
    (root / "sparse" / "points3D.txt").write_text(
        "".join(f"{k + 1} {x} {y} {z} 0 0 0 0.1 {tracks.format(k=k)}\n" for k, (x, y, z) in enumerate(world))
    )
    return root


def write_binary(root: Path) -> None:
    pycolmap.Reconstruction(str(root / "sparse")).write(str(root / "sparse"))
    for file in (root / "sparse").glob("*.txt"):
        file.unlink()


def only_scene(root: Path) -> CalibratedScene:
    scene = load_scenes([root])["calibrated"][0]
    assert isinstance(scene, CalibratedScene)
    return scene


@pytest.mark.parametrize("names", [["cam0/0000.png", "cam1/0000.png"], ["a.bmp", "a.png"], ["a.png", "a/a.png"]])
def test_images_are_called_as_in_the_model(tmp_path: Path, names: list[str]) -> None:
    scene = only_scene(write_model(tmp_path / "church", names))
    assert (scene.name, scene.names, len(scene.pairs)) == ("church", tuple(names), 1)
    seen: list[float] = []

    def extract(image: object) -> tuple[np.ndarray, np.ndarray]:
        seen.append(round(float(image[0, 0, 5, 5]) * 255))  # type: ignore[index]
        return np.array([[seen[-1], 10.0]]), np.ones((1, 4), np.float32)

    assert extract_to_file(extract, [scene], tmp_path / "f.h5", num_features=5, options={}) == 2
    assert seen == [40, 80]
    with FeatureStore(tmp_path / "f.h5") as store:
        assert [store.read("church", name).keypoints[0, 0] for name in names] == [40, 80]
        assert evaluate(store, [scene], Options(estimator=None))[0].status == OK


def test_text_and_binary_models_are_the_same(tmp_path: Path) -> None:
    root = write_model(tmp_path / "church", ["a.png", "b.png", "c.png"])
    text = only_scene(root)
    write_binary(root)
    binary = only_scene(root)
    assert text.names == binary.names
    assert text.pairs == binary.pairs
    for name in ("intrinsics", "rotations", "translations"):
        np.testing.assert_allclose(getattr(text, name), getattr(binary, name), atol=1e-12)
    np.testing.assert_allclose(text.intrinsics[0], K)
    np.testing.assert_allclose(text.relative_pose(0, 2)[1], [0.6, 0, 0], atol=1e-12)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_are_those_that_the_model_counts(tmp_path: Path, orientation: int) -> None:
    """A viewer would rotate these images; COLMAP does not."""
    scene = only_scene(write_model(tmp_path / "church", ["a.png", "b.png"], exif=orientation))
    assert scene.image_size(0) == (WIDTH, HEIGHT)
    assert scene.image(0).shape[-2:] == (HEIGHT, WIDTH)
    assert scene.image(0)[0, 0, 0, 0] == 1


def test_a_missing_image_is_named_and_skips_its_pairs(tmp_path: Path) -> None:
    root = write_model(tmp_path / "church", ["cam0/0.png", "cam1/0.png", "cam2/0.png"])
    (root / "images" / "cam1" / "0.png").unlink()
    scene = only_scene(root)
    assert [(p.i, p.j) for p in scene.pairs] == [(0, 2)]
    assert {p.reason for p in scene.skipped} == {"image cam1/0.png is missing"}


@pytest.mark.parametrize("file", ["images.bin", "cameras.bin", "points3D.bin"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_cut_model_is_reported(tmp_path: Path, file: str, keep: float) -> None:
    root = write_model(tmp_path / "church", ["a.png", "b.png"])
    write_binary(root)
    whole = (root / "sparse" / file).read_bytes()
    (root / "sparse" / file).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match="COLMAP model .* is damaged or incomplete"):
        load_scenes([root])
    write_sequence(tmp_path / "seq", {2: np.eye(3)})
    scene = load_scenes([tmp_path])["calibrated"][0]
    assert isinstance(scene, UnreadableScene)
    assert "church/sparse is damaged" in scene.skipped[0].reason


def test_a_folder_without_model_is_reported(tmp_path: Path) -> None:
    root = write_model(tmp_path / "church", ["a.png", "b.png"])
    for file in (root / "sparse").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no COLMAP model in sparse/"):
        load_scenes([root])
    write_model(tmp_path / "lost", [])
    with pytest.raises(ValueError, match="holds no image with a pose"):
        CalibratedScene.from_colmap(tmp_path / "lost" / "sparse", tmp_path / "lost" / "images")


def test_names_must_be_unique() -> None:
    empty = np.zeros((2, 3, 3))
    with pytest.raises(ValueError, match="2 images need as many different names"):
        CalibratedScene(
            name="x",
            paths=[Path("a/0.png"), Path("b/0.png")],
            intrinsics=empty,
            rotations=empty,
            translations=np.zeros((2, 3)),
            sizes=[(1, 1)] * 2,
            pairs=(),
        )


@pytest.mark.parametrize(("model", "where"), [("sparse/manhattan/0", ""), ("sparse/0", ""), ("sparse", "dense")])
def test_published_collections_are_read_as_they_are(tmp_path: Path, model: str, where: str) -> None:
    """MegaDepth_v1_SfM, COLMAP's own layout, and PhotoTourism of the Image Matching Challenge."""
    from kornia_lift.training.data.prepare.sources import find_sources

    plain = write_model(tmp_path / "plain", ["a.jpg", "b.jpg"])
    root = tmp_path / "published" / "0015" / where
    (root / model).parent.mkdir(parents=True, exist_ok=True)
    (plain / "sparse").rename(root / model)
    (plain / "images").rename(root / "images")
    scene = only_scene(tmp_path / "published")
    assert scene.name == "0015" and scene.names == ("a.jpg", "b.jpg") and len(scene.pairs) == 1
    (source,) = find_sources(tmp_path / "published")
    assert (source.kind, source.name) == ("sfm", "0015")
    assert {path.suffix for path in source.files} == {".jpg", ".txt"} and len(source.files) == 5
