"""Weights measured on held-out pairs by the one evaluator, and which of two weights are the better ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kornia_lift._checks import Device, check_device
from kornia_lift.evaluation.features.extraction import ExtractedFeatures
from kornia_lift.evaluation.features.peers import Extractor, local_feature, opencv_sift
from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.measures.statistics import FEWEST_PAIRS, compare
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.results import FeatureResults, Results, describe_options, provenance
from kornia_lift.evaluation.runner import SKIPPED, PairResult, evaluate
from kornia_lift.feature import feature_of
from kornia_lift.files import UnreadableImageError
from kornia_lift.scenes.scene import Scene
from kornia_lift.training.data.store import Store
from kornia_lift.training.held_out.scenes import HeldOutConfig, describe_pairs, held_out_scenes
from kornia_lift.training.initial import weights_digest
from kornia_lift.training.watch import Watch
from kornia_lift.weights import is_upright

CACHE = "held_out.json"
SIFT = "opencv-sift"
_COUNTS = ("correct_matches", "epipolar_matches")
_ACCURACY = ("pose_auc_10", "homography_auc_5")


@dataclass(frozen=True)
class Verdict:
    """Whether weights match held-out images at least as well as those before them.

    Args:
        correct: correct matches of all pairs together, before and after.
        accuracy: mean over the pairs of the area under the curve of pose errors up to 10 degrees, or of homography
            errors up to 5 pixels; before and after.
        accuracy_fell: the second fell, by more than the choice of pairs explains.
        clear: whether the interval of the change of correct matches leaves out zero.
        pairs: number of pairs.

    """

    correct: tuple[float, float]
    accuracy: tuple[float, float]
    accuracy_fell: bool
    clear: bool
    pairs: int

    @property
    def accepted(self) -> bool:
        """At least as many correct matches, and no clear loss of accuracy."""
        return self.correct[1] >= self.correct[0] and not self.accuracy_fell

    @property
    def unchanged(self) -> bool:
        """Both figures are what they were, as those of weights that were not changed are."""
        return self.correct[0] == self.correct[1] and self.accuracy[0] == self.accuracy[1]

    def as_text(self) -> str:
        """Return the figures in a line."""
        unclear = "" if self.clear else f"; a difference that {self.pairs} pairs are too few to tell from chance"
        if self.unchanged:
            unclear = ""
        return (
            f"correct matches of the {self.pairs} held-out pairs {self.correct[0]:.0f} before, {self.correct[1]:.0f} "
            f"after; accuracy of pose or homography {self.accuracy[0]:.2f}, {self.accuracy[1]:.2f}{unclear}"
        )


def judge(before: FeatureResults, after: FeatureResults) -> Verdict:
    """Compare what two weights scored on the same pairs."""
    tables = [_by_pair(results) for results in (before, after)]
    shared = [key for key in tables[0] if key in tables[1]]
    counts = [np.array([table[key][0] for key in shared]) for table in tables]
    accuracies = [np.array([table[key][1] for key in shared]) for table in tables]
    fell = change = 0.0
    clear = False
    if len(shared) >= FEWEST_PAIRS:
        fell = compare({"": accuracies[1]}, {"": accuracies[0]}).difference.high
        change = float(counts[1].mean() - counts[0].mean())
        clear = compare({"": counts[1]}, {"": counts[0]}).verdict != "undecided" and change != 0
    means = [float(a.mean()) if len(a) else 0.0 for a in accuracies]
    return Verdict((float(counts[0].sum()), float(counts[1].sum())), (means[0], means[1]), fell < 0, clear, len(shared))


def _by_pair(results: FeatureResults) -> dict[tuple[str, ...], tuple[float, float]]:
    """Correct matches and accuracy of each pair that was measured."""
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    for group, pairs in results.pairs.items():
        for pair in pairs:
            if pair.status != SKIPPED:
                count = next((pair.values[m] for m in _COUNTS if m in pair.values), 0.0)
                accuracy = next((pair.values[m] for m in _ACCURACY if m in pair.values), 0.0)
                found[group, pair.scene, pair.first, pair.second] = count, accuracy
    return found


class Referee:
    """Measures weights on the held-out pairs of a training, and remembers what it measured in the folder of the run.

    Args:
        store: the held-out data.
        out: folder of the run.
        config: which pairs.
        device: where features are computed.
        say: called with a line of text before each measurement, and from time to time meanwhile.

    Raises:
        ValueError: if this machine has no such device.

    """

    def __init__(
        self,
        store: Store,
        out: Path,
        config: HeldOutConfig | None = None,
        device: Device = "cpu",
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.config, self._say = config or HeldOutConfig(), say
        self.device = check_device(device, type(self).__name__)
        self.groups: Mapping[str, Sequence[Scene]] = held_out_scenes(store, self.config)
        self._options = Options(self.config.num_features, estimator=Estimator())
        self._path = out / CACHE
        self._about = {**describe_options(self._options), "pairs_sha256": describe_pairs(store, self.config)}
        self._known = self._read()

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return sum(len(scene.pairs) for scenes in self.groups.values() for scene in scenes)

    def measure(self, name: str, model: str | Path, affine: bool = False) -> FeatureResults:
        """Measure a model, or return what was measured of the same weights before.

        Args:
            name: what it is called in the results.
            model: see :func:`~kornia_lift.feature.feature_of`, or :data:`SIFT`.
            affine: with affine shapes; SIFT has none.

        Raises:
            WeightFileError: if the weights do not load into the feature.

        """
        identity = f"peer {model}" if model == SIFT else _identity(model, affine)
        if identity not in self._known:
            self._say(f"measuring {name} on {self.pairs} held-out pairs")
            pairs = self._evaluate(
                self.extractor(model, affine), Watch(lambda done: self._say(f"measuring {name}: {done}"))
            )
            self._known[identity] = FeatureResults(name, pairs, {"identity": identity})
            self._write()
            self._known = self._read()  # rounded as a resumed run reads it, so that both decide alike
        return replace(self._known[identity], name=name)

    def _evaluate(self, extract: Extractor, watch: Watch) -> dict[str, list[PairResult]]:
        """Extract the features of all images, which takes most of the time, then score the pairs."""
        count = self.config.num_features
        sources = {group: ExtractedFeatures(extract, scenes, count) for group, scenes in self.groups.items()}
        images = [
            (sources[group], scene.name, scene.names[k])
            for group, scenes in self.groups.items()
            for scene in scenes
            for k in sorted({k for pair in scene.pairs for k in (pair.i, pair.j)})
        ]
        for source, scene_name, image in watch(images, "images"):
            with suppress(UnreadableImageError):  # its pairs are skipped below
                source.read(scene_name, image)
        return {
            group: [
                result
                for scene in watch(scenes, "scenes scored")
                for result in evaluate(sources[group], [scene], self._options)
            ]
            for group, scenes in self.groups.items()
        }

    def extractor(self, model: str | Path, affine: bool = False) -> Extractor:
        """Return a function from an image to the features of a model, on the CPU; see :meth:`measure`."""
        count = self.config.num_features
        if model == SIFT:
            return opencv_sift(count)
        found = local_feature(feature_of(str(model), count, affine=affine).to(self.device), count)

        def extract(image: Tensor) -> Any:
            return found(image.to(self.device))

        return extract

    def results(self, title: str, rows: Sequence[FeatureResults]) -> Results:
        """Measured rows as the results of an evaluation."""
        return Results(title, rows, self._about, provenance())

    def _read(self) -> dict[str, FeatureResults]:
        if not self._path.is_file():
            return {}
        try:
            stored = Results.load(self._path)
        except ValueError:  # damaged: it is measured again
            return {}
        if dict(stored.options) != self._about:
            return {}
        return {str(row.options.get("identity")): row for row in stored.features}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.results("Held-out pairs of a training", list(self._known.values())).save(self._path)


def _identity(model: str | Path, affine: bool) -> str:
    """Identity of a model: its weights, wherever their file lies, and how they are run."""
    return f"weights {weights_digest(model)}{' upright' * is_upright(model)}{' affine' * affine}"
