"""Features are used again for the same pixels only."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kornia_lift import LIFTFeature, ScaleSpaceConfig
from kornia_lift.evaluation.candidates import Candidate, candidate, lift_candidate
from kornia_lift.evaluation.comparison import feature_path, run
from kornia_lift.evaluation.features.cache import FeatureCache
from kornia_lift.evaluation.features.extraction import extract_to_cache
from kornia_lift.evaluation.features.files import FeatureFileError, FeatureStore, UnreadableImageError
from kornia_lift.evaluation.features.record import Features
from kornia_lift.evaluation.runner import FAILED, OK, SKIPPED, Options, evaluate
from kornia_lift.scenes.homographies import HomographySequence

from .conftest import features, grid_points, unit_vectors, write_sequence

Found = tuple[np.ndarray, np.ndarray]


def brightness(image: torch.Tensor) -> Found:
    """A feature that shows which image it was extracted from."""
    points = grid_points()
    return points, np.full((len(points), 4), float(image.mean()), np.float32)


def sequence_at(folder: Path, value: int, name: str = "seq") -> HomographySequence:
    """Two uniform images; images of all folders have the same names."""
    root = write_sequence(folder / name, {2: np.eye(3)})
    for number in (1, 2):
        cv2.imwrite(str(root / f"{number}.png"), np.full((90, 120), value, np.uint8))
    return HomographySequence.load(root)


def extract(path: Path, scene: HomographySequence, feature: Callable[[torch.Tensor], Found] = brightness) -> int:
    return extract_to_cache(feature, [scene], FeatureCache(path, {}), num_features=10)


def test_other_images_of_the_same_names_are_extracted_anew(tmp_path: Path) -> None:
    dark, bright = sequence_at(tmp_path / "a", 51), sequence_at(tmp_path / "b", 204)
    path = tmp_path / "f"
    assert [extract(path, s) for s in (dark, dark, bright, bright)] == [2, 0, 2, 0]
    np.testing.assert_allclose(FeatureCache(path, {}).read("seq", "1").descriptors, 0.8, rtol=1e-6)
    cv2.imwrite(str(bright.image_path(1)), np.zeros((90, 120), np.uint8))  # one image is edited
    assert extract(path, bright) == 1
    assert (FeatureCache(path, {}).read("seq", "2").descriptors == 0).all()


def test_features_of_unknown_images_are_extracted_anew(tmp_path: Path) -> None:
    scene = sequence_at(tmp_path, 51)
    cache = FeatureCache(tmp_path / "f", {})
    for name in scene.names:
        cache.write("seq", name, features(grid_points(), unit_vectors(len(grid_points()))))
    assert extract(tmp_path / "f", scene) == 2
    assert extract(tmp_path / "f", scene) == 0


def test_an_entry_gives_back_what_was_written(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "f", {"feature": "x"})
    given = features(grid_points() + 0.123456789, unit_vectors(len(grid_points())))
    bits = Features(np.ones((3, 2)), np.arange(96, dtype=np.uint8).reshape(3, 32))
    cache.write("a/b", "../c", given, fingerprint="7")
    cache.write("a", "2", bits)
    found = FeatureCache(tmp_path / "f", {"feature": "x"})
    for name in ("keypoints", "descriptors", "scores", "scales", "angles"):
        np.testing.assert_array_equal(getattr(found.read("a/b", "../c"), name), getattr(given, name))
    assert found.read("a/b", "../c").image_size == given.image_size
    assert found.read("a", "2").is_binary
    assert (found.fingerprint("a/b", "../c"), found.fingerprint("a", "2"), found.fingerprint("a", "3")) == (
        "7",
        None,
        None,
    )
    assert all(path.parent == tmp_path / "f" for path in (tmp_path / "f").rglob("*"))
    with pytest.raises(FeatureFileError, match="no features of image a/3"):
        found.read("a", "3")
    with pytest.raises(FeatureFileError, match="was made with"):
        FeatureCache(tmp_path / "f", {"feature": "y"})


@pytest.mark.parametrize("damage", ["empty", "half", "zip", "other", "nonsense"])
def test_a_damaged_entry_is_named_and_extracted_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    scene = sequence_at(tmp_path, 51)
    assert extract(tmp_path / "f", scene) == 2
    cache = FeatureCache(tmp_path / "f", {})
    path, whole = cache.path("seq", "1"), cache.path("seq", "1").read_bytes()
    expected = cache.read("seq", "1").descriptors
    if damage == "other":
        path.write_bytes(cache.path("seq", "2").read_bytes())
    elif damage == "nonsense":
        np.savez(path, name=np.array("seq/1"), fingerprint=np.array("x"), keypoints=np.ones(3), descriptors=np.ones(2))
    else:
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "zip": whole[:200] + whole[150:]}[damage])
    assert extract(tmp_path / "f", scene) == 1
    assert "seq/1, is damaged" in caplog.text
    np.testing.assert_array_equal(cache.read("seq", "1").descriptors, expected)


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing leaves a temporary file, never half an entry."""
    scene = sequence_at(tmp_path, 51)
    script = f"""
import os, signal
import numpy as np
from kornia_lift.evaluation.features.cache import FeatureCache
from kornia_lift.evaluation.features.extraction import extract_to_cache
from kornia_lift.scenes.homographies import HomographySequence
scene = HomographySequence.load({str(scene.root)!r})
save, count = np.savez, []
def dying(path, **arrays):
    count.append(path)
    if len(count) == 2:
        open(path, "wb").write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, **arrays)
np.savez = dying
cache = FeatureCache({str(tmp_path / "f")!r}, {{}})
extract_to_cache(lambda x: (np.ones((4, 2)), np.ones((4, 4))), [scene], cache, num_features=9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "f").glob("[!.]*.npz"))) == 1
    assert extract(tmp_path / "f", scene) == 1
    assert extract(tmp_path / "f", scene) == 0


def test_a_file_of_another_program_needs_no_fingerprint(tmp_path: Path) -> None:
    scene = sequence_at(tmp_path, 51)
    with FeatureStore(tmp_path / "own.h5", {}) as store:
        for name in scene.names:
            store.write("seq", name, features(grid_points(), unit_vectors(len(grid_points()))))
    results = run("t", [Candidate("own", file=tmp_path / "own.h5")], {"homography": [scene]}, tmp_path / "cache")
    assert results.features[0].pairs["homography"][0].values["matching_score"] == 1


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    groups = {"one": [sequence_at(tmp_path / "a", 51)], "two": [sequence_at(tmp_path / "b", 204)]}
    entry = Candidate("x", lambda n: brightness)  # type: ignore[arg-type, return-value]
    with pytest.raises(FeatureFileError, match="two different images are called seq/1"):
        run("t", [entry], groups, tmp_path / "cache", options=Options(10))
    groups["two"] = groups["one"]  # the same images under two headings are fine
    assert run("t", [entry], groups, tmp_path / "cache", options=Options(10)).groups == ["one", "two"]


def test_numbers_of_features_and_renamed_peers_have_caches_of_their_own(tmp_path: Path) -> None:
    groups = {"homography": [HomographySequence.load(write_sequence(tmp_path / "seq", {2: np.eye(3)}))]}
    for count in (40, 20):
        results = run("t", [candidate("opencv-sift")], groups, tmp_path / "cache", options=Options(count))
        assert results.features[0].options["num_features"] == count
    paths = {
        feature_path(tmp_path, candidate(spec), n)
        for spec in ("opencv-sift", "x=opencv-sift", "x=opencv-orb")
        for n in (20, 40)
    }
    assert len(paths) == 6


def test_other_options_of_one_model_have_a_file_of_their_own(tmp_path: Path) -> None:
    def entry(**options: Any) -> Candidate:
        return lift_candidate("lift", lambda n: LIFTFeature(n, **options))

    options: list[dict[str, Any]] = [{}, {"config": ScaleSpaceConfig(min_sigma=4)}, {"scaling_coef": 1.0}]
    paths = [feature_path(tmp_path, entry(**o), 20) for o in [*options, *options]]
    assert len(set(paths)) == 3
    assert paths[:3] == paths[3:]


def test_an_image_cut_off_skips_its_pairs_until_it_is_replaced(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "seq", {2: np.eye(3), 3: np.eye(3)})
    cv2.imwrite(str(root / "2.jpg"), cv2.imread(str(root / "2.png")))  # whose header alone tells the size
    (root / "2.png").unlink()
    whole = (root / "2.jpg").read_bytes()
    (root / "2.jpg").write_bytes(whole[: len(whole) // 2])
    scene = HomographySequence.load(root)
    assert extract(tmp_path / "f", scene) == 2
    cache = FeatureCache(tmp_path / "f", {})
    results = evaluate(cache, [scene])
    with pytest.raises(UnreadableImageError, match="cannot read"):
        cache.read("seq", "2")
    assert [r.status for r in results] == [SKIPPED, OK]
    assert "2.jpg" in results[0].reason
    assert FAILED not in [r.status for r in results]
    (root / "2.jpg").write_bytes(whole)
    assert extract(tmp_path / "f", scene) == 1


def test_a_scene_named_like_an_image_is_not_its_features(tmp_path: Path) -> None:
    good = features(grid_points(), unit_vectors(len(grid_points())))
    with FeatureStore(tmp_path / "f.h5", {}) as store:
        store.write("1", "7", good)
        store.write("cams", "left/0000.jpg", good)
        with pytest.raises(FeatureFileError, match="no features of image seq/1"):
            store.read("seq", "1")
        assert len(store.read("cams", "left/0000.jpg")) == len(good)
