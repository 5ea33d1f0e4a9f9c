"""``kornia-lift evaluate`` and ``kornia-lift compare``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift._io import atomic_write

if TYPE_CHECKING:
    from kornia_lift.evaluation.candidates import Candidate
    from kornia_lift.evaluation.measures.statistics import Comparison
    from kornia_lift.scenes.scene import Scene

_PROTOCOLS = ("table1", "table2", "table3", "robustness", "sfm")


def add_evaluate_parser(subparsers: Any) -> None:
    """Add the commands ``evaluate`` and ``compare``; each sets ``run``, from parsed arguments to an exit code."""
    _add_evaluate(subparsers)
    _add_compare(subparsers)


def _add_evaluate(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure features on scenes with known geometry",
        description="Measure features on scenes with known geometry: homography sequences (images 1..n, H_1_k) and "
        "posed scenes with depth (cameras.npz, images/, depth/). Writes results.json, report.md and report.html.",
    )
    parser.add_argument("scenes", nargs="+", metavar="FOLDER", help="scene, or folder of scenes")
    parser.add_argument(
        "-f",
        "--features",
        nargs="+",
        default=["opencv-sift", "lift"],
        metavar="FEATURE",
        help="a name (lift, opencv-sift, aliked-n16, ...), a LIFT weight file, or an h5 file of features; NAME=FEATURE "
        "renames it (default: %(default)s)",
    )
    parser.add_argument(
        "-p",
        "--protocol",
        choices=_PROTOCOLS,
        default="table1",
        help="table1: the features side by side; table2: detector pre-trained against final; table3: each part "
        "exchanged for SIFT's; robustness: the second image rotated and rescaled; sfm: posed scenes reconstructed with "
        "pycolmap (default: %(default)s)",
    )
    parser.add_argument(
        "-n", "--num-features", type=int, metavar="N", help="keypoints per image (default: 1000, of sfm 2000)"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="for the report")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="for extracted features (default: OUT/features)")
    parser.add_argument("--model", default="lift", help="LIFT model of table2 and table3 (default: %(default)s)")
    parser.add_argument("--pretrained-detector", metavar="FILE", help="weights of the pre-trained detector, for table2")
    parser.add_argument(
        "--second-images", nargs="+", metavar="NAME", help="only pairs with one of these as second image"
    )
    parser.add_argument(
        "--max-pairs", type=int, default=0, metavar="N", help="at most N pairs per scene, spread over their overlap"
    )
    parser.add_argument("--overlap", action="store_true", help="also the overlap form, 40 and 50 %%, both conventions")
    parser.add_argument("--no-geometry", action="store_true", help="leave out poses and homographies")
    parser.add_argument("--no-page", action="store_true", help="leave out the page with pictures")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing while extracting")
    parser.set_defaults(run=run_evaluate)


def _add_compare(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="say whether one feature beats another",
        description="Paired bootstrap over the pairs that both features were measured on.",
    )
    parser.add_argument("results", type=Path, help="results.json of `evaluate`")
    parser.add_argument("first", metavar="A", help="name of a feature")
    parser.add_argument("second", metavar="B", help="name of a feature")
    parser.add_argument("--other", type=Path, metavar="RESULTS", help="results.json that holds B, if it is another")
    parser.add_argument("-m", "--measure", nargs="+", default=["correct_matches", "matching_score"])
    parser.set_defaults(run=run_compare)


def run_evaluate(args: argparse.Namespace) -> int:
    """Extract, evaluate, report. Returns 1 if a pair failed or was skipped, else 0."""
    from kornia_lift.evaluation.candidates import candidate
    from kornia_lift.evaluation.comparison import run
    from kornia_lift.evaluation.features.files import FeatureFileError
    from kornia_lift.evaluation.measures.overlap import OverlapOptions
    from kornia_lift.evaluation.paper_tables import table2, table3
    from kornia_lift.evaluation.report.blocks import Heading, to_markdown
    from kornia_lift.evaluation.report.page import write_page
    from kornia_lift.evaluation.report.tables import report, warps_table
    from kornia_lift.evaluation.runner import Estimator, Options
    from kornia_lift.evaluation.selection import only_second_images, spread_pairs, warped_groups
    from kornia_lift.evaluation.warps import RESCALES, ROTATIONS
    from kornia_lift.scenes.folders import load_scenes

    count = args.num_features if args.num_features is not None else 2000 if args.protocol == "sfm" else 1000
    if count < 1:
        raise _fault(f"--num-features must be at least 1, got {count}")
    try:
        groups = load_scenes(args.scenes)
        if args.protocol == "table2":
            if args.pretrained_detector is None:
                raise _fault("table2 needs --pretrained-detector FILE")
            candidates = table2(args.model, args.pretrained_detector)
        elif args.protocol == "table3":
            candidates = table3(args.model)
        else:
            candidates = [candidate(spec) for spec in args.features]
        if args.second_images:
            groups = {g: [only_second_images(s, args.second_images) for s in scenes] for g, scenes in groups.items()}
        if args.max_pairs:
            groups = {g: [spread_pairs(s, args.max_pairs) for s in scenes] for g, scenes in groups.items()}
        if args.protocol == "robustness":
            scenes = [scene for group in groups.values() for scene in group]
            groups = warped_groups(scenes, (*ROTATIONS, *RESCALES))
    except ValueError as error:
        raise _fault(str(error)) from error
    if args.protocol == "sfm":
        return _run_sfm(args, candidates, groups, count)
    overlap = tuple(OverlapOptions(e, n) for n in (False, True) for e in (40.0, 50.0)) if args.overlap else ()
    geometry = not args.no_geometry and args.protocol != "robustness"
    options = Options(count, estimator=Estimator() if geometry else None, overlap=overlap)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        results = run(
            f"Evaluation: {args.protocol}",
            candidates,
            groups,
            args.cache or args.out / "features",
            options=options,
            progress=None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True),
        )
    except FeatureFileError as error:
        raise _fault(str(error)) from error
    results.save(args.out / "results.json")
    baseline = "opencv-sift" if any(f.name == "opencv-sift" for f in results.features) else None
    blocks = report(results, baseline=baseline)
    if args.protocol == "robustness":
        blocks += [Heading("By warp of the second image"), warps_table(results)]
    text = to_markdown(blocks)
    with atomic_write(args.out / "report.md") as temporary:
        temporary.write_text(text)
    if not args.no_page and args.protocol != "robustness":
        write_page(args.out / "report.html", results, groups, args.cache or args.out / "features", candidates)
    print(text)
    counts = [f.counts(g) for f in results.features for g in results.groups]
    return int(any(c["failed"] or c["skipped"] for c in counts))


def _run_sfm(
    args: argparse.Namespace, candidates: Sequence[Candidate], groups: Mapping[str, Sequence[Scene]], count: int
) -> int:
    """Reconstruct every scene with cameras from every feature. Returns 1 if a scene has no model, else 0."""
    from kornia_lift.evaluation.comparison import run_sfm
    from kornia_lift.evaluation.features.files import FeatureFileError
    from kornia_lift.evaluation.report.blocks import to_markdown
    from kornia_lift.evaluation.report.sfm_report import sfm_report
    from kornia_lift.evaluation.sfm import HasCameras, SfmOptions

    scenes = [scene for group in groups.values() for scene in group if isinstance(scene, HasCameras)]
    if not scenes:
        raise _fault("sfm needs scenes with cameras, and there is none in these folders")
    args.out.mkdir(parents=True, exist_ok=True)
    say = None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True)
    try:
        results = run_sfm(
            candidates, scenes, args.cache or args.out / "features", options=SfmOptions(count), progress=say
        )
    except FeatureFileError as error:
        raise _fault(str(error)) from error
    results.save(args.out / "results.json")
    text = to_markdown(sfm_report(results))
    with atomic_write(args.out / "report.md") as temporary:
        temporary.write_text(text)
    print(text)
    return int(any(not s.registered for scores in results.features.values() for s in scores))


def run_compare(args: argparse.Namespace) -> int:
    """Print, for each group and measure, whether A beats B."""
    from kornia_lift.evaluation.report.results import Results, check_same_options, compare_features

    try:
        results = Results.load(args.results)
        other = Results.load(args.other) if args.other else results
        first, second = results.feature(args.first), other.feature(args.second)
        check_same_options(results, other)
    except (ValueError, KeyError) as error:
        raise _fault(str(error.args[0])) from error
    known = {m for f in (first, second) for group in f.pairs for m in f.measures(group)}
    unknown = [m for m in args.measure if m not in known]
    if unknown:
        raise _fault(f"no measure {', '.join(unknown)} in these results; there are {', '.join(sorted(known))}")
    silent = dict.fromkeys(args.measure)
    for group in dict.fromkeys([*first.pairs, *second.pairs]):
        for measure in args.measure:
            if not all(measure in f.measures(group) for f in (first, second)):
                if any(measure in f.measures(group) for f in (first, second)):
                    print(f"{group}, {measure}: only one of the two was measured", file=sys.stderr)
                continue
            try:
                found = compare_features(first, second, group, measure)
            except ValueError as error:
                print(f"{group}, {measure}: {error}", file=sys.stderr)
                continue
            silent.pop(measure, None)
            print(f"{group}, {measure}: {_sentence(found, first.name, second.name)}")
            alone = max(sum(len(v) for v in f.values(group, measure).values()) for f in (first, second)) - found.pairs
            if alone:
                print(f"{group}, {measure}: {alone} pairs that only one of the two has are left out", file=sys.stderr)
    if silent:
        raise _fault(f"{first.name} and {second.name} cannot be compared by {', '.join(silent)}")
    return 0


def _sentence(found: Comparison, first: str, second: str) -> str:
    told = f"{first} is {found.verdict} than {second}"
    if found.verdict == "undecided":
        told = f"undecided between {first} and {second}"
    return (
        f"{told} (ratio {found.ratio:.3f}, difference {found.difference.value:+.4f}, 95 % interval "
        f"{found.difference.low:+.4f} to {found.difference.high:+.4f}, p = {found.p_value:.4f}, wins "
        f"{found.wins:.0%} of {found.pairs} pairs{'; smaller is better' if found.lower_is_better else ''})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m kornia_lift.evaluation``: the two commands alone."""
    parser = argparse.ArgumentParser(prog="python -m kornia_lift.evaluation")
    add_evaluate_parser(parser.add_subparsers(required=True, metavar="COMMAND"))
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if type(error).__name__ != "CommandError":
            raise
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _fault(message: str) -> Exception:
    from kornia_lift.cli._errors import CommandError

    return CommandError(message)
