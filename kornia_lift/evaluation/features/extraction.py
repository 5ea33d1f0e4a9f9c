"""Features of the images of scenes: extracted on demand, or all into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kornia_lift.evaluation.features.files import damaged_entries
from kornia_lift.features import Features, from_lafs
from kornia_lift.files import FeatureFile, FeatureFileError, UnreadableImageError
from kornia_lift.scenes.scene import Scene

#: Takes an image (1, C, H, W) in [0, 1] and returns what a kornia ``LocalFeature`` returns, ``(lafs, responses,
#: descriptors)``, or ``(keypoints (N, 2), descriptors (N, D)[, scores (N,)])``, or :class:`Features`.
Extract = Callable[[Tensor], Any]


class ExtractedFeatures:
    """Features by scene and image, extracted when they are first read.

    Args:
        extract: see :data:`Extract`.
        scenes: the scenes that images are read from.
        num_features: keypoints per image, those of highest score.
        memory: features by (scene, image); filled here, so that a second evaluation extracts only what is new.
    """

    def __init__(
        self,
        extract: Extract,
        scenes: Iterable[Scene],
        num_features: int,
        memory: MutableMapping[tuple[str, str], Features] | None = None,
    ) -> None:
        self._extract = extract
        self._scenes = {scene.name: scene for scene in scenes}
        self._count = num_features
        self._memory = {} if memory is None else memory

    def read(self, scene: str, image: str) -> Features:
        """The features of one image.

        Raises:
            UnreadableImageError: if the image cannot be read.
        """
        key = (scene, image)
        if key not in self._memory:
            source = self._scenes[scene]
            try:
                pixels = source.image(source.names.index(image))
            except (ValueError, OSError) as error:
                raise UnreadableImageError(str(error)) from error
            with torch.no_grad():
                output = self._extract(pixels)
            self._memory[key] = to_features(output, (pixels.shape[-1], pixels.shape[-2])).top(self._count)
        return self._memory[key]


def extract_to_file(
    extract: Extract,
    scenes: Iterable[Scene],
    path: str | Path,
    *,
    num_features: int,
    options: Mapping[str, Any],
    progress: Callable[[str], None] | None = None,
) -> int:
    """Extract the features of every image that occurs in a pair; what the file holds for the same pixels is kept.

    An extractor that raises, or an image that cannot be read, does not stop the run: the error is recorded, and
    the pairs of that image are reported as failed (the extractor) or skipped (the image).

    Args:
        extract: see :data:`Extract`.
        scenes: scenes, plain or warped.
        path: h5 file, new or to be continued: it changes in one step at the end, and a run that was killed continues
            from the images in ``<path>.parts``. Features of an image of the same name but other pixels, or of unknown
            pixels, are replaced, and so are damaged ones.
        num_features: keypoints per image, those of highest score.
        options: what the features are made with; kept in the file, and a file with other options is refused. Progress
            is reported under the name ``"feature"``, if there is one, else under that of the file.
        progress: called with a line of text for each image.

    Returns:
        How many images were extracted by this call.

    Raises:
        FeatureFileError: if the file cannot be used, or two of the images have one name.
    """
    path = Path(path)
    say = progress or (lambda text: None)
    count = 0
    seen: dict[str, str] = {}
    damaged = damaged_entries(path)
    for name, reason in damaged.items():
        say(f"{reason}; the features of {name or 'all images'} are extracted again")
    wanted = [(scene, k) for scene in scenes for k in sorted({k for pair in scene.pairs for k in (pair.i, pair.j)})]
    with FeatureFile(path, {**options, "num_features": num_features}) as file:
        for number, (scene, index) in enumerate(wanted, 1):
            name = f"{scene.name}/{scene.names[index]}"
            try:
                image = scene.image(index)
            except (ValueError, OSError) as error:
                # Without a fingerprint: the next run tries it again.
                file.write_error(name, str(error), unreadable=True)
                continue
            mark = fingerprint(image)
            if seen.setdefault(name, mark) != mark:
                raise FeatureFileError(f"two different images are called {name}: rename one of the scenes")
            if name not in damaged and file.fingerprint(name) == mark:
                continue
            say(f"{options.get('feature', path.stem)}: {name}, image {number} of {len(wanted)}")
            try:
                with torch.no_grad():
                    output = extract(image)
                found = to_features(output, (image.shape[-1], image.shape[-2])).top(num_features)
                problem = found.problem()
            except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                file.write_error(name, problem, fingerprint=mark)
            else:
                file.write(name, found, fingerprint=mark)
            count += 1
        file.finish()
    return count


def to_features(output: Any, image_size: tuple[int, int]) -> Features:
    """Convert what an extractor returns; see :data:`Extract`.

    Raises:
        TypeError: if it is none of the three forms.
    """
    if isinstance(output, Features):
        return output
    if isinstance(output, (tuple, list)) and len(output) in (2, 3):
        head = output[0]
        if isinstance(head, Tensor) and head.ndim == 4:
            if len(output) != 3:
                raise TypeError("an extractor that returns frames must return (lafs, responses, descriptors)")
            return from_lafs(output[0], output[1], output[2], image_size)
        arrays = [v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for v in output]
        return Features(
            arrays[0].astype(np.float64),
            arrays[1],
            arrays[2].astype(np.float64) if len(arrays) == 3 else None,
            image_size=image_size,
        )
    raise TypeError(
        "an extractor must return (lafs, responses, descriptors), (keypoints, descriptors[, scores]) or Features; "
        f"got {type(output).__name__}"
    )


def fingerprint(image: Tensor) -> str:
    """Digest of the shape and pixel values of an image (1, C, H, W)."""
    digest = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=16)
    digest.update(image.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
