"""From a folder of photographs to a COLMAP model: structure from motion with pycolmap on the CPU."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kornia_lift._extras import require
from kornia_lift.data.photographs import list_photos

MIN_PHOTOGRAPHS = 3


class ReconstructionError(ValueError):
    """Photographs that cannot be put together."""


def reconstruct(photos: Path, out: Path, *, max_size: int = 1024, seed: int = 0, threads: int = -1) -> Path:
    """Reconstruct a scene.

    Args:
        photos: folder of the photographs, all of one scene.
        out: receives ``images/`` (scaled down, as the model sees them) and ``sparse/``; written only at success.
        max_size: larger side of the scaled photographs in pixels.
        seed: of the estimators.
        threads: for pycolmap, -1 for all.

    Returns:
        ``out``, with the largest model in ``out/sparse``; photographs that are not in it are left out.

    Raises:
        ReconstructionError: if there are too few photographs, or no model comes of them.

    """
    pycolmap = require("pycolmap", extra="train")
    cv2 = require("cv2", extra="train")
    paths = list_photos(photos)
    if len(paths) < MIN_PHOTOGRAPHS:
        raise ReconstructionError(
            f"{photos} holds {len(paths)} photographs (.jpg, .jpeg, .png), at least {MIN_PHOTOGRAPHS} of one scene are "
            "needed; for single photographs use --single"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        scene, database = Path(work) / "scene", Path(work) / "database.db"
        (scene / "images").mkdir(parents=True)
        for path in paths:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise ReconstructionError(f"cannot read the photograph {path}: missing or damaged; remove it")
            factor = min(1.0, max_size / max(image.shape[:2]))
            if factor < 1:
                image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(scene / "images" / f"{path.stem}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.use_gpu = False
        extraction.num_threads = threads
        matching = pycolmap.FeatureMatchingOptions()
        matching.use_gpu = False
        matching.num_threads = threads
        pycolmap.set_random_seed(seed)
        cpu = pycolmap.Device.cpu
        pycolmap.extract_features(database, scene / "images", extraction_options=extraction, device=cpu)
        pycolmap.match_exhaustive(database, matching_options=matching, device=cpu)
        mapping = pycolmap.IncrementalPipelineOptions()
        mapping.num_threads = threads
        mapping.random_seed = seed
        mapping.min_model_size = MIN_PHOTOGRAPHS
        (Path(work) / "models").mkdir()
        models = pycolmap.incremental_mapping(database, scene / "images", Path(work) / "models", mapping)
        best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
        if best is None or best.num_reg_images() < MIN_PHOTOGRAPHS:
            raise ReconstructionError(
                f"no reconstruction comes of the {len(paths)} photographs in {photos}: too few matches. Photograph the "
                "scene from overlapping viewpoints that are apart (not turning on the spot), with texture in sight"
            )
        kept = {image.name for image in best.images.values() if image.has_pose}
        for path in (scene / "images").iterdir():
            if path.name not in kept:
                path.unlink()
        (scene / "sparse").mkdir()
        best.write(scene / "sparse")
        if out.exists():
            shutil.rmtree(out)
        scene.rename(out)
    return out
