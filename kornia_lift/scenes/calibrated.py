"""Images with poses but without depth: Strecha's published files and COLMAP models. They measure poses only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import load_image, read_text
from kornia_lift.scenes.colmap import camera_matrix, observed_points, read_model_files, undistort
from kornia_lift.scenes.images import IMAGE_SUFFIXES, image_file_size
from kornia_lift.scenes.scene import UNKNOWN, FloatArray, Pair, SkippedPair, Transferred, as_points


class CalibratedScene:
    """Images with known cameras. Where a point lies in another image is unknown without depth.

    Args:
        name: name of the scene.
        paths: image files.
        intrinsics: K of each, shape (n, 3, 3).
        rotations: R, shape (n, 3, 3), with x ~ K (R X + t).
        translations: t, shape (n, 3).
        sizes: width and height that the cameras are for.
        pairs: pairs to evaluate.
        skipped: pairs that lack an image.
        cameras: pycolmap cameras that undo the lens distortion; None if there is none.
        names: names of the images, unique; the file names without suffix by default.

    Convention: the cameras refer to the pixels as stored; EXIF orientation is not applied.

    Raises:
        ValueError: if two images have one name.
    """

    def __init__(
        self,
        *,
        name: str,
        paths: Sequence[Path],
        intrinsics: FloatArray,
        rotations: FloatArray,
        translations: FloatArray,
        sizes: Sequence[tuple[int, int]],
        pairs: tuple[Pair, ...],
        skipped: tuple[SkippedPair, ...] = (),
        cameras: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.names: tuple[str, ...] = tuple(p.stem for p in paths) if names is None else tuple(names)
        if len(set(self.names)) != len(paths):
            raise ValueError(f"{name}: {len(paths)} images need as many different names; got {', '.join(self.names)}")
        self.paths = tuple(paths)
        self.intrinsics = intrinsics
        self.rotations = rotations
        self.translations = translations
        self.sizes = tuple(sizes)
        self.pairs = pairs
        self.skipped = skipped
        self.cameras = cameras

    @classmethod
    def from_strecha(cls, folder: str | Path, *, name: str | None = None) -> CalibratedScene:
        """Read a folder with ``NNNN.png`` (or jpg) and ``NNNN.png.camera`` as published for the multi-view benchmark.

        A ``.camera`` file holds K (3 lines), the distortion (1), the rotation from camera to world (3), the camera
        centre (1), and the image size (1). Images may lie beside it or in ``images`` or ``urd``.

        Raises:
            FileNotFoundError: if there is no ``.camera`` file.
            ValueError: if one cannot be read.
        """
        root = Path(folder)
        files = sorted(root.rglob("*.camera"))
        if not files:
            raise FileNotFoundError(f"{root} has no *.camera files")
        images = {p.name: p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES}
        paths, ks, rs, ts, sizes = [], [], [], [], []
        for file in files:
            k, rotation, centre, size = _read_camera(file)
            beside = file.with_suffix("")
            paths.append(beside if beside.is_file() else images.get(file.stem, beside))
            ks.append(k)
            rs.append(rotation.T)
            ts.append(-rotation.T @ centre)
            sizes.append(size)
        every = [Pair(i, j) for i in range(len(paths)) for j in range(i + 1, len(paths))]
        labels = [file.relative_to(root).with_suffix("").as_posix() for file in files]
        short = [Path(label).with_suffix("").as_posix() for label in labels]
        pairs, skipped = _existing(every, paths, labels)
        return cls(
            names=short if len(set(short)) == len(short) else labels,
            name=name or root.resolve().name,
            paths=paths,
            intrinsics=np.stack(ks),
            rotations=np.stack(rs),
            translations=np.stack(ts),
            sizes=sizes,
            pairs=pairs,
            skipped=skipped,
        )

    @classmethod
    def from_colmap(
        cls, model: str | Path, images: str | Path, *, name: str | None = None, min_shared: int = 50
    ) -> CalibratedScene:
        """Read a COLMAP model.

        Args:
            model: folder with ``cameras``, ``images`` and ``points3D``, ``.bin`` or ``.txt``.
            images: folder of the images. Their names are those in the model: paths below this folder.
            name: name of the scene; that of the folder that holds the images by default.
            min_shared: pairs are images that share at least this many points. Their overlap is the share of the
                points of the image that has fewer.

        Convention: pixel centres at integers; K is shifted by half a pixel from COLMAP's.

        Raises:
            ValueError: if the model is damaged, or has no image with a pose.
        """
        require("pycolmap", extra="colmap")
        reconstruction = read_model_files(Path(model))
        entries = sorted((i for i in reconstruction.images.values() if i.has_pose), key=lambda image: image.name)
        if not entries:
            raise ValueError(f"the COLMAP model {model} holds no image with a pose")
        cameras = [reconstruction.cameras[image.camera_id] for image in entries]
        poses = [image.cam_from_world() for image in entries]
        paths = [Path(images) / image.name for image in entries]
        seen = [observed_points(image) for image in entries]
        close = [
            Pair(i, j, overlap=shared / min(len(seen[i]), len(seen[j])))
            for i in range(len(entries))
            for j in range(i + 1, len(entries))
            if (shared := len(seen[i] & seen[j])) >= min_shared
        ]
        names = [image.name for image in entries]
        pairs, skipped = _existing(close, paths, names)
        return cls(
            names=names,
            name=name or Path(images).resolve().parent.name,
            paths=paths,
            intrinsics=np.stack([camera_matrix(camera) for camera in cameras]),
            rotations=np.stack([pose.rotation.matrix() for pose in poses]),
            translations=np.stack([pose.translation for pose in poses]),
            sizes=[(camera.width, camera.height) for camera in cameras],
            pairs=pairs,
            skipped=skipped,
            cameras=cameras,
        )

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """Image ``index`` as it is stored, float in [0, 1], shape (1, C, H, W)."""
        return load_image(self.paths[index], apply_exif=False)

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels.

        Raises:
            ValueError: if the file has another size than its camera.
        """
        size = image_file_size(self.paths[index], apply_exif=False)
        if size != self.sizes[index]:
            raise ValueError(
                f"{self.paths[index].name} is {size[0]}x{size[1]}, its camera is for "
                f"{self.sizes[index][0]}x{self.sizes[index][1]}"
            )
        return size

    def relative_pose(self, i: int, j: int) -> tuple[FloatArray, FloatArray]:
        """R (3, 3) and t (3,) with X_j = R X_i + t."""
        rotation = self.rotations[j] @ self.rotations[i].T
        return rotation, self.translations[j] - rotation @ self.translations[i]

    def undistort(self, index: int, points: FloatArray) -> FloatArray:
        """Points (N, 2) as a camera without lens distortion and with the same K would see them."""
        return points if self.cameras is None else undistort(self.cameras[index], points)

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Unknown for all points: there is no depth."""
        start = as_points(points)
        return Transferred(np.full_like(start, np.nan), np.full(len(start), UNKNOWN, dtype=np.int8))


def _read_camera(file: Path) -> tuple[FloatArray, FloatArray, FloatArray, tuple[int, int]]:
    """K, rotation from camera to world, camera centre and image size of a ``.camera`` file."""
    try:
        numbers = np.array(read_text(file, limit=2**16).split(), dtype=np.float64)
        if len(numbers) < 26 or not np.isfinite(numbers).all():
            raise ValueError(f"{len(numbers)} numbers, or some that are not finite")
        k, rotation, centre = numbers[:9].reshape(3, 3), numbers[12:21].reshape(3, 3), numbers[21:24]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
            raise ValueError("R is not a rotation")
        size = int(numbers[24]), int(numbers[25])
        if not (0 < size[0] < 2**20 and 0 < size[1] < 2**20 and (np.diag(k) > 0).all()):
            raise ValueError("the size or K is not that of a camera")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{file} is not a .camera file: expected K, distortion, R, C and size ({error})") from None
    return k / k[2, 2], rotation, centre, size


def _existing(
    pairs: Sequence[Pair], paths: Sequence[Path], labels: Sequence[str]
) -> tuple[tuple[Pair, ...], tuple[SkippedPair, ...]]:
    good, skipped = [], []
    for pair in pairs:
        missing = [labels[k] for k in (pair.i, pair.j) if not paths[k].is_file()]
        if missing:
            skipped.append(SkippedPair(pair.i, pair.j, f"image {', '.join(missing)} is missing"))
        else:
            good.append(pair)
    return tuple(good), tuple(skipped)
