"""The comparisons that the LIFT paper prints as tables, and the one it lacks: turned and rescaled photographs."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import kornia.feature as kf
import torch
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.evaluation.features.extraction import extract_to_file
from kornia_lift.evaluation.features.files import FeatureStore
from kornia_lift.evaluation.features.peers import PEERS, Extractor, local_feature
from kornia_lift.evaluation.report.results import (
    FeatureResults,
    Results,
    check_same_options,
    describe_options,
    provenance,
)
from kornia_lift.evaluation.runner import Options, evaluate
from kornia_lift.evaluation.warps import IDENTITY, ImageWarp, warp_scene
from kornia_lift.feature import LIFTFeature
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.mixing import Descriptor, Detector, Orientation, mix_features
from kornia_lift.scenes.folders import UnreadableScene
from kornia_lift.scenes.scene import Scene

Groups = Mapping[str, Sequence[Scene]]

#: Parts of the rows of Table 3: detector, orientation, descriptor.
TABLE3 = [(d, o, r) for d in ("sift", "lift") for o in ("sift", "lift") for r in ("sift", "lift")]

#: Each part of LIFT against others that do the same, the rest the same: detector, orientation, descriptor.
PARTS: tuple[tuple[Detector, Orientation, Descriptor], ...] = (
    ("lift", "lift", "lift"),
    ("dog", "lift", "lift"),
    ("hessian", "lift", "lift"),
    ("keynet", "lift", "lift"),
    ("lift", "dominant", "lift"),
    ("lift", "orinet", "lift"),
    ("lift", "lift", "sift"),
    ("lift", "dominant", "sift"),
    ("lift", "orinet", "sift"),
)


@dataclass(frozen=True)
class Candidate:
    """A feature to be measured.

    Args:
        name: name in the tables.
        build: makes the extractor for a number of features; not called if all images are in the cache.
        file: h5 file of ready features instead of an extractor.
        identity: what tells this feature from others of its name, for example a hash of the weights.
    """

    name: str
    build: Callable[[int], Extractor] | None = None
    file: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def candidate(spec: str) -> Candidate:
    """A feature from text: a peer's name, an h5 file of features, a shipped model or a weight file of LIFT.

    ``NAME=SPEC`` gives it another name in the tables.

    Raises:
        ValueError: if it is none of these.
    """
    label, _, spec = spec.rpartition("=")
    if spec in PEERS:
        return Candidate(label or spec, PEERS[spec], identity={"peer": spec})
    path = Path(spec)
    if path.suffix in (".h5", ".hdf5"):
        if not path.is_file():
            raise ValueError(f"Feature file {path} does not exist.")
        return Candidate(label or path.stem, file=path)
    try:
        feature = LIFTFeature(1, pretrained=spec)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{spec!r} is no feature: expected one of {', '.join(PEERS)}, an h5 file of features, or a LIFT model by "
            f"name or file ({error})."
        ) from None
    name = label or (path.stem if path.suffix else spec)
    return lift_candidate(name, lambda n: LIFTFeature(n, pretrained=spec), feature)


def lift_candidate(name: str, build: Callable[[int], nn.Module], sample: nn.Module | None = None) -> Candidate:
    """A kornia ``LocalFeature`` whose weights and options tell it from others of its name.

    Args:
        name: name in the tables.
        build: makes the feature for a number of keypoints.
        sample: one that was made already.
    """
    sample = sample if sample is not None else build(1)
    identity = {
        "weights_sha256": weights_hash(sample),
        # the printed module shows the options of all parts: the scale space, which no weight tells
        "options_sha256": hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr(sample)).encode()).hexdigest(),
    }
    return Candidate(name, lambda n: local_feature(build(n), n), identity=identity)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers of a module, in their order."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()


def table2(model: str, pretrained_detector: str) -> list[Candidate]:
    """Table 2: the detector after pre-training against the final one, the rest as in ``model``.

    Args:
        model: shipped model or weight file.
        pretrained_detector: weight file that holds the pre-trained detector.
    """

    def early(n: int) -> nn.Module:
        return LIFTFeature(n, pretrained=model, detector=LIFTDetector(n, pretrained=pretrained_detector))

    return [
        lift_candidate("detector pre-trained", early),
        lift_candidate("detector fully trained", lambda n: LIFTFeature(n, pretrained=model)),
    ]


def table3(model: str) -> list[Candidate]:
    """Table 3: every mixture of SIFT's and LIFT's detector, orientation and descriptor.

    SIFT's parts: keypoints and scales of OpenCV, kornia's dominant gradient orientation, kornia's SIFT descriptor.
    """

    def build(parts: tuple[str, str, str]) -> Callable[[int], nn.Module]:
        detector, orientation, descriptor = (p == "lift" for p in parts)

        def make(n: int) -> nn.Module:
            sift = kf.LAFDescriptor(kf.SIFTDescriptor(41, rootsift=False), patch_size=41)
            return mix_features(
                LIFTDetector(n, pretrained=model) if detector else OpenCVSIFTDetector(n),
                "lift" if orientation else "dominant",
                "lift" if descriptor else sift,
                n,
                pretrained=model,
            )

        return make

    return [lift_candidate(" + ".join(p), build(p)) for p in TABLE3]


def parts(model: str) -> list[Candidate]:
    """Each part of LIFT exchanged for kornia's: ``dog`` and ``hessian`` are ``ScaleSpaceDetector``.

    The names are those of :func:`~kornia_lift.mix_features`; ``sift`` is RootSIFT here.
    """

    def build(names: tuple[Detector, Orientation, Descriptor]) -> Callable[[int], nn.Module]:
        return lambda n: mix_features(*names, n, pretrained=model)

    return [lift_candidate(" + ".join(names), build(names)) for names in PARTS]


class OpenCVSIFTDetector(nn.Module):
    """Keypoints and scales of OpenCV SIFT as upright frames, one per place: the detector alone, without orientation.

    Args:
        num_features: number of slots; the keypoints of highest response.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames (1, N, 2, 3) and responses (1, N) of an image (1, 1, H, W) in [0, 1]."""
        if mask is not None:
            raise ValueError("This detector takes no mask.")
        lafs, responses = image.new_zeros(1, self.num_features, 2, 3), image.new_zeros(1, self.num_features)
        gray = (image[0, 0] * 255).round().clamp(0, 255).byte().cpu().numpy()
        found = require("cv2", extra="eval").SIFT_create().detect(gray, None)
        # SIFT repeats a keypoint for every strong orientation.
        unique = {(k.pt, k.size): k for k in sorted(found, key=lambda k: k.response)}
        best = sorted(unique.values(), key=lambda k: -k.response)[: self.num_features]
        if best:
            centres = torch.tensor([k.pt for k in best], dtype=image.dtype)[None]
            sigma = torch.tensor([k.size / 2 for k in best], dtype=image.dtype)[None]
            lafs[:, : len(best)] = lafs_from_lift(centres, sigma, torch.zeros_like(sigma)).to(image)
            responses[0, : len(best)] = torch.tensor([k.response for k in best], dtype=image.dtype)
        return lafs, responses


def warped_groups(scenes: Sequence[Scene], warps: Sequence[ImageWarp]) -> dict[str, list[Scene]]:
    """The robustness protocol: for the upright photographs and each warp of the second one, a group of scenes."""
    groups: dict[str, list[Scene]] = {IDENTITY.label: list(scenes)}
    groups |= {warp.label: [warp_scene(scene, warp) for scene in scenes] for warp in warps}
    return groups


def only_second_images(scene: Scene, names: Sequence[str]) -> Scene:
    """The same scene with only those pairs, evaluated and skipped, whose second image has one of these names.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(scene, UnreadableScene):
        return scene  # its images are not known
    restricted = copy.copy(scene)
    pairs = tuple(p for p in scene.pairs if scene.names[p.j] in names)
    skipped = tuple(p for p in scene.skipped if scene.names[p.j] in names)
    if not pairs and not skipped:
        raise ValueError(f"{scene.name} has no pair with a second image among {', '.join(names)}.")
    restricted.pairs = pairs  # type: ignore[misc]
    restricted.skipped = skipped  # type: ignore[misc]
    return restricted


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
        cache: folder for feature files; made if it does not exist. Features are used again only for an image of the
            same pixels.
        options: what to measure.
        progress: told about each image that is extracted.

    Raises:
        FeatureFileError: if a feature file cannot be used, or different images have one name.
        FileNotFoundError: if a feature file does not exist.
    """
    options = options or Options()
    cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for entry in candidates:
        path = entry.file or feature_path(cache, entry, options.num_features)
        if entry.build is not None:
            made = {"feature": entry.name, **entry.identity}
            scenes = [scene for group in groups.values() for scene in group]
            extract = _Lazy(entry.build, options.num_features)
            extract_to_file(extract, scenes, path, num_features=options.num_features, options=made, progress=progress)
        with FeatureStore(path) as store:
            pairs = {name: evaluate(store, scenes, options) for name, scenes in groups.items()}
            rows.append(FeatureResults(entry.name, pairs, store.options))
    return Results(title, rows, describe_options(options), provenance())


def merge(first: Results, second: Results) -> Results:
    """Rows of both; where a feature is in both, the row of ``second``.

    Raises:
        ValueError: if they were measured with other options.
    """
    check_same_options(first, second)
    newer = {f.name: f for f in second.features}
    rows = [newer.pop(f.name, f) for f in first.features]
    return replace(second, title=first.title, features=[*rows, *newer.values()])


def feature_path(cache: Path, entry: Candidate, num_features: int) -> Path:
    """File of a candidate's features in a cache folder; other weights, options or numbers of features, another file."""
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
    """Builds the extractor at the first image: models that are not needed are not loaded."""

    def __init__(self, build: Callable[[int], Extractor], count: int) -> None:
        self._build, self._count = build, count
        self._extract: Extractor | None = None

    def __call__(self, image: Tensor) -> Any:
        if self._extract is None:
            self._extract = self._build(self._count)
        return self._extract(image)
