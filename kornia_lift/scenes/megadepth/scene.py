"""A dense folder of MegaDepth as a scene: cameras of the undistorted images, depth, pairs by the points they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import ImageFileError, load_image
from kornia_lift.scenes.colmap import camera_matrix, observed_points, read_model_files
from kornia_lift.scenes.images import image_file_size
from kornia_lift.scenes.megadepth.files import NoDepthError, dense_name, find_model, read_inverse_depth
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import FloatArray, Pair, SkippedPair

MAX_IMAGES = 100
PARTNERS = 10
MIN_SHARED, MIN_OVERLAP = 50, 0.1
_ROUNDING = 2.0  # pixels by which the sizes of scaled images may differ
_KEPT = 32  # depth maps in memory


class MegaDepthScene(PosedScene):
    """Images of one reconstruction of MegaDepth (Li and Snavely, CVPR 2018), with depth by multi-view stereo.

    Layout, as unpacked from ``MegaDepth_v1.tar.gz`` and ``MegaDepth_SfM_v1.tar.xz`` of
    https://www.cs.cornell.edu/projects/megadepth/::

        phoenix/S6/zl548/MegaDepth_v1/0015/dense0/imgs/NAME.jpg
        phoenix/S6/zl548/MegaDepth_v1/0015/dense0/depths/NAME.h5
        MegaDepth_v1_SfM/0015/sparse/manhattan/0/{cameras,images,points3D}.bin

    The model may also be ``Undistorted_SfM/0015/sparse`` of D2-Net's preprocessing. Only its files are read; the raw
    images of the model are not needed.

    Images whose depth file is an ordinal mask (negative values) are left out. Depth of 0 is unknown.

    Convention:
        ``imgs`` and ``depths`` are of undistorted images, whose cameras were not published: they follow from those of
        the model by COLMAP's rule for undistortion, scaled to the size of the image. Pixel centres at integers, sizes
        as stored (no EXIF orientation). The unit of length is that of the model, which is arbitrary.
    """

    metric = False
    _sizes: tuple[tuple[int, int], ...]

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        max_images: int = MAX_IMAGES,
        partners: int = PARTNERS,
        min_shared: int = MIN_SHARED,
        min_overlap: float = MIN_OVERLAP,
    ) -> MegaDepthScene:
        """Read a folder ``MegaDepth_v1/0015/dense0``.

        Args:
            folder: the dense folder.
            name: name of the scene; ``0015-dense0`` by default.
            max_images: largest number of images, drawn at random; scenes have up to a few thousand.
            partners: largest number of pairs that each image chooses, spread evenly over their overlaps.
            min_shared: least number of points of the model that a pair shares.
            min_overlap: least share of the points of the image with fewer points that both observe.

        Raises:
            FileNotFoundError: if the model is missing.
            ValueError: if a file is damaged, or no two images with depth share enough points.

        """
        require("pycolmap", extra="colmap")
        require("h5py", extra="eval")
        root = Path(folder)
        model = read_model_files(find_model(root))
        entries = {image.name: image for image in model.images.values() if image.has_pose}
        there = sorted(n for n in entries if (root / "imgs" / n).is_file())
        chosen, sizes, errors, masks = _with_depth(root, there, max_images)
        seen = [observed_points(entries[n]) for n in chosen]
        pairs, skipped = [], []
        for pair in _choose(seen, partners, min_shared, min_overlap):
            reasons = [errors[chosen[k]] for k in (pair.i, pair.j) if chosen[k] in errors]
            if reasons:
                skipped.append(SkippedPair(pair.i, pair.j, "; ".join(reasons)))
            else:
                pairs.append(pair)
        if not pairs:
            raise ValueError(
                f"{root}: no two of the {len(there)} images with a camera in the model share {min_shared} points and "
                f"have depth; {masks} have ordinal masks, {_first(errors)}"
            )
        poses = [entries[n].cam_from_world() for n in chosen]
        scene = cls(
            name=name or dense_name(root),
            root=root,
            names=tuple(chosen),
            intrinsics=np.stack(
                [
                    np.eye(3) if n in errors else _intrinsics(n, model.cameras[entries[n].camera_id], s)
                    for n, s in zip(chosen, sizes, strict=True)
                ]
            ),
            rotations=np.stack([pose.rotation.matrix() for pose in poses]),
            translations=np.stack([pose.translation for pose in poses]),
            size=sizes[0],
            depth_scale=1.0,
            pairs=tuple(pairs),
            skipped=tuple(skipped),
        )
        scene._sizes = tuple(sizes)
        return scene

    def camera_size(self, index: int) -> tuple[int, int]:
        """Width and height of image ``index``; each image has its own size."""
        return self._sizes[index]

    def image_path(self, index: int) -> Path:
        """File of image ``index``."""
        return self.root / "imgs" / self.names[index]

    def image(self, index: int) -> Tensor:
        """Image ``index`` as it is stored, float in [0, 1], shape (1, C, H, W)."""
        return load_image(self.image_path(index), apply_exif=False)

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, as when the scene was loaded."""
        return self._sizes[index]

    def _inverse_depth(self, index: int) -> NDArray[np.float32]:
        if index not in self._depth_maps:
            if len(self._depth_maps) >= _KEPT:
                del self._depth_maps[next(iter(self._depth_maps))]
            path = _depth_path(self.root, self.names[index])
            self._depth_maps[index] = read_inverse_depth(path, self._sizes[index])
        return np.asarray(self._depth_maps[index], dtype=np.float32)


