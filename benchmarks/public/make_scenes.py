"""The test scenes of the accuracy tables from public downloads.

    git clone --depth 1 https://github.com/openMVG/SfM_quality_evaluation downloads/strecha
    for s in bark boat graf leuven ubc; do
        curl -L --create-dirs -o downloads/oxford/$s.tar.gz \
            https://www.robots.ox.ac.uk/~vgg/research/affine/det_eval_files/$s.tar.gz
    done
    python -m benchmarks.public.make_scenes downloads --out public
    python benchmarks/accuracy.py --data public --cache cache --results public-results --no-docs

Below ``downloads`` it looks for folders ``Herz-Jesus-P8`` with ``images`` and ``gt_dense_cameras``, and for the Oxford
sequences as archives or unpacked (``graf/img1.ppm``, ``graf/H1to2p``); what is missing is left out.

Images of Herz-Jesus-P8 become the means of 3x3 pixels, JPEG of quality 92: byte for byte those of the tables. Its depth
maps are not published; here they are made by plane sweeping from the measured cameras, in a few minutes, and confirmed
by two other views. Those of the tables come from another program and know a little more. Poses and epipolar
lines need no depth. The Oxford sequences become JPEG of quality 95 without subsampling.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.public.plane_sweep import View, depth_maps
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.homographies import HomographySequence

HERZ_JESUS = "Herz-Jesus-P8"
OXFORD = ("bark", "boat", "graf", "leuven", "ubc")
FACTOR = 3
CODES = 65_000  # of the inverse depth


def make_posed(source: Path, out: Path, depth: bool = True) -> None:
    """Write a scene with ``images`` and ``*.camera`` files, reduced by 3, in the layout that the tables read.

    Args:
        source: the published folder.
        out: the scene.
        depth: whether depth maps are made.
    """
    scene = CalibratedScene.from_strecha(source)
    for name in ("images", "depth"):
        (out / name).mkdir(parents=True, exist_ok=True)
    intrinsics, views = scene.intrinsics.copy(), []
    intrinsics[:, :2] /= FACTOR
    intrinsics[:, :2, 2] += 0.5 / FACTOR - 0.5
    for k, path in enumerate(scene.paths):
        image = cv2.imread(str(path))
        height, width = (side // FACTOR for side in image.shape[:2])
        small = cv2.resize(image[: height * FACTOR, : width * FACTOR], (width, height), interpolation=cv2.INTER_AREA)
        written = out / "images" / f"{path.stem}.jpg"
        cv2.imwrite(str(written), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
        gray = cv2.imread(str(written), cv2.IMREAD_GRAYSCALE)
        views.append(View(gray, intrinsics[k], scene.rotations[k], scene.translations[k]))
    maps = depth_maps(views) if depth else [np.zeros(v.gray.shape, np.float32) for v in views]
    scale = max(float(m.max()) for m in maps) / CODES or 1.0
    for path, inverse in zip(scene.paths, maps, strict=True):
        cv2.imwrite(str(out / "depth" / f"{path.stem}.png"), np.round(inverse / scale).astype(np.uint16))
    height, width = views[0].gray.shape
    np.savez(
        out / "cameras.npz",
        K=intrinsics,
        R=scene.rotations,
        t=scene.translations,
        names=np.array([path.stem for path in scene.paths]),
        width=width,
        height=height,
        depth_scale=scale,
    )


def make_sequence(source: Path, out: Path) -> None:
    """Write a sequence as published, ``img1.ppm`` and ``H1to2p``, as JPEG with ``H_1_2``."""
    out.mkdir(parents=True, exist_ok=True)
    sequence = HomographySequence.load(source)
    for index in range(len(sequence.names)):
        path = next(p for p in sorted(source.iterdir()) if p.stem in (f"img{index + 1}", f"{index + 1}"))
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        cv2.imwrite(str(out / f"{index + 1}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95, *sampling])
        if index:
            text = (source / f"H1to{index + 1}p").read_text()
            (out / f"H_1_{index + 1}").write_text(text)


def _sequences(downloads: Path, unpacked: Path) -> dict[str, Path]:
    """Folders of the Oxford sequences; archives are unpacked first."""
    found = {}
    for name in OXFORD:
        for archive in sorted(downloads.rglob(f"{name}.tar.gz")):
            with tarfile.open(archive) as file:
                file.extractall(unpacked / name, filter="data")
        places = [p.parent for base in (unpacked / name, downloads) for p in sorted(base.rglob("H1to2p"))]
        mine = [p for p in places if name in (p.name, p.parent.name)]
        if mine:
            found[name] = mine[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("downloads", type=Path)
    parser.add_argument("--out", type=Path, default=Path("public"))
    parser.add_argument("--no-depth", action="store_true", help="measure poses only; nothing is known of matches")
    args = parser.parse_args(argv)
    if not args.downloads.is_dir():
        parser.error(f"{args.downloads} is not a folder; its contents are described above (--help)")
    made = []
    folder = next((p for p in sorted(args.downloads.rglob(HERZ_JESUS)) if (p / "gt_dense_cameras").is_dir()), None)
    if folder is not None:
        make_posed(folder, args.out / "strecha" / HERZ_JESUS, not args.no_depth)
        made.append(HERZ_JESUS)
    with tempfile.TemporaryDirectory() as temporary:
        for name, source in _sequences(args.downloads, Path(temporary)).items():
            make_sequence(source, args.out / "homography" / f"oxford_{name}")
            made.append(name)
    missing = [name for name in (HERZ_JESUS, *OXFORD) if name not in made]
    print(f"{args.out}: {', '.join(made) or 'nothing'}" + (f"; not found: {', '.join(missing)}" if missing else ""))
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
