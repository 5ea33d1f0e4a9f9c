"""Step one of two: the features of all images that a set of scenes asks for, into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_lift.evaluation.features.files import remove_damaged
from kornia_lift.evaluation.validation import to_features
from kornia_lift.files import FeatureFile, FeatureFileError
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
        path: h5 file, new or to be continued: it changes in one step at the end, and a run that was killed continues
            from the images in ``<path>.parts``. Features of an image of the same name but other pixels, or of unknown
            pixels, are replaced, and so is a damaged file.
        num_features: keypoints per image, those of highest score.
        options: what the features are made with; kept in the file, and a file with other options is refused.
        progress: told about each image.

    Returns:
        How many images were extracted by this call.

    Raises:
        FeatureFileError: if the file cannot be used, or two of the images have one name.
    """
    path = Path(path)
    say = progress or (lambda text: None)
    count = 0
    seen: dict[str, str] = {}
    damage = remove_damaged(path)
    if damage is not None:
        say(f"{damage}; its features are extracted again")
    with FeatureFile(path, {**options, "num_features": num_features}) as file:
        for scene in scenes:
            for index in sorted({k for pair in scene.pairs for k in (pair.i, pair.j)}):
                name = f"{scene.name}/{scene.names[index]}"
                try:
                    image = scene.image(index)
                except (ValueError, OSError) as error:
                    # Without a fingerprint: the next run tries it again.
                    file.write_error(name, str(error), unreadable=True)
                    continue
                mark = fingerprint(image)
                if seen.setdefault(name, mark) != mark:
                    raise FeatureFileError(f"Two different images are called {name}; rename one of the scenes.")
                if file.fingerprint(name) == mark:
                    continue
                say(f"{path.stem}: {name}")
                try:
                    found = to_features(extract(image), (image.shape[-1], image.shape[-2])).top(num_features)
                    problem = found.fault()
                except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
                    problem = f"{type(error).__name__}: {error}"
                if problem:
                    file.write_error(name, problem, fingerprint=mark)
                else:
                    file.write(name, found, fingerprint=mark)
                count += 1
        file.finish()
    return count
