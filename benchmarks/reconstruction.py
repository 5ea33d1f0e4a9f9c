"""One scene through every program that reconstructs: kornia-lift, COLMAP with its own matcher, hloc; LIFT beside SIFT.

    git clone https://github.com/cvg/Hierarchical-Localization hloc
    PYTHONPATH=hloc python benchmarks/reconstruction.py --work WORK

Herz-Jesus-P8, 8 images of 1024x682 with their true intrinsics, which are kept. Every row is what a user of that program
would call, with the settings of that program: SIFT as each of them configures it, LIFT with at most 4000 keypoints.
Camera centres are compared with the true ones after the best similarity; they vary by some millimetres from run to run,
so rows are means of ``--runs`` runs with other seeds. Writes benchmarks/results/parts/reconstruction.json
and the table beside it, and shows it in docs/integrations.md. ``lift-plus`` is missing where COLMAP matches: COLMAP
stores SIFT's kind of descriptor only, which has no negative numbers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # Python looks beside this file only

from benchmarks.pages.marks import put_between  # noqa: E402
from kornia_lift._io import atomic_write  # noqa: E402
from kornia_lift.cli import main as kornia_lift  # noqa: E402
from kornia_lift.evaluation.sfm import align_error  # noqa: E402
from kornia_lift.files.colmap import map_database  # noqa: E402
from kornia_lift.scenes.posed import PosedScene  # noqa: E402

DOCS = ROOT / "docs" / "integrations.md"
KEYPOINTS = 4000
FIXED = dict.fromkeys(("ba_refine_focal_length", "ba_refine_principal_point", "ba_refine_extra_params"), False)


@dataclass(frozen=True)
class Row:
    """What one way of reconstructing found: means over the runs; of the images, the smallest number."""

    feature: str
    way: str
    keypoints: float
    registered: int
    points: float
    track_length: float
    reprojection_error: float
    centre_error_mm: float


class Scene:
    """The images, the true cameras, and a folder to work in."""

    def __init__(self, folder: Path, work: Path) -> None:
        scene = PosedScene.load(folder)
        self.images, self.work = folder / "images", work
        k = scene.intrinsics
        if np.ptp(k, axis=0).any():
            raise SystemExit(f"{folder}: the images have different intrinsics")
        # COLMAP counts pixels from the corner of the image
        self.parameters = ",".join(repr(float(v)) for v in (k[0, 0, 0], k[0, 1, 1], k[0, 0, 2] + 0.5, k[0, 1, 2] + 0.5))
        centres = -np.einsum("nji,nj->ni", scene.rotations, scene.translations)
        self.truth = dict(zip(scene.names, centres, strict=True))

    @property
    def camera(self) -> str:
        """For ``--camera``."""
        return f"PINHOLE,{self.parameters}"

    @property
    def reader_options(self) -> dict[str, str]:
        """For COLMAP and hloc."""
        return {"camera_model": "PINHOLE", "camera_params": self.parameters}


def reconstruct(scene: Scene, out: Path, seed: int, model: str) -> Any:
    """``kornia-lift reconstruct``."""
    options = ["--model", model, "--num-features", str(KEYPOINTS), "--camera", scene.camera, "--seed", str(seed)]
    _command("reconstruct", str(scene.images), "--out", str(out), *options)
    return _largest(pycolmap.Reconstruction(folder) for folder in out.iterdir() if (folder / "images.bin").exists())


def colmap_matcher(scene: Scene, out: Path, seed: int, model: str) -> Any:
    """Features by ``kornia-lift``, matched by COLMAP's own matcher: the list of pairs to match is empty."""
    features, pairs, database = (out / name for name in ("features.h5", "none.txt", "database.db"))
    pairs.touch()
    options = ["--model", model, "--num-features", str(KEYPOINTS)]
    _command("extract", str(scene.images), "--out", str(features), *options)
    _command(
        *("export-colmap", str(features), "--images", str(scene.images), "--out", str(database)),
        *("--pairs", str(pairs), "--camera", scene.camera, "--no-verify"),
    )
    return _match_and_map(scene, database, out, seed)


def colmap_sift(scene: Scene, out: Path, seed: int, model: str) -> Any:
    """COLMAP from images to model, by its default settings."""
    database = out / "database.db"
    reader = pycolmap.ImageReaderOptions(scene.reader_options)
    pycolmap.extract_features(database, scene.images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader)
    return _match_and_map(scene, database, out, seed)


