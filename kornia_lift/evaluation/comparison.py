"""Several features on the same scenes: extract what the cache lacks, evaluate, collect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_lift.evaluation.candidates import Candidate, check_names
from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.features.peers import Extractor
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.results import FeatureResults, Results, describe_options, provenance
from kornia_lift.evaluation.report.sfm_report import SfmResults
from kornia_lift.evaluation.runner import evaluate
from kornia_lift.evaluation.selection import all_pairs
from kornia_lift.evaluation.sfm import SfmOptions, reconstruct_scene
from kornia_lift.scenes.scene import Scene

Groups = Mapping[str, Sequence[Scene]]


def run(
    title: str,
    candidates: Sequence[Candidate],
    groups: Groups,
    cache: Path,
    *,
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Extract what the cache lacks, then evaluate.

    Args:
        title: title of the report.
        candidates: features to measure.
        groups: scenes by group.
        cache: folder for features; made if it does not exist. Features are used again only for an image of the same
            pixels.
        options: what to measure.
        progress: called with a line of text for each image that is extracted.

    Raises:
        FeatureFileError: if a feature file cannot be used, or different images or features have one name.
        FileNotFoundError: if a feature file does not exist.
    """
    check_names(candidates)
    options = options or Options()
    rows = []
    for entry in candidates:
        fill_cache(entry, groups, cache, options.num_features, progress=progress)
        with open_features(entry, cache, options.num_features) as source:
            pairs = {name: evaluate(source, scenes, options) for name, scenes in groups.items()}
        rows.append(FeatureResults(entry.name, pairs, source.options))
    return Results(title, rows, describe_options(options), provenance())


def run_sfm(
    candidates: Sequence[Candidate],
    scenes: Sequence[Scene],
    cache: Path,
    *,
    options: SfmOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> SfmResults:
    """Reconstruct posed scenes from several features, with known and with unknown intrinsics.

    Args:
        candidates: features to measure.
        scenes: scenes with cameras.
        cache: folder for features, as for :func:`run`.
        options: of the reconstruction; ``known_intrinsics`` is not read.
        progress: called with a line of text for each step.

    Raises:
        FeatureFileError: if a feature file cannot be used, or different images or features have one name.
        ValueError: if a scene has no cameras.
    """
    check_names(candidates)
    options = options or SfmOptions()
    scenes = [all_pairs(scene) for scene in scenes]
    rows = {}
    for entry in candidates:
        fill_cache(entry, {"": scenes}, cache, options.num_features, progress=progress)
        with open_features(entry, cache, options.num_features) as source:
            rows[entry.name] = [
                reconstruct_scene(source, scene, replace(options, known_intrinsics=known), progress=progress)
                for scene in scenes
                for known in (True, False)
            ]
    stored = asdict(options) | {"pycolmap": metadata.version("pycolmap")}
    del stored["known_intrinsics"], stored["threads"]
    return SfmResults(rows, stored, provenance())


def fill_cache(
    entry: Candidate,
    groups: Groups,
    cache: Path,
    num_features: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> int:
    """Extract what the cache lacks of one feature; nothing for a feature that comes from a file.

    Args:
        entry: the feature.
        groups: scenes by group.
        cache: folder for features.
        num_features: keypoints per image.
        progress: see :func:`run`.

    Returns:
        How many images were extracted.
    """
    if entry.build is None:
        return 0
    cache.mkdir(parents=True, exist_ok=True)
    path = feature_path(cache, entry, num_features)
    scenes = [scene for group in groups.values() for scene in group]
    extract, made = _Lazy(entry.build, num_features), {"feature": entry.name, **entry.identity}
    return extract_to_file(extract, scenes, path, num_features=num_features, options=made, progress=progress)


def open_features(entry: Candidate, cache: Path, num_features: int) -> FeatureStore:
    """The features of a candidate, from its own file or the cache; use it as a context manager.

    Raises:
        FeatureFileError: if they cannot be used.
        FileNotFoundError: if the file does not exist.
    """
    return FeatureStore(entry.file or feature_path(cache, entry, num_features))


def feature_path(cache: Path, entry: Candidate, num_features: int) -> Path:
    """File of a candidate's features in the cache: one for each weights, options and number of features."""
    peer = str(entry.identity.get("peer", entry.name))
    marks = [
        peer if peer != entry.name else "",
        str(entry.identity.get("weights_sha256", ""))[:12],
        str(entry.identity.get("options_sha256", ""))[:8],
        str(num_features),
    ]
    safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in entry.name)
    return cache / ("-".join([safe, *filter(None, marks)]) + ".h5")


class _Lazy:
    """Builds the extractor at the first image, so that models that are not needed are not loaded."""

    def __init__(self, build: Callable[[int], Extractor], count: int) -> None:
        self._build, self._count = build, count
        self._extract: Extractor | None = None

    def __call__(self, image: Tensor) -> Any:
        if self._extract is None:
            self._extract = self._build(self._count)
        return self._extract(image)
