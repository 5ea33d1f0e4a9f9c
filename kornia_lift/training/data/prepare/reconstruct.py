"""From a folder of images to a COLMAP model: structure from motion with pycolmap on the CPU."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kornia_lift._extras import require
from kornia_lift._gray import to_bytes
from kornia_lift._io import load_image
from kornia_lift._io.writing import temporary_folder
from kornia_lift._words import counted
from kornia_lift.files.colmap_calls import quiet_colmap
from kornia_lift.files.colmap_models import check_written
from kornia_lift.training.data.images import images_below, images_in
from kornia_lift.training.data.prepare.alike import check_different, thumbnail

MIN_IMAGES = 3
BYTES_PER_IMAGE = 4 * 2**20  # of the image, its keypoints and its matches, on the disk meanwhile


class ReconstructionError(ValueError):
    """Images that cannot be reconstructed."""


def reconstruct(
    folder: Path,
    out: Path,
    *,
    max_size: int = 1024,
    seed: int = 0,
    threads: int = -1,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Reconstruct a scene.

    Args:
        folder: folder of the images, all of one scene.
        out: receives ``images/`` (scaled down, as the model sees them) and ``sparse/``; written only at success.
        max_size: larger side of the scaled images in pixels.
        seed: of the estimators.
        threads: for pycolmap, -1 for all.
        say: called with what begins now, since it takes minutes, and with the result.

    Returns:
        ``out``, with the largest model in ``out/sparse``; images that are not in it are left out.

    Raises:
        ReconstructionError: if there are too few images, or no model results.
        ImageFileError: if an image is damaged.
        OSError: if the disk is too full.

    """
    pycolmap = require("pycolmap", extra="train")
    cv2 = require("cv2", extra="train")
    paths = images_in(folder)
    if len(paths) < MIN_IMAGES:
        below = sorted({path.parent for path in images_below(folder)} - {folder})
        raise ReconstructionError(
            f"{folder} holds {counted(len(paths), 'image')}, at least {MIN_IMAGES} of one scene are needed; "
            + (
                f"its sub-folders hold images: give each of them, as in {below[0]}"
                if below
                else "for single images use --single"
            )
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_space(out.parent, len(paths))
    with temporary_folder(out) as work:
        scene, database = work / "scene", work / "database.db"
        (scene / "images").mkdir(parents=True)
        thumbnails = []
        for path in paths:
            colour = to_bytes(load_image(path, apply_exif=False))[0].permute(1, 2, 0)
            image = np.ascontiguousarray(colour.numpy()[..., ::-1])  # OpenCV orders blue, green, red
            factor = min(1.0, max_size / max(image.shape[:2]))
            if factor < 1:
                image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            gray = image.reshape(*image.shape[:2], -1).mean(-1)
            thumbnails.append(thumbnail(torch.from_numpy(gray)))
            # a.jpg and a.png are two images
            name = path.name if path.suffix.lower() == ".jpg" else f"{path.name}.jpg"
            if not cv2.imwrite(str(scene / "images" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95]):
                raise OSError(errno.EIO, "cannot write; is the disk full?", str(scene / "images" / name))
        try:
            check_different(
                thumbnails,
                str(folder),
                lambda kept: f"keep {kept}, and move the camera between images by a tenth of the distance or more",
                MIN_IMAGES,
            )
        except ValueError as error:
            raise ReconstructionError(str(error)) from None
        say(f"reconstruction from {len(paths)} images: SIFT")
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.use_gpu = False
        extraction.num_threads = threads
        matching = pycolmap.FeatureMatchingOptions()
        matching.use_gpu = False
        matching.num_threads = threads
        pycolmap.set_random_seed(seed)
        cpu = pycolmap.Device.cpu
        with quiet_colmap(pycolmap, database):
            pycolmap.extract_features(database, scene / "images", extraction_options=extraction, device=cpu)
        say(f"matching {counted(len(paths) * (len(paths) - 1) // 2, 'pair')}")
        with quiet_colmap(pycolmap, database):
            pycolmap.match_exhaustive(database, matching_options=matching, device=cpu)
        mapping = pycolmap.IncrementalPipelineOptions()
        mapping.num_threads = threads
        mapping.random_seed = seed
        mapping.min_model_size = MIN_IMAGES
        (work / "models").mkdir()
        say("finding cameras and points")
        with quiet_colmap(pycolmap, database):
            models = pycolmap.incremental_mapping(database, scene / "images", work / "models", mapping)
        best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
        if best is None or best.num_reg_images() < MIN_IMAGES:
            raise ReconstructionError(
                f"no reconstruction results from the {len(paths)} images in {folder}: too few matches. Take "
                "images from overlapping viewpoints that are apart (do not rotate on the spot), of textured parts"
            )
        say(f"{best.num_reg_images()} of {len(paths)} images were registered, {best.num_points3D()} points")
        kept = {image.name for image in best.images.values() if image.has_pose}
        for path in (scene / "images").iterdir():
            if path.name not in kept:
                path.unlink()
        (scene / "sparse").mkdir()
        best.write(scene / "sparse")
        check_written(scene / "sparse", best, out / "sparse")
        if out.exists():
            shutil.rmtree(out)
        scene.rename(out)
    return out


def _check_space(folder: Path, images: int) -> None:
    """Raise before the work begins: COLMAP ends the whole process where its database cannot grow."""
    needed, free = images * BYTES_PER_IMAGE, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed / 2**20:.0f} MiB are needed for the reconstruction of {counted(images, 'image')}, "
            f"{free / 2**20:.0f} MiB are free; free some, or choose another disk",
            str(folder),
        )
