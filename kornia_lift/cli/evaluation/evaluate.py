"""``kornia-lift evaluate``: measure features on scenes with known geometry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift.cli._options import CommandError, check_folder, natural, positive, report_unread

if TYPE_CHECKING:
    from kornia_lift.evaluation.candidates import Candidate
    from kornia_lift.scenes.scene import Scene

_PROTOCOLS = ("table1", "table2", "table3", "robustness", "sfm")


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="measure features on scenes with known geometry",
        description="Measure features on scenes with known geometry: homography sequences (images 1..n, H_1_k), posed "
        "scenes with depth (cameras.npz, images/, depth/; DTU; MegaDepth), scenes with cameras only (COLMAP models "
        "beside images/, *.camera) and static cameras (test/image_color). Writes results.json and two reports.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("scenes", nargs="+", metavar="FOLDER", help="scene, or folder of scenes")
    parser.add_argument(
        "-f",
        "--features",
        nargs="+",
        default=["opencv-sift", "lift"],
        metavar="FEATURE",
        help="a name (lift, opencv-sift, aliked-n16, ...), a weight file of LIFT or LF-Net, or an h5 file of features; "
        "MODEL+affine has affine shapes; NAME=FEATURE renames it (default: opencv-sift lift)",
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
        "-n", "--num-features", type=positive, metavar="N", help="keypoints per image (default: 1000, of sfm 2000)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="FOLDER",
        help="for the report (default: %(default)s)",
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="for extracted features (default: OUT/features)")
    parser.add_argument("--model", default="lift", help="LIFT model of table2 and table3 (default: %(default)s)")
    parser.add_argument(
        "--pretrained-detector", metavar="FILE", help="weights of the pre-trained detector, which table2 needs"
    )
    parser.add_argument(
        "--second-images", nargs="+", metavar="NAME", help="only pairs with one of these as second image"
    )
    parser.add_argument(
        "--max-pairs", type=natural, default=0, metavar="N", help="at most N pairs per scene, spread over their overlap"
    )
    parser.add_argument("--overlap", action="store_true", help="also the overlap form, 40 and 50 %%, both conventions")
    parser.add_argument(
        "--filter",
        metavar="learned|FILE",
        help="also the poses from the matches that a correspondence network keeps: the shipped one or your own",
    )
    parser.add_argument(
        "--refine", action="store_true", help="refine the positions of the matches before they are measured"
    )
    parser.add_argument("--no-geometry", action="store_true", help="leave out poses and homographies")
    parser.add_argument("--no-page", action="store_true", help="leave out the page with pictures")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing while extracting")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract, evaluate, report. Returns 1 if a pair failed or was skipped, else 0."""
    from kornia_lift._extras import require
    from kornia_lift._io import atomic_write

    check_folder(args.out)
    if args.cache is not None:
        check_folder(args.cache, "--cache")
    report_unread(args.scenes)
    require("h5py", extra="eval")
    from kornia_lift.evaluation.candidates import candidate
    from kornia_lift.evaluation.comparison import run as run_candidates
    from kornia_lift.evaluation.measures.geometry import Estimator
    from kornia_lift.evaluation.measures.overlap import OverlapOptions
    from kornia_lift.evaluation.pair import Options
    from kornia_lift.evaluation.paper_tables import table2, table3
    from kornia_lift.evaluation.report.blocks import Heading, to_markdown
    from kornia_lift.evaluation.report.page import write_page
    from kornia_lift.evaluation.report.tables import report, warps_table
    from kornia_lift.evaluation.selection import only_second_images, spread_pairs, warped_groups
    from kornia_lift.evaluation.warps import RESCALES, ROTATIONS
    from kornia_lift.files import FeatureFileError
    from kornia_lift.networks.correspondence import CorrespondenceNet
    from kornia_lift.scenes.folders import load_scenes

    if args.refine and args.protocol == "sfm":
        raise CommandError(
            "--refine moves the matches of single pairs, reconstructions (--protocol sfm) are made of keypoints: leave "
            "one of the two out"
        )
    count = args.num_features or (2000 if args.protocol == "sfm" else 1000)
    try:
        groups = load_scenes(args.scenes)
        if args.protocol == "table2":
            if args.pretrained_detector is None:
                raise CommandError("table2 needs --pretrained-detector FILE")
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
        raise CommandError(str(error)) from error
    if args.protocol == "sfm":
        return _reconstruct(args, candidates, groups, count)
    overlap = tuple(OverlapOptions(e, n) for n in (False, True) for e in (40.0, 50.0)) if args.overlap else ()
    geometry = not args.no_geometry and args.protocol != "robustness"
    try:
        learned = None if args.filter is None else CorrespondenceNet.name_of(args.filter)
    except (ValueError, OSError) as error:
        raise CommandError(f"--filter: {error}") from error
    estimator = Estimator() if geometry else None
    options = Options(count, estimator=estimator, overlap=overlap, filter=learned, refine=args.refine)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        results = run_candidates(
            f"Evaluation: {args.protocol}",
            candidates,
            groups,
            args.cache or args.out / "features",
            options=options,
            progress=None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True),
        )
    except FeatureFileError as error:
        raise CommandError(str(error)) from error
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


def _reconstruct(
    args: argparse.Namespace, candidates: Sequence[Candidate], groups: Mapping[str, Sequence[Scene]], count: int
) -> int:
    """Reconstruct every scene with cameras from every feature. Returns 1 if a scene has no model, else 0."""
    from kornia_lift._io import atomic_write
    from kornia_lift.evaluation.comparison import run_sfm
    from kornia_lift.evaluation.report.blocks import to_markdown
    from kornia_lift.evaluation.report.sfm_report import sfm_report
    from kornia_lift.evaluation.sfm import HasCameras, SfmOptions
    from kornia_lift.files import FeatureFileError

    scenes = [scene for group in groups.values() for scene in group if isinstance(scene, HasCameras)]
    if not scenes:
        raise CommandError("sfm needs scenes with cameras, and there is none in these folders")
    args.out.mkdir(parents=True, exist_ok=True)
    say = None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True)
    cache = args.cache or args.out / "features"
    try:
        results = run_sfm(candidates, scenes, cache, options=SfmOptions(count), progress=say)
    except FeatureFileError as error:
        raise CommandError(str(error)) from error
    results.save(args.out / "results.json")
    text = to_markdown(sfm_report(results))
    with atomic_write(args.out / "report.md") as temporary:
        temporary.write_text(text)
    print(text)
    return int(any(not s.registered for scores in results.features.values() for s in scores))
