"""Step one of two: the features of all images that a set of scenes asks for, into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_lift.evaluation.features.files import FeatureFileError, FeatureStore
from kornia_lift.evaluation.validation import to_features
from kornia_lift.scenes.scene import Scene


def fingerprint(image: Tensor) -> str:
    """What tells the pixels of an image (1, C, H, W) from those of another: a digest of its shape and values."""
    digest = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=16)
    digest.update(image.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def extract_to_file(
    extract: Callable[[Tensor], Any],
    scenes: Iterable[Scene],
    path: str | Path,
    *,
    num_features: int,
    options: Mapping[str, Any],
    progress: Callable[[str], None] | None = None,
) -> int:
    """Extract the features of every image that occurs in a pair; what the file holds for the same pixels is kept.

    An extractor that raises, or a photograph that cannot be read, does not stop the run: the error is recorded, and
    the pairs of that image are reported as failed (the extractor) or skipped (the photograph).

    Args:
        extract: see :func:`kornia_lift.evaluation.evaluate_feature`.
        scenes: scenes, plain or warped.
        path: h5 file, new or to be continued. Features of an image of the same name but other pixels, or of unknown
            pixels, are replaced.
        num_features: keypoints per image, those of highest score.
        options: what the features are made with; kept in the file, and a file with other options is refused.
        progress: told about each image.

    Returns:
        How many images were extracted by this call.

    Raises:
        FeatureFileError: if the file cannot be used, or two of the images have one name.
    """
    count = 0
    seen: dict[tuple[str, str], str] = {}
    with FeatureStore(path, {**options, "num_features": num_features}) as store:
        for scene in scenes:
            for index in sorted({k for pair in scene.pairs for k in (pair.i, pair.j)}):
                name = scene.names[index]
                try:
                    image = scene.image(index)
                except (ValueError, OSError) as error:
                    # Without a fingerprint: the next run tries it again.
                    store.write_error(scene.name, name, str(error), unreadable=True)
                    continue
                mark = fingerprint(image)
                if seen.setdefault((scene.name, name), mark) != mark:
                    raise FeatureFileError(
                        f"Two different images are called {scene.name}/{name}; rename one of the scenes."
                    )
                if store.fingerprint(scene.name, name) == mark:
                    continue
                if progress is not None:
                    progress(f"{Path(path).stem}: {scene.name}/{name}")
                try:
                    found = to_features(extract(image), (image.shape[-1], image.shape[-2])).top(num_features)
                except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
                    store.write_error(scene.name, name, f"{type(error).__name__}: {error}", fingerprint=mark)
                else:
                    store.write(scene.name, name, found, fingerprint=mark)
                count += 1
    return count