def hloc(scene: Scene, out: Path, seed: int, model: str) -> Any:
    """hloc's own pipeline by its ``sift``, with the ratio test that belongs to it, or with LIFT as its extractor."""
    from hloc import extract_features, match_features, pairs_from_exhaustive, reconstruction

    from kornia_lift.integrations import hloc as bridge

    name = "sift"
    if model != "SIFT":
        bridge.register()
        name = "lift"
        extract_features.confs["lift"]["model"].update(weights=model, max_keypoints=KEYPOINTS)
    features = extract_features.main(extract_features.confs[name], scene.images, out, as_half=False)
    pairs, matches = out / "pairs.txt", out / "matches.h5"
    pairs_from_exhaustive.main(pairs, features=features)
    matcher = match_features.confs["NN-ratio" if model == "SIFT" else "NN-mutual"]
    match_features.main(matcher, pairs, features=features, matches=matches)
    pycolmap.set_random_seed(seed)
    return reconstruction.main(
        *(out / "sfm", scene.images, pairs, features, matches),
        camera_mode=pycolmap.CameraMode.SINGLE,
        image_options=scene.reader_options,
        mapper_options={**FIXED, "num_threads": 1, "random_seed": seed},
    )


Way = Callable[[Scene, Path, int, str], Any]
WAYS: tuple[tuple[str, str, Way], ...] = (
    ("lift", "`kornia-lift reconstruct`", reconstruct),
    ("lift-plus", "`kornia-lift reconstruct`", reconstruct),
    ("lift", "`export-colmap`, COLMAP's matcher", colmap_matcher),
    ("lift", "hloc, `NN-mutual`", hloc),
    ("lift-plus", "hloc, `NN-mutual`", hloc),
    ("SIFT", "COLMAP", colmap_sift),
    ("SIFT", "hloc, `NN-ratio`", hloc),
)


def main() -> int:
    args = _parse()
    scene = Scene(args.scene, args.work)
    args.work.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for feature, label, way in WAYS:
        if args.only and args.only not in label:
            continue
        rows.append(_row(scene, feature, label, way, args.runs))
        print(_line(rows[-1], len(scene.truth)), flush=True)
    if args.only:
        return 0
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    made = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "kornia", "pycolmap", "numpy")},
        "runs": args.runs,
    }
    path = args.results / "reconstruction.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**made, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    table = "\n".join([*_HEAD, *(_line(row, len(scene.truth)) for row in rows)])
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(f"# Herz-Jesus-P8 through every program\n\n{table}\n")
    put_between(DOCS, "reconstruction", table)
    return 0


_HEAD = (
    "| feature | program | keypoints | images | points | track length | reprojection error, px | centre error, mm |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def _line(row: Row, images: int) -> str:
    return (
        f"| {row.feature} | {row.way} | {row.keypoints:.0f} | {row.registered} of {images} | {row.points:.0f} | "
        f"{row.track_length:.2f} | {row.reprojection_error:.2f} | {row.centre_error_mm:.1f} |"
    )


def _row(scene: Scene, feature: str, label: str, way: Way, runs: int) -> Row:
    found = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory(dir=scene.work) as folder, _quiet():
            model = way(scene, Path(folder), seed, feature)
            images = [image for image in model.images.values() if image.has_pose]
            error = align_error(
                np.array([image.projection_center() for image in images]),
                np.array([scene.truth[Path(image.name).stem] for image in images]),
            )
            if error is None:
                raise SystemExit(f"{feature}, {label}: fewer than three images")
            keypoints = np.mean([image.num_points2D() for image in model.images.values()])
            track, reprojection = model.compute_mean_track_length(), model.compute_mean_reprojection_error()
            found.append((keypoints, len(images), model.num_points3D(), track, reprojection, 1000 * error))
    keypoints, _, points, track, reprojection, centre = np.mean(found, axis=0).tolist()
    fewest = min(int(f[1]) for f in found)
    return Row(feature, label, keypoints, fewest, points, track, reprojection, centre)


def _match_and_map(scene: Scene, database: Path, out: Path, seed: int) -> Any:
    pycolmap.set_random_seed(seed)
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = seed
    pycolmap.match_exhaustive(
        database, matching_options=pycolmap.FeatureMatchingOptions(num_threads=1), verification_options=geometry
    )
    return map_database(database, out / "models", images=scene.images, refine_intrinsics=False, seed=seed, threads=1)


def _largest(models: Iterator[Any]) -> Any:
    return max(models, key=lambda model: model.num_reg_images())


def _command(*words: str) -> None:
    code = kornia_lift(words)
    if code:
        raise SystemExit(f"kornia-lift {' '.join(words)}: exit code {code}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what the programs print."""
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    saved = [os.dup(1), os.dup(2)]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            for number, copy in enumerate(saved, 1):
                os.dup2(copy, number)
                os.close(copy)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "data" / "test" / "strecha" / "Herz-Jesus-P8"
    parser.add_argument("--scene", type=Path, default=shared)
    parser.add_argument("--work", type=Path, required=True, help="folder for temporary files")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "parts")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", help="only rows whose program contains this text; nothing is written")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
