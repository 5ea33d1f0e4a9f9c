"""`compare` and `evaluate`: which side is better, what cannot be compared, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.evaluation.measures.statistics import compare
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.results import FeatureResults, Results, compare_features, describe_options
from kornia_lift.evaluation.runner import FAILED, OK, PairResult
from kornia_lift.evaluation.selection import all_pairs, only_second_images, spread_pairs
from kornia_lift.evaluation.warps import RESCALES, ROTATIONS, ImageWarp, warp_scene
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import HasLocalAffine, Pair, Scene
from tests.helpers.feature_files import random_features, writing
from tests.helpers.small_scenes import (
    features,
    grid_points,
    plane_homography,
    unit_vectors,
    write_plane_scene,
    write_sequence,
)


def pairs(error: float, score: float, status: str = OK) -> list[PairResult]:
    rows = [
        PairResult(
            "s", str(k), "9", OK, "", {"matching_score": score, "pose_error": error + 0.01 * k, "pose_auc_5": 0.5}
        )
        for k in range(6)
    ]
    if status == FAILED:
        rows[0] = PairResult("s", "0", "9", FAILED, "no keypoints", {"matching_score": 0.0, "pose_auc_5": 0.0})
    return rows


def write(path: Path, features: dict[str, list[PairResult]], options: Options | None = None) -> str:
    rows = [FeatureResults(name, {"posed": p}) for name, p in features.items()]
    Results("t", rows, describe_options(options or Options()), {}).save(path)
    return str(path)


def test_the_smaller_error_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "r.json", {"good": pairs(1.0, 0.5), "bad": pairs(20.0, 0.2)})
    assert main(["compare", path, "good", "bad", "-m", "pose_error", "matching_score"]) == 0
    said = capsys.readouterr().out
    assert "posed, pose_error: good is better than bad" in said
    assert "wins 100% of 6 pairs; smaller is better" in said
    assert "posed, matching_score: good is better than bad" in said
    assert main(["compare", path, "bad", "good", "-m", "pose_error"]) == 0
    assert "bad is worse than good" in capsys.readouterr().out
    found = compare({"s": np.array([1.0, 2.0])}, {"s": np.array([1.0, 9.0])}, lower_is_better=True)
    assert found.wins == 0.75


@pytest.mark.parametrize("lost", [pairs(float("inf"), 0.5), pairs(1.0, 0.5, FAILED)])
def test_an_error_that_does_not_exist_has_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: list[PairResult]
) -> None:
    path = write(tmp_path / "r.json", {"a": pairs(1.0, 0.5), "b": lost})
    assert main(["compare", path, "a", "b", "-m", "pose_error"]) == 2
    said = capsys.readouterr().err
    assert "b has no estimate for" in said
    assert "compare pose_auc_5" in said
    assert main(["compare", path, "a", "b", "-m", "pose_auc_5"]) == 0
    with pytest.raises(ValueError, match="not finite"):
        compare({"s": np.array([np.inf])}, {"s": np.array([1.0])})


def test_results_of_other_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "1.json", {"a": pairs(1.0, 0.5)})
    second = write(tmp_path / "2.json", {"b": pairs(1.0, 0.2)}, Options(50, threshold=20.0))
    assert main(["compare", first, "a", "b", "--other", second]) == 2
    said = capsys.readouterr().err
    assert "num_features 1000 and 50; threshold 3.0 and 20.0" in said
    third = write(tmp_path / "3.json", {"b": pairs(1.0, 0.2)[:4]})
    assert main(["compare", first, "a", "b", "--other", third, "-m", "matching_score"]) == 0
    assert "2 pairs that only one of the two has are left out" in capsys.readouterr().err


def test_an_unknown_measure_is_refused_beside_a_known_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "r.json", {"a": pairs(1.0, 0.5), "b": pairs(1.0, 0.5)})
    assert main(["compare", path, "a", "b", "-m", "matching_score", "mathcing_score"]) == 2
    said = capsys.readouterr()
    assert "no measure mathcing_score in these results; there are matching_score, pose_auc_5" in said.err
    assert said.out == ""
    results = Results.load(path)
    with pytest.raises(ValueError, match="share no pair"):
        compare_features(results.feature("a"), results.feature("b"), "posed", "nn_map")


def write_images(root: Path, count: int = 3) -> Path:
    write_sequence(root, dict.fromkeys(range(2, count + 1), np.eye(3)), (160, 120))
    picture = cv2.GaussianBlur(cv2.imread(str(root / "1.png")), (0, 0), 2)
    for number in range(1, count + 1):
        cv2.imwrite(str(root / f"{number}.png"), cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX))
    return root


def test_second_images_restrict_every_group_and_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_images(tmp_path / "data" / "seq")
    (root / "H_1_3").unlink()
    common = [str(tmp_path / "data"), "-f", "opencv-orb", "-o", str(tmp_path / "out"), "-q", "--no-page"]
    assert main(["evaluate", *common, "--second-images", "2"]) == 0
    assert "1 pair, 0 failed, 0 skipped" in capsys.readouterr().out
    assert main(["evaluate", *common, "--second-images", "3"]) == 1  # the pair is skipped, not forgotten
    assert "0 pairs, 0 failed, 1 skipped" in capsys.readouterr().out
    assert main(["evaluate", *common, "--second-images", "7"]) == 2
    assert "seq has no pair with a second image among 7" in capsys.readouterr().err
    assert only_second_images(HomographySequence.load(root), ["2"]).skipped == ()


def test_runs_of_several_sizes_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data" / "seq", 2)
    common = ["evaluate", str(tmp_path / "data"), "-f", "opencv-orb", "-o", str(tmp_path / "out"), "-q", "--no-page"]
    assert [main([*common, "-n", n]) for n in ("60", "30", "60")] == [0, 0, 0]
    assert "60 keypoints per image" in (tmp_path / "out" / "report.md").read_text()


def test_a_file_that_holds_no_features_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kornia_lift.cli import main as whole

    write_images(tmp_path / "data" / "seq", 2)
    (tmp_path / "bad.h5").write_text("not an h5 file")
    args = ["evaluate", str(tmp_path / "data"), "-f", str(tmp_path / "bad.h5"), "-o", str(tmp_path / "out"), "-q"]
    assert whole(args) == 2
    said = capsys.readouterr().err
    assert said.startswith("kornia-lift: ")
    assert "bad.h5 as an h5 file" in said
    other = tmp_path / "out" / "features" / "opencv-orb-1000.h5"
    other.parent.mkdir(parents=True)
    with writing(other, {"feature": "something else"}) as store:
        store.write("a/1", random_features(1))
    args[3] = "opencv-orb"
    assert whole(args) == 2
    assert "was made with" in capsys.readouterr().err


@pytest.mark.parametrize("warp", [*ROTATIONS, *RESCALES], ids=lambda w: w.label)
def test_warped_scenes_know_the_local_map(tmp_path: Path, warp: ImageWarp) -> None:
    flat = HomographySequence.load(write_sequence(tmp_path / "seq", {2: plane_homography()}))
    scene: Scene = warp_scene(flat, warp)
    assert isinstance(scene, HasLocalAffine)
    there = scene.transfer(0, 3, grid_points()).points
    for i, j, points in ((0, 3, grid_points()), (3, 0, there)):
        found = scene.local_affine(i, j, points)
        for axis in range(2):
            step = np.eye(2)[axis] * 1e-4
            expected = (scene.transfer(i, j, points + step).points - scene.transfer(i, j, points - step).points) / 2e-4
            np.testing.assert_allclose(found[:, :, axis], expected, atol=1e-6)
    posed = warp_scene(PosedScene.load(write_plane_scene(tmp_path / "plane")), warp)
    assert isinstance(posed, HasLocalAffine)


def test_the_overlap_form_is_measured_on_every_warp(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "seq", 2)
    out = tmp_path / "out"
    args = ["evaluate", str(tmp_path / "data"), "-f", "opencv-sift", "-p", "robustness", "--overlap", "-n", "60", "-q"]
    assert main([*args, "-o", str(out)]) == 0
    row = Results.load(out / "results.json").features[0]
    assert len(row.pairs) == 9
    assert all("repeatability_overlap40" in row.measures(group) for group in row.pairs)


def test_ready_features_are_drawn_only_where_the_image_is_whole(tmp_path: Path) -> None:
    """Measuring ready features needs no pixels; the picture does, and says so."""
    root = write_sequence(tmp_path / "data" / "seq", {2: np.eye(3)})
    cv2.imwrite(str(root / "2.jpg"), cv2.imread(str(root / "2.png")))
    (root / "2.png").unlink()
    (root / "2.jpg").write_bytes((root / "2.jpg").read_bytes()[:-2000])
    with writing(tmp_path / "own.h5", {}) as store:
        for name in "12":
            store.write(f"seq/{name}", features(grid_points(), unit_vectors(len(grid_points()))))
    out = tmp_path / "out"
    assert main(["evaluate", str(tmp_path / "data"), "-f", str(tmp_path / "own.h5"), "-o", str(out)]) == 0
    assert "cannot read" in (out / "report.html").read_text()


def test_pairs_are_spread_over_the_overlap(tmp_path: Path) -> None:
    scene = HomographySequence.load(write_sequence(tmp_path / "seq", dict.fromkeys(range(2, 8), np.eye(3))))
    scene.pairs = tuple(Pair(0, k, overlap=0.1 * o) for k, o in zip(range(1, 7), (3, 9, 1, 7, 5, 8), strict=True))
    overlaps = lambda s: [round(10 * p.overlap) for p in s.pairs]  # noqa: E731
    assert overlaps(spread_pairs(scene, 3)) == [1, 5, 9]
    assert overlaps(spread_pairs(scene, 1)) == [7]
    assert overlaps(spread_pairs(scene, 9)) == [1, 3, 5, 7, 8, 9]
    assert overlaps(spread_pairs(scene, 2, min_overlap=0.45)) == [5, 9]
    with pytest.raises(ValueError, match="no pair with an overlap"):
        spread_pairs(scene, 2, min_overlap=0.95)
    with pytest.raises(ValueError, match="at least one pair"):
        spread_pairs(scene, 0)
    assert len(all_pairs(scene).pairs) == 21


def test_the_command_takes_some_pairs_of_each_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data" / "seq", 4)
    args = ["evaluate", str(tmp_path / "data"), "-f", "opencv-orb", "-o", str(tmp_path / "out"), "-q", "--no-page"]
    assert main([*args, "--max-pairs", "2"]) == 0
    assert "2 pairs, 0 failed, 0 skipped" in capsys.readouterr().out


def test_crowding_and_errors_are_better_if_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        name: [PairResult("s", str(k), "9", OK, "", {"crowding": v + 0.001 * k}) for k in range(6)]
        for name, v in (("a", 0.1), ("b", 0.5))
    }
    assert main(["compare", write(tmp_path / "r.json", rows), "a", "b", "-m", "crowding"]) == 0
    assert "a is better than b" in capsys.readouterr().out
