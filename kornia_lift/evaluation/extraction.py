"""Step one of two: the features of all images that a set of scenes asks for, into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.scene import Scene
from .feature_files import FeatureStore
from .validation import to_features


def extract_to_file(
    extract: Callable[[Tensor], Any],
    scenes: Iterable[Scene],
    path: str | Path,
    *,
    num_features: int,
    options: Mapping[str, Any],
    progress: Callable[[str], None] | None = None,
) -> int:
    """Extract the features of every image that occurs in a pair; what the file holds already is kept.

    An extractor that raises does not stop the run: the error is recorded, and the pairs of that image are reported
    as failed.

    Args:
        extract: see :func:`kornia_lift.evaluation.evaluate_feature`.
        scenes: scenes, plain or warped.
        path: h5 file, new or to be continued.
        num_features: keypoints per image, those of highest score.
        options: what the features are made with; kept in the file, and a file with other options is refused.
        progress: told about each image.

    Returns:
        How many images were extracted by this call.
    """
    count = 0
    with FeatureStore(path, {**options, "num_features": num_features}) as store:
        for scene in scenes:
            for index in sorted({k for pair in scene.pairs for k in (pair.i, pair.j)}):
                name = scene.names[index]
                if (scene.name, name) in store:
                    continue
                if progress is not None:
                    progress(f"{Path(path).stem}: {scene.name}/{name}")
                image = scene.image(index)
                try:
                    found = to_features(extract(image), (image.shape[-1], image.shape[-2])).top(num_features)
                except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
                    store.write_error(scene.name, name, f"{type(error).__name__}: {error}")
                else:
                    store.write(scene.name, name, found)
                count += 1
    return count
