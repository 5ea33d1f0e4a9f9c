"""From feature files to results: what fails, what is skipped, poses, homographies, tables, commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.measures.geometry import Estimator, auc, homography_error, pose_error
from kornia_lift.evaluation.measures.overlap import OverlapOptions
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.results import FeatureResults, Results
from kornia_lift.evaluation.runner import FAILED, OK, SKIPPED, evaluate
from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError
from kornia_lift.scenes.folders import load_scenes
from kornia_lift.scenes.homographies import HomographySequence, apply_homography
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.feature_files import writing
from tests.helpers.small_scenes import (
    K,
    features,
    grid_points,
    plane_homography,
    unit_vectors,
    write_perfect,
    write_plane_scene,
    write_sequence,
)


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    given = features(grid_points(), unit_vectors(len(grid_points())))
    bits = Features(np.ones((3, 2)), np.arange(96, dtype=np.uint8).reshape(3, 32))
    with writing(tmp_path / "f.h5", {"feature": "x"}) as store:
        store.write("scene/1", given)
        store.write("scene/2", bits)
    with FeatureStore(tmp_path / "f.h5") as store:
        found = store.read("scene", "1")
        assert store.options == {"feature": "x"}
        assert store.read("scene", "2").is_binary
        np.testing.assert_array_equal(store.read("scene", "2").descriptors, bits.descriptors)
    for name in ("keypoints", "descriptors", "scores", "scales", "angles"):
        np.testing.assert_allclose(getattr(found, name), getattr(given, name), rtol=1e-6)
    assert found.image_size == given.image_size
    with pytest.raises(FeatureFileError, match="was made with"), writing(tmp_path / "f.h5", {"feature": "y"}):
        pass


def test_hloc_files_are_understood(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "h.h5", "w") as file:
        group = file.create_group("seq/1.png")
        group["keypoints"] = np.ones((5, 2), np.float16)
        group["descriptors"] = np.ones((64, 5), np.float16)
        group["image_size"] = np.array([120, 90])
        file.create_group("2.png")["keypoints"] = np.ones((5, 2))
    with FeatureStore(tmp_path / "h.h5") as store:
        assert store.read("seq", "1").descriptors.shape == (5, 64)
        with pytest.raises(FeatureFileError, match="no descriptors; it has keypoints"):
            store.read("seq", "2")
        with pytest.raises(FeatureFileError, match="no features of image seq/3"):
            store.read("seq", "3")
    (tmp_path / "not.h5").write_text("no")
    with pytest.raises(FeatureFileError, match="cannot open"):
        FeatureStore(tmp_path / "not.h5")


def test_perfect_features_through_the_file(tmp_path: Path) -> None:
    sequence = HomographySequence.load(write_sequence(tmp_path / "seq", {2: plane_homography()}))
    plane = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    path = write_perfect(tmp_path / "f.h5", "seq")
    write_perfect(path, "plane", ("0", "1"))
    options = Options(overlap=(OverlapOptions(),))
    with FeatureStore(path) as store:
        flat, posed = (evaluate(store, [scene], options)[0] for scene in (sequence, plane))
    assert flat.status == posed.status == OK
    for result in (flat, posed):
        assert result.values["matching_score"] == result.values["nn_map"] == pytest.approx(1)
        assert result.values["repeatability_overlap40"] == pytest.approx(1)
    assert flat.values["homography_error"] < 0.01
    assert flat.values["homography_auc_1"] > 0.99
    assert "pose_error" in posed.values


def test_nothing_is_dropped_silently(tmp_path: Path) -> None:
    h = plane_homography()
    root = write_sequence(tmp_path / "seq", dict.fromkeys(range(2, 8), h))
    (root / "H_1_7").unlink()
    good = features(grid_points(), unit_vectors(len(grid_points())))
    with writing(tmp_path / "f.h5", {}) as store:
        store.write("seq/1", good)
        store.write("seq/2", features(np.zeros((0, 2)), unit_vectors(0)))
        store.write("seq/3", good)
        store.write("seq/4", Features(good.keypoints, good.descriptors, image_size=(640, 480)))
        store.write_error("seq/5", "ValueError: no")
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file["seq/3/descriptors"][...] = np.nan
    with FeatureStore(tmp_path / "f.h5") as store:
        results = evaluate(store, [HomographySequence.load(root)])
    found = {r.second: (r.status, r.reason) for r in results}
    assert found["2"] == (FAILED, "no keypoints in image 2")
    assert found["3"][0] == FAILED
    assert "descriptors are not finite" in found["3"][1]
    assert "640x480, the image is 120x90" in found["4"][1]
    assert "ValueError: no" in found["5"][1]
    assert "no features of image seq/6" in found["6"][1]
    assert found["7"] == (SKIPPED, "H_1_7 is missing")
    rows = FeatureResults("x", {"homography": results})
    assert rows.counts("homography") == {"pairs": 5, "failed": 5, "skipped": 1}
    estimate = rows.estimate("homography", "homography_auc_5")
    assert estimate is not None
    assert estimate.value == 0


def test_depth_of_another_size_skips_the_pair(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "plane")
    cv2.imwrite(str(root / "depth" / "1.png"), np.ones((10, 10), np.uint16))
    write_perfect(tmp_path / "f.h5", "plane", ("0", "1"))
    with FeatureStore(tmp_path / "f.h5") as store:
        result = evaluate(store, [PosedScene.load(root)])[0]
    assert result.status == SKIPPED
    assert "10x10" in result.reason


def test_extraction_goes_on_where_it_stopped_and_survives_errors(tmp_path: Path) -> None:
    scene = HomographySequence.load(write_sequence(tmp_path / "seq", {2: np.eye(3), 3: np.eye(3)}))
    seen = []

    def extract(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        seen.append(1)
        if len(seen) == 2:
            raise ValueError("boom")
        return grid_points(), unit_vectors(len(grid_points()))

    def go() -> int:
        return extract_to_file(extract, [scene], tmp_path / "f.h5", num_features=10, options={"feature": "x"})

    assert go() == 3
    assert go() == 0
    with FeatureStore(tmp_path / "f.h5") as store:
        assert len(store.read("seq", "1")) == 10
        results = evaluate(store, [scene])
    assert [r.status for r in results] == [FAILED, OK]
    assert "boom" in results[0].reason


def test_pose_and_homography_of_exact_and_of_random_points() -> None:
    generator = np.random.default_rng(0)
    points = np.c_[generator.uniform(-2, 2, (200, 2)), generator.uniform(4, 8, 200)]
    rotation = cv2.Rodrigues(np.array([0.05, -0.1, 0.02]))[0]
    translation = np.array([0.8, 0.1, -0.1])
    other_k = K * np.array([[1.5], [1.4], [1.0]])

    def project(k: np.ndarray, x: np.ndarray) -> np.ndarray:
        y = x @ k.T
        return y[:, :2] / y[:, 2:]

    first, second = project(K, points), project(other_k, points @ rotation.T + translation)
    pose = rotation, translation
    assert pose_error(first, second, (K, other_k), pose, Estimator()) < 0.1
    assert pose_error(first, second, (K, other_k), (rotation, -translation), Estimator()) > 170
    noise = generator.uniform(0, 100, (200, 2))
    assert pose_error(first, noise, (K, other_k), pose, Estimator()) > 5
    assert pose_error(first[:4], second[:4], (K, K), pose, Estimator()) == np.inf
    h = plane_homography()
    assert homography_error(first, apply_homography(h, first), h, (120, 90), Estimator()) < 0.01
    assert homography_error(first, first, h, (120, 90), Estimator()) > 1
    assert homography_error(first[:3], first[:3], h, (120, 90), Estimator()) == np.inf


def test_estimates_are_made_from_several_orders_of_the_same_matches() -> None:
    matches = np.arange(28.0).reshape(7, 4)
    seen: list[np.ndarray] = []

    def error(first: np.ndarray, second: np.ndarray) -> float:
        seen.append(np.hstack([first, second]))
        return float(first[0, 0])

    errors = Estimator(orders=4).errors(error, matches)
    assert (seen[0] == matches).all()
    assert len({tuple(rows[:, 0]) for rows in seen}) == 4
    assert all((np.sort(rows[:, 0]) == matches[:, 0]).all() for rows in seen)
    assert errors.tolist() == [rows[0, 0] for rows in seen]
    assert Estimator(orders=4).errors(error, matches).tolist() == errors.tolist()
    assert auc(errors, 100.0) == pytest.approx(np.mean([auc([e], 100.0) for e in errors]))


def test_the_area_of_a_pair_is_the_mean_over_orders(tmp_path: Path) -> None:
    scene = HomographySequence.load(write_sequence(tmp_path / "seq", {2: plane_homography()}))
    path = write_perfect(tmp_path / "f.h5", "seq")
    drawn = iter([0.5, np.inf, 2.0])
    with FeatureStore(path) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("kornia_lift.evaluation.pair.homography_error", lambda *_: next(drawn))
        values = evaluate(store, [scene], Options(estimator=Estimator(orders=3)))[0].values
    assert values["homography_error"] == 2
    assert values["homography_auc_1"] == pytest.approx(0.5 / 3)
    assert values["homography_auc_5"] == pytest.approx((0.9 + 0.6) / 3)


@pytest.mark.parametrize(("orders", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_numbers_of_orders_that_make_no_sense(orders: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="Estimator expects orders"):
        Estimator(orders=orders)


def test_the_label_says_how_many_orders() -> None:
    assert "mean of 5 orders of the matches" in Estimator().label
    assert "orders" not in Estimator(orders=1).label


def test_auc_by_hand() -> None:
    assert auc([0.0, 0.0], 5) == 1
    assert auc([2.5, np.inf], 5) == pytest.approx(0.25)
    errors = np.array([0.3, 1.2, 4.0, 9.0])
    grid = np.linspace(0, 5, 100_001)
    recall = (errors[:, None] <= grid).mean(0)
    assert auc(errors, 5) == pytest.approx(
        float(torch.trapezoid(torch.from_numpy(recall), torch.from_numpy(grid))) / 5, abs=1e-4
    )
    with pytest.raises(ValueError, match="at least one"):
        auc([], 5)


def test_commands_from_files_to_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence(tmp_path / "data" / "seq", dict.fromkeys(range(2, 8), plane_homography()))
    write_plane_scene(tmp_path / "data" / "plane")
    for name, noise in (("good", 0.0), ("bad", 4.0)):
        path = tmp_path / f"{name}.h5"
        for scene, names in (*(("seq", ("1", str(k))) for k in range(2, 8)), ("plane", ("0", "1"))):
            write_perfect(path, scene, names, noise)
    out = tmp_path / "out"
    specs = [str(tmp_path / "good.h5"), f"worse={tmp_path / 'bad.h5'}"]
    code = main(["evaluate", str(tmp_path / "data"), "-f", *specs, "-o", str(out)])
    assert code == 0
    text = (out / "report.md").read_text()
    assert "OpenCV USAC_MAGSAC" in text
    assert "6 pairs, 0 failed, 0 skipped" in text
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4  # two features, two groups
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    saved = json.loads((out / "results.json").read_text())
    assert {"commit", "versions", "machine", "time"} <= set(saved["provenance"])
    capsys.readouterr()
    assert main(["compare", str(out / "results.json"), "good", "worse"]) == 0
    said = capsys.readouterr().out
    assert "homography, matching_score: good is better than worse" in said
    assert "posed, correct_matches: undecided between good and worse, one pair is too few to decide" in said
    assert main(["compare", str(out / "results.json"), "good", "nobody"]) == 2
    assert "no feature 'nobody'" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "out"), "-f", "opencv-sift"]) == 2
    assert main(["evaluate", str(tmp_path / "data"), "-f", "no-such-thing"]) == 2
    assert "no-such-thing" in capsys.readouterr().err


def test_folders_without_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no scene in"):
        load_scenes([tmp_path])
    write_sequence(tmp_path / "a" / "s", {2: np.eye(3)})
    write_sequence(tmp_path / "b" / "s", {2: np.eye(3)})
    with pytest.raises(ValueError, match="two scenes are called 's'"):
        load_scenes([tmp_path])


def test_opencv_sift_on_herz_jesus(shared: Path, tmp_path: Path) -> None:
    """The figures that pin the definitions; independent implementations found a matching score of .336."""
    from kornia_lift.evaluation.features.peers import opencv_sift

    scene = PosedScene.load(shared / "data" / "test" / "strecha" / "Herz-Jesus-P8")
    extract_to_file(opencv_sift(1000), [scene], tmp_path / "f.h5", num_features=1000, options={})
    with FeatureStore(tmp_path / "f.h5") as store:
        rows = FeatureResults("sift", {"posed": evaluate(store, [scene], Options(estimator=None))})
    assert rows.counts("posed") == {"pairs": 28, "failed": 0, "skipped": 0}
    found = {m: e.value for m in rows.measures("posed") if (e := rows.estimate("posed", m)) is not None}
    assert 0.31 < found["matching_score"] < 0.36
    assert found["correct_matches"] == pytest.approx(170, abs=5)
    assert found["crowding"] == pytest.approx(0.37, abs=0.03)
    assert found["median_error"] == pytest.approx(0.48, abs=0.05)


def test_cameras_that_are_not_finite_skip_the_pair(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "plane")
    write_perfect(tmp_path / "f.h5", "plane", ("0", "1"))
    scene = PosedScene.load(root)
    scene.rotations = scene.rotations * np.nan  # as a loader that does not look would give it
    with FeatureStore(tmp_path / "f.h5") as store:
        rows = evaluate(store, [scene])
    assert (rows[0].status, rows[0].reason) == (SKIPPED, "the cameras of the pair are not finite")
    Results("t", [FeatureResults("a", {"posed": rows})], {}, {}).save(tmp_path / "r.json")
    assert "NaN" not in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize("name", ["xfeat", "disk", "aliked-t16"])
def test_learned_peers_give_features(shared: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Best first, inside of an image whose sides are no multiples of anything, of unit length; gray as colour."""
    from kornia_lift.evaluation.features.peers import PEERS

    monkeypatch.setenv("TORCH_HOME", str(shared / "peers"))
    image = torch.from_numpy(cv2.imread(str(shared / "data" / "test" / "homography" / "oxford_graf" / "1.jpg")))
    image = image[100:235, 200:399].permute(2, 0, 1)[None].float() / 255
    found = PEERS[name](40)(image)
    assert len(found) == 40
    assert found.image_size == (199, 135)
    assert found.problem() is None
    assert (found.keypoints >= 0).all()
    assert (found.keypoints <= [198, 134]).all()
    assert found.scores is not None
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-3)
    assert len(PEERS[name](40)(image.mean(1, keepdim=True))) == 40
