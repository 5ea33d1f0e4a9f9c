"""Features are used again for the same pixels only."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from kornia_lift import LIFTFeature, LIFTResponse, ScaleSpaceConfig
from kornia_lift.evaluation.candidates import Candidate, candidate, lift_candidate, weights_hash
from kornia_lift.evaluation.comparison import feature_path, run, run_sfm
from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import FAILED, OK, SKIPPED, evaluate
from kornia_lift.files import FeatureFileError, UnreadableImageError
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.weights._registry import FOLDER, MODELS
from tests.helpers.feature_files import writing
from tests.helpers.pictures import texture
from tests.helpers.small_scenes import features, grid_points, unit_vectors, write_sequence

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
    return extract_to_file(feature, [scene], path, num_features=10, options={})


def test_other_images_of_the_same_names_are_extracted_anew(tmp_path: Path) -> None:
    dark, bright = sequence_at(tmp_path / "a", 51), sequence_at(tmp_path / "b", 204)
    path = tmp_path / "f.h5"
    assert [extract(path, s) for s in (dark, dark, bright, bright)] == [2, 0, 2, 0]
    with FeatureStore(path) as store:
        np.testing.assert_allclose(store.read("seq", "1").descriptors, 0.8, rtol=1e-6)
    cv2.imwrite(str(bright.image_path(1)), np.zeros((90, 120), np.uint8))  # one image is edited
    assert extract(path, bright) == 1
    with FeatureStore(path) as store:
        assert (store.read("seq", "2").descriptors == 0).all()


def test_features_of_unknown_images_are_extracted_anew(tmp_path: Path) -> None:
    """Files of earlier releases say nothing about the pixels."""
    scene = sequence_at(tmp_path, 51)
    with writing(tmp_path / "f.h5", {"num_features": 10}) as store:
        for name in scene.names:
            store.write(f"seq/{name}", features(grid_points(), unit_vectors(len(grid_points()))))
    assert extract(tmp_path / "f.h5", scene) == 2
    assert extract(tmp_path / "f.h5", scene) == 0


def test_a_file_of_another_program_needs_no_fingerprint(tmp_path: Path) -> None:
    scene = sequence_at(tmp_path, 51)
    with writing(tmp_path / "own.h5", {}) as store:
        for name in scene.names:
            store.write(f"seq/{name}", features(grid_points(), unit_vectors(len(grid_points()))))
    results = run("t", [Candidate("own", file=tmp_path / "own.h5")], {"homography": [scene]}, tmp_path / "cache")
    assert results.features[0].pairs["homography"][0].values["matching_score"] == 1


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    groups = {"one": [sequence_at(tmp_path / "a", 51)], "two": [sequence_at(tmp_path / "b", 204)]}
    entry = Candidate("x", lambda n: brightness)  # type: ignore[arg-type, return-value]
    with pytest.raises(FeatureFileError, match="two different images are called seq/1"):
        run("t", [entry], groups, tmp_path / "cache", options=Options(10))
    groups["two"] = groups["one"]  # the same images under two headings are fine
    assert run("t", [entry], groups, tmp_path / "cache", options=Options(10)).groups == ["one", "two"]


def test_numbers_of_features_and_renamed_peers_have_files_of_their_own(tmp_path: Path) -> None:
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


def test_two_features_of_one_name_are_refused(tmp_path: Path) -> None:
    scenes = [HomographySequence.load(write_sequence(tmp_path / "seq", {2: np.eye(3)}))]
    entries = [candidate("sift=opencv-sift"), candidate("sift=opencv-rootsift")]
    for measured in (lambda: run("t", entries, {"g": scenes}, tmp_path), lambda: run_sfm(entries, scenes, tmp_path)):
        with pytest.raises(FeatureFileError, match="2 features are called 'sift'; rename them with NAME=FEATURE"):
            measured()


@pytest.mark.parametrize("named", [False, True])
def test_a_path_may_hold_an_equals_sign(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "lr=0.1" / "mine.h5"
    path.parent.mkdir()
    path.touch()
    found = candidate(f"other={path}" if named else str(path))
    assert (found.name, found.file) == ("other" if named else "mine", path)


@pytest.mark.parametrize(
    ("spec", "name"),
    [("lift-plus+affine", "lift-plus+affine"), ("slanted=lift-plus+affine", "slanted"), ("{}+affine", "mine+affine")],
)
def test_a_model_with_affine_frames_is_another_feature(tmp_path: Path, spec: str, name: str) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes((FOLDER / MODELS["lift-plus"].file).read_bytes())
    found = candidate(spec.format(path))
    assert found.name == name
    assert found.identity != candidate("lift-plus").identity
    assert found.build is not None
    image = texture(120, 140)
    affine, round_ = found.build(20)(image), candidate("lift-plus").build(20)(image)  # type: ignore[misc]
    np.testing.assert_allclose(affine.keypoints, round_.keypoints)
    assert not np.allclose(affine.descriptors, round_.descriptors, atol=0.05)


def test_affine_frames_of_what_has_none_are_refused() -> None:
    with pytest.raises(ValueError, match="leave affine out"):
        candidate("lf-net+affine")
    with pytest.raises(ValueError, match=r"unknown feature 'nosuch\+affine'"):
        candidate("nosuch+affine")


def test_other_options_of_one_model_have_a_file_of_their_own(tmp_path: Path) -> None:
    def entry(**options: Any) -> Candidate:
        return lift_candidate("lift", lambda n: LIFTFeature(n, **options))

    options: list[dict[str, Any]] = [{}, {"config": ScaleSpaceConfig(min_sigma=4)}, {"scaling_coef": 1.0}]
    paths = [feature_path(tmp_path, entry(**o), 20) for o in [*options, *options]]
    assert len(set(paths)) == 3
    assert paths[:3] == paths[3:]


def test_an_image_cut_off_skips_its_pairs_until_it_is_replaced(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "seq", {2: np.eye(3), 3: np.eye(3)})
    cv2.imwrite(str(root / "2.jpg"), cv2.imread(str(root / "2.png")))  # whose header alone holds the size
    (root / "2.png").unlink()
    whole = (root / "2.jpg").read_bytes()
    (root / "2.jpg").write_bytes(whole[: len(whole) // 2])
    scene = HomographySequence.load(root)
    assert extract(tmp_path / "f.h5", scene) == 2
    with FeatureStore(tmp_path / "f.h5") as store:
        results = evaluate(store, [scene])
        with pytest.raises(UnreadableImageError, match="cannot read"):
            store.read("seq", "2")
    assert [r.status for r in results] == [SKIPPED, OK]
    assert "2.jpg" in results[0].reason
    assert FAILED not in [r.status for r in results]
    (root / "2.jpg").write_bytes(whole)
    assert extract(tmp_path / "f.h5", scene) == 1


def test_a_scene_named_like_an_image_is_not_its_features(tmp_path: Path) -> None:
    good = features(grid_points(), unit_vectors(len(grid_points())))
    with writing(tmp_path / "f.h5", {}) as store:
        store.write("1/7", good)
        store.write("cams/left/0000.jpg", good)
    with FeatureStore(tmp_path / "f.h5") as store:
        with pytest.raises(FeatureFileError, match="no features of image seq/1"):
            store.read("seq", "1")
        assert len(store.read("cams", "left/0000.jpg")) == len(good)


def test_damaged_features_of_an_image_are_named_and_extracted_again(tmp_path: Path) -> None:
    scene, path = sequence_at(tmp_path, 51), tmp_path / "f.h5"
    assert extract(path, scene) == 2
    with h5py.File(path, "a") as file:
        file["seq/1/keypoints"][0, 0] = np.nan
        del file["seq/2/descriptors"]
    said: list[str] = []
    again = extract_to_file(brightness, [scene], path, num_features=10, options={}, progress=said.append)
    assert again == 2
    assert any("seq/1" in line and "not finite; the features of seq/1 are extracted again" in line for line in said)
    with FeatureStore(path) as store:
        assert store.damaged() == {}
        assert np.isfinite(store.read("seq", "1").keypoints).all()
    path.write_bytes(path.read_bytes()[:96])  # as a kill in the middle of writing left it before
    assert extract(path, scene) == 2
    assert extract(path, scene) == 0


@pytest.mark.parametrize(("options", "label"), [({"feature": "mine"}, "mine"), ({}, "f-29f928739ab1-1000")])
def test_progress_names_the_feature_and_counts_images(tmp_path: Path, options: dict[str, str], label: str) -> None:
    path = tmp_path / "f-29f928739ab1-1000.h5"  # as the cache of `evaluate` calls its files
    scene = sequence_at(tmp_path, 51)
    said: list[str] = []
    extract_to_file(brightness, [scene], path, num_features=10, options=options, progress=said.append)
    assert said == [f"{label}: seq/1, image 1 of 2", f"{label}: seq/2, image 2 of 2"]


def test_a_run_that_is_killed_continues_where_it_stopped(tmp_path: Path) -> None:
    scene = sequence_at(tmp_path, 51)
    script = f"""
import os, signal
import numpy as np
from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.scenes.homographies import HomographySequence
seen = []
def dying(image):
    seen.append(1)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.ones((4, 2)), np.ones((4, 4))
scene = HomographySequence.load({str(scene.root)!r})
extract_to_file(dying, [scene], {str(tmp_path / "f.h5")!r}, num_features=10, options={{}})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "f.h5").exists()
    assert extract(tmp_path / "f.h5", scene) == 1
    assert extract(tmp_path / "f.h5", scene) == 0


def test_models_that_differ_in_one_number_are_told_apart() -> None:
    """The mean and deviation of an input are numbers without dimensions."""
    first, second = LIFTResponse(False, mean=0.4), LIFTResponse(False, mean=0.5)
    second.load_state_dict({**first.state_dict(), "mean": second.state_dict()["mean"]})
    assert weights_hash(first) != weights_hash(second)
    second.load_state_dict(first.state_dict())
    assert weights_hash(first) == weights_hash(second)
