"""A scene that is reconstructed from exact features, and what happens without a model."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from kornia_lift.cli import main
from kornia_lift.evaluation.report.sfm_report import SfmResults, sfm_report, sfm_table
from kornia_lift.evaluation.sfm import SfmOptions, SfmScores, align_error, reconstruct_scene
from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.dtu import DTUScan
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.megadepth import MegaDepthScene
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.small_scenes import rotation, write_plane_scene, write_sequence

pycolmap = pytest.importorskip("pycolmap")

SIZE, VIEWS, POINTS = (640, 480), 5, 250
K = np.array([[520.0, 0, 319.5], [0, 520, 239.5], [0, 0, 1]])


@pytest.fixture
def arc(tmp_path) -> CalibratedScene:  # type: ignore[no-untyped-def]
    """Cameras on an arc around a cloud of points; their images are never read."""
    poses = []
    for view in range(VIEWS):
        r = rotation(7.0 * view, 1) @ rotation(2.0 * view, 0)
        centre = np.array([0, 0, 6.5]) - r.T @ np.array([0, 0, 6.5 + 0.2 * view])
        poses.append((r, -r @ centre))
    scene = CalibratedScene(
        name="arc",
        paths=[tmp_path / f"{k}.png" for k in range(VIEWS)],
        intrinsics=np.stack([K] * VIEWS),
        rotations=np.stack([p[0] for p in poses]),
        translations=np.stack([p[1] for p in poses]),
        sizes=[SIZE] * VIEWS,
        pairs=(),
    )
    scene.image_size = lambda index: SIZE  # type: ignore[method-assign]
    return scene


class Source:
    """Exact projections of the points, each described by a vector of its own."""

    def __init__(self, scene: CalibratedScene, noise: float = 0.0) -> None:
        generator = np.random.default_rng(1)
        points = generator.uniform([-2, -1.5, 5], [2, 1.5, 8], (POINTS, 3))
        vectors = generator.standard_normal((POINTS, 64)).astype(np.float32)
        self.features = {}
        for index, name in enumerate(scene.names):
            seen = (points @ scene.rotations[index].T + scene.translations[index]) @ scene.intrinsics[index].T
            xy = (
                seen[:, :2] / seen[:, 2:] + generator.normal(0, noise, (POINTS, 2))
                if noise
                else seen[:, :2] / seen[:, 2:]
            )
            self.features[name] = Features(xy, vectors, image_size=SIZE)

    def read(self, scene: str, image: str) -> Features:
        return self.features[image]


def test_exact_features_find_the_cameras(arc: CalibratedScene) -> None:
    scores = reconstruct_scene(Source(arc), arc, SfmOptions())
    assert (scores.registered, scores.images, scores.points) == (VIEWS, VIEWS, POINTS)
    assert scores.track_length == VIEWS
    assert scores.verified_pairs == VIEWS * (VIEWS - 1) // 2
    assert scores.reprojection_error is not None
    assert scores.reprojection_error < 1e-3
    assert scores.centre_error is not None
    assert scores.centre_error < 1e-4
    assert scores.focal_error is None
    json.dumps(scores.as_dict(), allow_nan=False)


def test_noise_is_the_reprojection_error(arc: CalibratedScene) -> None:
    """Gaussian noise of 0.5 px in x and y is 0.63 px on average, less what the points take up."""
    scores = reconstruct_scene(Source(arc, noise=0.5), arc, SfmOptions())
    assert scores.registered == VIEWS
    assert scores.reprojection_error == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.25)


def test_an_unknown_focal_length_is_found(arc: CalibratedScene) -> None:
    scores = reconstruct_scene(Source(arc), arc, SfmOptions(known_intrinsics=False))
    assert scores.registered == VIEWS
    assert scores.focal_error is not None
    assert scores.focal_error < 0.02  # COLMAP's guess is off by 48 %


def test_without_matches_there_is_no_model(arc: CalibratedScene) -> None:
    source = Source(arc)
    generator = np.random.default_rng(2)
    for name, found in source.features.items():
        source.features[name] = Features(
            found.keypoints, generator.standard_normal((POINTS, 64)).astype(np.float32), image_size=SIZE
        )
    scores = reconstruct_scene(source, arc, SfmOptions())
    assert (scores.registered, scores.reason) == (0, "no model was found")
    assert (scores.reprojection_error, scores.centre_error) == (None, None)
    row = sfm_table({"none": scores}).rows[0]
    assert list(row) == ["none", f"0 of {VIEWS}", "0", "0.00", "–", "–"]
    assert "units of the scene" in sfm_table({"none": scores}).head[5]


def test_an_image_without_features_is_reported(arc: CalibratedScene) -> None:
    class Nothing:
        def read(self, scene: str, image: str) -> Features:
            raise FeatureFileError("no features of image 0")

    assert reconstruct_scene(Nothing(), arc).reason == "no features of image 0"


def test_a_scene_without_cameras_is_refused(sequence: HomographySequence) -> None:
    class Nothing:
        def read(self, scene: str, image: str) -> Features:
            raise AssertionError

    with pytest.raises(ValueError, match="has no cameras"):
        reconstruct_scene(Nothing(), sequence)


def test_alignment_takes_out_a_similarity_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    truth = generator.standard_normal((6, 3))
    moved = 2.5 * truth @ rotation(40, 1) @ rotation(10, 0) + [3, 4, 5]
    assert align_error(moved, truth) == pytest.approx(0, abs=1e-12)
    assert align_error(truth * [1, 1, -1], truth) > 0.2  # a reflection is no similarity of cameras
    expected = pycolmap.estimate_sim3d(moved + 0.1 * truth**2, truth)
    aligned = np.array([expected * p for p in moved + 0.1 * truth**2])
    distance = np.linalg.norm(aligned - truth, axis=1).mean()
    assert align_error(moved + 0.1 * truth**2, truth) == pytest.approx(distance, rel=1e-6)
    assert align_error(truth[:2], truth[:2]) is None


def test_the_table_shows_millimetres() -> None:
    scores = SfmScores("s", 8, 8, 1757, 6.1, 0.69, 0.0075, None, 28)
    table = sfm_table({"lift": scores})
    assert list(table.rows[0]) == ["lift", "8 of 8", "1757", "6.10", "0.69", "7.5"]
    assert "camera centres, mm" in table.markdown()


def test_only_metres_become_millimetres(tmp_path) -> None:  # type: ignore[no-untyped-def]
    class Nothing:
        def read(self, scene: str, image: str) -> Features:
            raise FeatureFileError("none")

    scene = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    assert reconstruct_scene(Nothing(), scene).metric
    for kind in (DTUScan, MegaDepthScene):  # millimetres, and an arbitrary unit
        other = kind(**{k: getattr(scene, k) for k in inspect.signature(PosedScene).parameters})
        scores = reconstruct_scene(Nothing(), other)
        assert not scores.metric
        assert "units of the scene" in sfm_table({"a": scores}).markdown()


def test_results_survive_the_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    one = [SfmScores("s", 8, 8, 1757, 6.1, 0.69, 0.0075), SfmScores("s", 8, reason="no model", known_intrinsics=False)]
    results = SfmResults({"lift": one}, {"num_features": 2000}, {})
    results.save(tmp_path / "r.json")
    loaded = SfmResults.load(tmp_path / "r.json")
    assert loaded == results
    both = loaded.merge(SfmResults({"sift": one}, {"num_features": 2000}, {}))
    assert [block.text for block in sfm_report(both) if hasattr(block, "level")] == [
        "Structure from motion",
        "s, known intrinsics",
        "s, unknown intrinsics",
    ]
    with pytest.raises(ValueError, match="were made with"):
        loaded.merge(SfmResults({}, {"num_features": 1000}, {}))
    for text in ("{}", "[]", '{"format": "other"}', "no"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match="not a result file of reconstructions"):
            SfmResults.load(tmp_path / "x.json")


def test_the_command_reconstructs(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """Two images are too few for a model: the report says so, and so does the exit code."""
    write_plane_scene(tmp_path / "data" / "plane")
    args = ["evaluate", str(tmp_path / "data"), "-p", "sfm", "-f", "opencv-orb", "-q", "-o", str(tmp_path / "out")]
    assert main(args) == 1
    assert "plane, known intrinsics" in capsys.readouterr().out
    scores = SfmResults.load(tmp_path / "out" / "results.json").features["opencv-orb"]
    assert [(s.registered, s.images, s.reason, s.known_intrinsics) for s in scores] == [
        (0, 2, "no model was found", True),
        (0, 2, "no model was found", False),
    ]
    write_sequence(tmp_path / "flat" / "seq", {2: np.eye(3)})
    args[1] = str(tmp_path / "flat")
    assert main(args) == 2
    assert "sfm needs scenes with cameras" in capsys.readouterr().err
    assert main([*args, "--refine"]) == 2  # would have no effect
    assert "--protocol sfm" in capsys.readouterr().err
