"""The published networks of the family in the mix: DeepDesc, LIFT's descriptor, TILDE, the learned orientation.

    kornia-lift convert CNN3_p8_n8_split4_073000.t7 --out WEIGHTS/deepdesc.safetensors
    kornia-lift convert new-CNN3-picc-iter-56k.h5 --out WEIGHTS/lift-descriptor.safetensors
    kornia-lift convert Mexico24.txt --out WEIGHTS/tilde.safetensors
    kornia-lift convert efsift --out WEIGHTS/learned-orientation.safetensors
    python -m benchmarks.parts.originals --weights WEIGHTS --cache CACHE

Each published part takes the place of one of the paper's parts in the shipped model, and all of them together stand
where LIFT started. The scenes, pairs and measures are those of benchmarks/accuracy.py. Writes
benchmarks/results/parts/originals.json, the table beside it, and its rows into docs/family.md; each row is saved as
soon as it is measured, and ``--resume`` continues.

Support regions are those of the releases, nothing was chosen on these scenes: the orientation sees 8 sigma around the
keypoint, the descriptors the paper's box of 12 sigma; the shipped descriptor sees 18.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kornia.feature import LAFDescriptor
from torch import Tensor, nn

from benchmarks.pages.marks import put_between
from kornia_lift import LIFTDetector, ScaleSpaceConfig, mix_features
from kornia_lift._gray import as_gray
from kornia_lift._io import atomic_write
from kornia_lift.convert import load_converted
from kornia_lift.detector.scale_space import LEVEL_SIGMA
from kornia_lift.evaluation.candidates import Candidate, candidate, lift_candidate
from kornia_lift.evaluation.comparison import run
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.report.blocks import to_markdown
from kornia_lift.evaluation.report.results import Results, merge
from kornia_lift.evaluation.report.tables import report
from kornia_lift.feature.patches import PatchOrienter
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.scenes.folders import HOMOGRAPHY, POSED, load_scenes

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results" / "parts"
DOCS = ROOT / "docs" / "family.md"
TITLE = "Published networks in the mix"
BASELINE = "lift + lift + lift"
ORIENTATION_CONTEXT = 8 / LAF_SCALE_PER_SIGMA  # the release cuts 8 sigma to each side, a frame 6.1
PAPER = 1.0  # support region over 12 sigma
#: Columns of the short table: group, measure, heading, digits.
COLUMNS = (
    (POSED, "correct_matches", "correct matches, posed", 0),
    (POSED, "matching_score", "matching score", 3),
    (POSED, "pose_auc_5", "pose AUC@5°", 3),
    (HOMOGRAPHY, "correct_matches", "correct matches, homographies", 0),
    (HOMOGRAPHY, "matching_score", "matching score", 3),
    (HOMOGRAPHY, "homography_auc_5", "AUC@5 px", 3),
)


def main() -> int:
    args = _parse()
    groups = {name: scenes for name, scenes in load_scenes([args.data]).items() if name in (POSED, HOMOGRAPHY)}
    path = args.results / "originals.json"
    done = {f.name for f in Results.load(path).features} if args.resume and path.exists() else set()
    entries = _candidates(args.weights, args.model)
    for entry in entries:
        if entry.name in done:
            continue
        results = run(TITLE, [entry], groups, args.cache, options=Options(1000), progress=_say)
        (merge(Results.load(path), results) if path.exists() else results).save(path)
    results = Results.load(path)
    rank = {entry.name: k for k, entry in enumerate(entries)}
    results = replace(results, features=sorted(results.features, key=lambda f: rank.get(f.name, len(rank))))
    results.save(path)
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(to_markdown(report(results, baseline=BASELINE)))
    table = short_table(results)
    put_between(DOCS, "originals", table)
    print(table)
    return 0


class OnGray(nn.Module):
    """A response that sees gray values only, as all other features here, though it could see colours."""

    def __init__(self, response: nn.Module) -> None:
        super().__init__()
        self.response = response

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.response(as_gray(image))
        return found


def short_table(results: Results) -> str:
    """The columns of the documentation, in Markdown."""
    lines = [
        "| detector + orientation + descriptor | " + " | ".join(column[2] for column in COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for feature in results.features:
        estimates = [(feature.estimate(group, measure), digits) for group, measure, _, digits in COLUMNS]
        cells = ["–" if e is None else f"{e.value:.{digits}f}" for e, digits in estimates]
        lines.append(f"| {feature.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _candidates(weights: Path, model: str) -> list[Candidate]:
    """One row per mixture; the parts are named as in the title."""

    def load(name: str) -> nn.Module:
        return load_converted(weights / f"{name}.safetensors")

    def tilde(n: int, one_scale: bool = False, colour: bool = False) -> nn.Module:
        config = ScaleSpaceConfig(min_sigma=LEVEL_SIGMA, max_sigma=LEVEL_SIGMA) if one_scale else None
        response = load("tilde")
        return LIFTDetector(n, config, resp_module=response if colour else OnGray(response))

    def learned() -> nn.Module:
        return PatchOrienter(load("learned-orientation"), ORIENTATION_CONTEXT)

    def described(name: str) -> nn.Module:
        return LAFDescriptor(load(name), patch_size=64)

    def mix(region: float | None = None, **parts: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        return lambda n: mix_features(
            **{"detector": LIFTDetector(n, pretrained=model), **{k: part(n) for k, part in parts.items()}},
            num_features=n,
            scale_laf=region,
            pretrained=model,
        )

    rows: Sequence[tuple[str, Callable[[int], nn.Module]]] = (
        (BASELINE, mix()),
        ("TILDE + lift + lift", mix(detector=tilde)),
        ("TILDE in colour + lift + lift", mix(detector=lambda n: tilde(n, colour=True))),
        ("TILDE at one scale + lift + lift", mix(detector=lambda n: tilde(n, one_scale=True))),
        ("lift + learned orientation + lift", mix(orientation=lambda n: learned())),
        ("lift + lift + DeepDesc", mix(PAPER, descriptor=lambda n: described("deepdesc"))),
        ("lift + lift + LIFT 2016", mix(PAPER, descriptor=lambda n: described("lift-descriptor"))),
        (
            "TILDE + learned orientation + DeepDesc",
            mix(PAPER, detector=tilde, orientation=lambda n: learned(), descriptor=lambda n: described("deepdesc")),
        ),
    )
    return [candidate("opencv-sift"), *(lift_candidate(name, build) for name, build in rows)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the converted files")
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--model", default="lift", help="shipped model that gives the other parts")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="measure only what the result file lacks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
