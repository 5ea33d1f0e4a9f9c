"""Results as a file: every pair of every feature, the means with their intervals, and what made them."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._io import atomic_write, read_json
from kornia_lift.evaluation.measures.statistics import Comparison, Estimate, bootstrap_mean, compare
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import FAILED, OK, SKIPPED, PairResult, values_by_scene
from kornia_lift.scenes.scene import FloatArray

FORMAT = "kornia_lift.evaluation/1"
MAX_BYTES = 2**28  # of a result file; ten features on the test scenes take 2 MB
#: Suffix of the names of errors: smaller is better, and a pair may have none.
ERROR_SUFFIX = "_error"
#: Other measures where smaller is better.
SMALLER_IS_BETTER = frozenset({"crowding"})
#: What to compare where a pair has no error, because no match of it is correct.
_COUNTED_INSTEAD = {"median_error": "correct_matches", "median_epipolar_error": "epipolar_matches"}


@dataclass(frozen=True)
class FeatureResults:
    """What one feature scored.

    Attributes:
        name: name of the feature.
        pairs: results by group of scenes (for example ``posed`` and ``homography``).
        options: what the features were made with, as stored in their file.
    """

    name: str
    pairs: Mapping[str, Sequence[PairResult]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def measures(self, group: str) -> list[str]:
        """Names of the measures of a group, in the order they were taken."""
        return list(dict.fromkeys(m for pair in self.pairs.get(group, ()) for m in pair.values))

    def values(self, group: str, measure: str) -> dict[str, FloatArray]:
        """Values by scene."""
        return values_by_scene(self.pairs.get(group, ()), measure)

    def estimate(self, group: str, measure: str) -> Estimate | None:
        """Mean over scenes with its 95 % interval; None if the group lacks the measure, or a value is infinite."""
        values = self.values(group, measure)
        if not values or not all(np.isfinite(v).all() for v in values.values()):
            return None
        return bootstrap_mean(values)

    def counts(self, group: str) -> dict[str, int]:
        """How many pairs were evaluated, failed and skipped."""
        status = [p.status for p in self.pairs.get(group, ())]
        return {
            "pairs": len(status) - status.count(SKIPPED),
            "failed": status.count(FAILED),
            "skipped": status.count(SKIPPED),
        }


@dataclass(frozen=True)
class Results:
    """What several features scored on the same pairs.

    Attributes:
        title: what was done, for example the protocol.
        features: one entry per feature.
        options: of the evaluation.
        provenance: versions, machine, time.
    """

    title: str
    features: Sequence[FeatureResults]
    options: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def groups(self) -> list[str]:
        """Groups of scenes, in order."""
        return list(dict.fromkeys(g for f in self.features for g in f.pairs))

    def feature(self, name: str) -> FeatureResults:
        """One feature by name.

        Raises:
            KeyError: if there is none of this name.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"no feature {name!r}; available: {', '.join(f.name for f in self.features)}")

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        content = {
            "format": FORMAT,
            "title": self.title,
            "options": dict(self.options),
            "provenance": dict(self.provenance),
            "features": [_to_dict(f) for f in self.features],
        }
        text = json.dumps(content, allow_nan=False) + "\n"
        with atomic_write(path) as temporary:
            Path(temporary).write_text(text)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read JSON that :meth:`save` wrote.

        Raises:
            ValueError: if it is something else.
        """
        content = read_json(Path(path), MAX_BYTES)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} is not a result file of the evaluation (format {FORMAT})")
        try:
            features = [_from_dict(f) for f in content["features"]]
            title, options, made = str(content["title"]), dict(content["options"]), dict(content["provenance"])
            if not _is_number(options.get("threshold", 0)):
                raise ValueError("options.threshold is not a number")
            if not isinstance(made.get("versions", {}), dict):
                raise ValueError("provenance.versions is not a table")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is a damaged result file: {type(error).__name__}: {error}") from None
        return cls(title, features, options, made)


def merge(first: Results, second: Results) -> Results:
    """Rows of both; where a feature is in both, the row of ``second``.

    Raises:
        ValueError: if they were measured with other options.
    """
    check_same_options(first, second)
    newer = {f.name: f for f in second.features}
    rows = [newer.pop(f.name, f) for f in first.features]
    return replace(second, title=first.title, features=[*rows, *newer.values()])


def compare_features(first: FeatureResults, second: FeatureResults, group: str, measure: str) -> Comparison:
    """Whether ``first`` beats ``second``, on the pairs that both were measured on.

    For errors and for crowding, smaller is better.

    Raises:
        ValueError: if they share no pair with this measure; or if an error has no mean, because it is infinite (a pair
            without an estimate) or missing (a failed pair): compare the area under the curve instead.
    """
    is_error, smaller = measure.endswith(ERROR_SUFFIX), smaller_is_better(measure)
    tables = [
        {(p.scene, p.first, p.second): p.values[measure] for p in f.pairs.get(group, ()) if measure in p.values}
        for f in (first, second)
    ]
    shared = [k for k in tables[0] if k in tables[1]]
    if not shared:
        raise ValueError(f"{first.name} and {second.name} share no pair of {group!r} with the measure {measure!r}")
    if is_error:
        for feature, table in zip((first, second), tables, strict=True):
            failed = sum(p.status == FAILED for p in feature.pairs[group])
            lacking = failed + sum(not np.isfinite(v) for v in table.values())
            if lacking:
                instead = _COUNTED_INSTEAD.get(measure, measure.replace(ERROR_SUFFIX, "_auc_5"))
                raise ValueError(
                    f"{measure} has no mean in {group!r}: {feature.name} has no estimate for {lacking} pairs; compare "
                    f"{instead}, where they count as zero"
                )
    by_scene: list[dict[str, FloatArray]] = []
    for table in tables:
        found: dict[str, list[float]] = {}
        for key in shared:
            found.setdefault(key[0], []).append(table[key])
        by_scene.append({scene: np.array(values) for scene, values in found.items()})
    return compare(by_scene[0], by_scene[1], lower_is_better=smaller)


def smaller_is_better(measure: str) -> bool:
    """Whether the smaller value of a measure is the better one."""
    return measure.endswith(ERROR_SUFFIX) or measure in SMALLER_IS_BETTER


def check_same_options(first: Results, second: Results) -> None:
    """Make sure that two results may be compared.

    Raises:
        ValueError: if they were measured with other options, naming those that differ.
    """
    one, other = dict(first.options), dict(second.options)
    different = [k for k in dict.fromkeys([*one, *other]) if one.get(k) != other.get(k)]
    if different:
        raise ValueError(
            "the two results were measured with different options: "
            + "; ".join(f"{k} {one.get(k)!r} and {other.get(k)!r}" for k in different)
        )


def describe_options(options: Options) -> dict[str, Any]:
    """Options of the evaluation as plain values, with the estimator in words."""
    # without the option, as in files from before there was one: these stay comparable
    plain = {name: value for name, value in asdict(options).items() if name != "refine" or value}
    plain["estimator_label"] = options.estimator.label if options.estimator else None
    return dict(json.loads(json.dumps(plain)))  # as JSON gives them back: options of a file and of a run compare


def provenance(root: Path | None = None) -> dict[str, Any]:
    """Versions, commit and machine of this run.

    Args:
        root: folder whose git commit is recorded; that of this package by default.
    """
    packages = ("kornia_lift", "torch", "kornia", "numpy", "opencv-python-headless", "opencv-python", "h5py")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(root or Path(__file__).parent),
        "versions": versions,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {processor_name()}",
    }


def _commit(folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def processor_name() -> str:
    """Return the model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _to_dict(feature: FeatureResults) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for group in feature.pairs:
        # an infinite error, of a pair without an estimate, has no mean
        estimates = {m: e for m in feature.measures(group) if (e := feature.estimate(group, m)) is not None}
        summary[group] = {
            "counts": feature.counts(group),
            "mean": {m: {k: round(v, 5) for k, v in asdict(e).items()} for m, e in estimates.items()},
        }
    return {
        "name": feature.name,
        "options": dict(feature.options),
        "summary": summary,
        "pairs": {group: [p.as_dict() for p in pairs] for group, pairs in feature.pairs.items()},
    }


def _from_dict(content: dict[str, Any]) -> FeatureResults:
    groups = {group: [_pair(p) for p in pairs] for group, pairs in content["pairs"].items()}
    name, options = content["name"], content["options"]
    if not isinstance(name, str) or not isinstance(options, dict):
        raise ValueError("a feature whose name is not text, or whose options are not a table")
    return FeatureResults(name, groups, options)


def _pair(content: dict[str, Any]) -> PairResult:
    scene, first, second, status, reason = (content[k] for k in ("scene", "first", "second", "status", "reason"))
    if not all(isinstance(text, str) for text in (scene, first, second, reason)) or status not in (OK, FAILED, SKIPPED):
        raise ValueError("a pair whose names, status or reason are not texts")
    values, angle = content["values"], content["angle_deg"]
    numbers = [value for value in [*values.values(), angle] if value is not None]
    if not all(map(_is_number, numbers)):
        raise ValueError("a pair with a value that is not a finite number")
    # null stands for infinity, which JSON does not have
    found = {measure: float("inf") if value is None else float(value) for measure, value in values.items()}
    return PairResult(scene, first, second, status, reason, found, angle)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2.0**53
