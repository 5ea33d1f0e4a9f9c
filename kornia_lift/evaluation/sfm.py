"""Structure from motion as a measure: how well a feature reconstructs a scene whose cameras are known.

Mutual nearest neighbours of all pairs of images, nothing else, are verified and mapped by pycolmap; the model is then
aligned with the true cameras by a similarity. Poses of pairs say whether two views agree; this says whether the same
points are found again in many views, and how precisely.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from kornia_lift._extras import require
from kornia_lift._words import counted
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.runner import FeatureSource
from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError
from kornia_lift.files.colmap import map_database, verify, write_database
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import FloatArray, HasPose, Scene

#: Least number of images of a model.
MIN_IMAGES = 3
#: COLMAP's guess of an unknown focal length, as a multiple of the longer side of the image.
_FOCAL_GUESS = 1.2


@runtime_checkable
class HasCameras(HasPose, Protocol):
    """A scene whose cameras have a pose in the world."""

    @property
    def rotations(self) -> FloatArray:
        """R of each image, shape (n, 3, 3), with x ~ K (R X + t)."""
        ...

    @property
    def translations(self) -> FloatArray:
        """The translation t of each image, shape (n, 3)."""
        ...


@dataclass(frozen=True)
class SfmOptions:
    """How a scene is reconstructed.

    Args:
        num_features: keypoints per image at most, those of highest score.
        known_intrinsics: True gives pycolmap the true cameras and keeps them; False starts from COLMAP's guess of the
            focal length, one camera per image, and refines it.
        seed: of the estimators. Camera centres still vary a little with the number of threads.
        threads: for pycolmap, -1 for all.
    """

    num_features: int = 2000
    known_intrinsics: bool = True
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class SfmScores:
    """What a feature reconstructs of one scene.

    Attributes:
        scene: name of the scene.
        images: number of images of the scene.
        registered: number of them in the largest model; 0 if there is no model.
        points: points of that model.
        track_length: mean number of images that see a point.
        reprojection_error: mean, pixels; None without a model.
        centre_error: mean distance of the registered cameras from the true ones after alignment by the best
            similarity, in the unit of the scene (see ``metric``); None below three registered images.
        focal_error: mean relative error of the focal length; None if the intrinsics were known, or without a model.
        verified_pairs: pairs of images that pass geometric verification.
        reason: why there is no model.
        known_intrinsics: whether the true cameras were given.
        metric: whether the unit of the scene is the metre.
    """

    scene: str
    images: int
    registered: int = 0
    points: int = 0
    track_length: float = 0.0
    reprojection_error: float | None = None
    centre_error: float | None = None
    focal_error: float | None = None
    verified_pairs: int = 0
    reason: str = ""
    known_intrinsics: bool = True
    metric: bool = True

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def reconstruct_scene(
    source: FeatureSource,
    scene: Scene,
    options: SfmOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> SfmScores:
    """Reconstruct a scene from features and compare the model with the true cameras.

    Args:
        source: features by scene and image.
        scene: a scene with cameras.
        options: how the scene is reconstructed.
        progress: called with a line of text for each step.

    Raises:
        ValueError: if the scene has no cameras.
        MissingExtraError: if pycolmap is not installed.
    """
    options, say = options or SfmOptions(), progress or (lambda text: None)
    if not isinstance(scene, HasCameras):
        raise ValueError(f"{scene.name} has no cameras, so a reconstruction cannot be compared with it")
    pycolmap = require("pycolmap", extra="colmap")
    nothing = SfmScores(
        scene.name,
        len(scene.names),
        known_intrinsics=options.known_intrinsics,
        metric=isinstance(scene, PosedScene) and scene.metric,
    )
    try:
        features = _read_all(source, scene, options.num_features)
    except FeatureFileError as error:
        return replace(nothing, reason=str(error))
    say(f"{scene.name}: matching {counted(len(features) * (len(features) - 1) // 2, 'pair')}")
    matches = {}
    for first, second in combinations(features, 2):
        found = nearest_neighbours(features[first], features[second])
        index = np.flatnonzero(found.mutual())
        matches[first, second] = np.stack([index, found.forward[index]], axis=1)
    cameras = _cameras(pycolmap, scene, known=options.known_intrinsics)
    with tempfile.TemporaryDirectory() as work:
        database = Path(work) / "database.db"
        write_database(database, features, matches, cameras=cameras)
        verified = verify(database, seed=options.seed, threads=options.threads)
        say(f"{scene.name}: mapping, {counted(verified, 'pair')} verified")
        model = map_database(
            database,
            Path(work) / "models",
            refine_intrinsics=not options.known_intrinsics,
            min_model_size=MIN_IMAGES,
            seed=options.seed,
            threads=options.threads,
        )
        if model is None:
            return replace(nothing, verified_pairs=verified, reason="no model was found")
        return _scores(model, scene, replace(nothing, verified_pairs=verified))


def _read_all(source: FeatureSource, scene: Scene, count: int) -> dict[str, Features]:
    """Features of all images by name.

    Raises:
        FeatureFileError: if an image has none that can be used.
    """
    features = {}
    for name in scene.names:
        found = source.read(scene.name, name).top(count)
        problem = found.problem()
        if problem is not None:
            raise FeatureFileError(f"image {name}: {problem}")
        features[name] = found
    return features


def _cameras(pycolmap: Any, scene: Scene, *, known: bool) -> dict[str, Any]:
    """A camera for each image, in COLMAP's pixels: the true one, or one of a guessed focal length."""
    assert isinstance(scene, HasCameras)
    stored = getattr(scene, "cameras", None)
    cameras = {}
    for index, name in enumerate(scene.names):
        width, height = scene.image_size(index)
        if not known:
            focal = _FOCAL_GUESS * max(width, height)
            camera = pycolmap.Camera(
                model="SIMPLE_RADIAL", width=width, height=height, params=[focal, width / 2, height / 2, 0.0]
            )
        elif stored is not None:
            camera = pycolmap.Camera(stored[index].todict())  # with its lens distortion
        else:
            k = scene.intrinsics[index]
            camera = pycolmap.Camera(
                model="PINHOLE", width=width, height=height, params=[k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5]
            )
        camera.has_prior_focal_length = known
        cameras[name] = camera
    return cameras