def _depth_path(root: Path, name: str) -> Path:
    return (root / "depths" / name).with_suffix(".h5")


def _with_depth(
    root: Path, names: list[str], count: int
) -> tuple[list[str], list[tuple[int, int]], dict[str, str], int]:
    """Draw images until ``count`` of them have depth, or ``count`` lack it.

    Returns:
        Their names, sorted, and sizes; why some of them cannot be used; how many were left out as ordinal masks.

    """
    found: dict[str, tuple[int, int]] = {}
    errors: dict[str, str] = {}
    masks = 0
    for number in np.random.default_rng(0).permutation(len(names)):
        name = names[number]
        if max(len(found) - len(errors), len(errors)) >= count:
            break
        size = (1, 1)
        try:
            size = image_file_size(root / "imgs" / name, apply_exif=False)
            read_inverse_depth(_depth_path(root, name), size)
        except NoDepthError:
            masks += 1
            continue
        except FileNotFoundError:
            errors[name] = f"depth map {_depth_path(root, name).relative_to(root)} is missing"
        except (ImageFileError, ValueError) as error:
            errors[name] = str(error)
        found[name] = size
    order = sorted(found)
    return order, [found[name] for name in order], errors, masks


def _choose(seen: list[set[int]], partners: int, min_shared: int, min_overlap: float) -> list[Pair]:
    """Return pairs; each image chooses partners spread evenly from the least to the largest overlap."""
    overlap = np.zeros((len(seen), len(seen)))
    for i, mine in enumerate(seen):
        for j in range(i + 1, len(seen)):
            shared = len(mine & seen[j])
            if shared >= min_shared:
                overlap[i, j] = overlap[j, i] = shared / min(len(mine), len(seen[j]))
    chosen = set()
    for i, row in enumerate(overlap):
        candidates = [int(j) for j in np.argsort(row, kind="stable") if row[j] >= min_overlap and row[j] > 0]
        spread = np.linspace(0, len(candidates) - 1, min(partners, len(candidates))).round().astype(int)
        chosen |= {(min(i, candidates[n]), max(i, candidates[n])) for n in spread}
    return [Pair(i, j, overlap=float(overlap[i, j])) for i, j in sorted(chosen)]


def _intrinsics(name: str, camera: Any, size: tuple[int, int]) -> FloatArray:
    """K of an undistorted image, scaled to its size.

    Raises:
        ValueError: if the image has another aspect ratio than its camera.

    """
    pycolmap = require("pycolmap", extra="colmap")
    ideal = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    factor = size[0] / ideal.width
    if abs(ideal.height * factor - size[1]) > _ROUNDING * max(factor, 1.0):
        raise ValueError(
            f"the image {name} is {size[0]}x{size[1]}, its undistorted camera {ideal.width}x{ideal.height}; the model "
            "is of other images"
        )
    ideal.rescale(*size)
    return camera_matrix(ideal)


def _first(errors: Mapping[str, str]) -> str:
    """Say how many images have no usable depth, and the first reason."""
    return f"{len(errors)} no usable depth" + (f" ({next(iter(errors.values()))})" if errors else "")