def _scores(model: Any, scene: Scene, nothing: SfmScores) -> SfmScores:
    assert isinstance(scene, HasCameras)
    index = {name: k for k, name in enumerate(scene.names)}
    found = [image for image in model.images.values() if image.has_pose]
    centres = np.array([image.projection_center() for image in found])
    order = [index[image.name] for image in found]
    truth = np.array([-scene.rotations[k].T @ scene.translations[k] for k in order])
    error = align_error(centres, truth)
    focal = None
    if not nothing.known_intrinsics:
        ratios = [
            model.cameras[image.camera_id].mean_focal_length() / np.sqrt(np.linalg.det(scene.intrinsics[k][:2, :2]))
            for image, k in zip(found, order, strict=True)
        ]
        focal = float(np.mean(np.abs(np.array(ratios) - 1)))
    return replace(
        nothing,
        registered=len(found),
        points=int(model.num_points3D()),
        track_length=float(model.compute_mean_track_length()),
        reprojection_error=float(model.compute_mean_reprojection_error()),
        centre_error=error,
        focal_error=focal,
    )


def align_error(found: FloatArray, truth: FloatArray) -> float | None:
    """Mean distance of points from the true ones after the similarity that is best in the least-squares sense.

    Umeyama (PAMI 1991), without reflection.

    Args:
        found: shape (N, 3).
        truth: shape (N, 3).

    Returns:
        In the unit of ``truth``; None for fewer than three points, which any similarity would fit.
    """
    if len(found) < MIN_IMAGES:
        return None
    a, b = found - found.mean(axis=0), truth - truth.mean(axis=0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    spread = float(np.square(a).sum())
    if spread == 0:
        return None
    aligned = (singular * sign).sum() / spread * a @ (u * sign @ vt).T
    return float(np.linalg.norm(aligned - b, axis=1).mean())
