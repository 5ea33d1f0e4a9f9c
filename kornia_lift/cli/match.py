"""``kornia-lift match``: two images in, verified matches out."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift.cli._options import CommandError, add_feature_options, add_matching_options

if TYPE_CHECKING:
    from kornia_lift.matching import PairMatch, StageClock
    from kornia_lift.matching.filtering import CorrespondenceFilter

_DESCRIPTION = """\
Match two images: LIFT features, putative matches (mutual nearest neighbours that pass the ratio test), and those
verified by one geometry, which OpenCV's USAC_MAGSAC estimates.
"""
_EPILOG = """\
Exit code 1: the images probably do not overlap, or have too few keypoints to tell ("overlap": null in JSON).

examples:
  kornia-lift match left.jpg right.jpg
  kornia-lift match left.jpg right.jpg --geometry homography --out matches.png
  kornia-lift match left.jpg right.jpg --filter learned
  kornia-lift match left.jpg right.jpg --json > matches.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "match",
        help="match two images and draw the matches",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("first", type=Path, metavar="A", help="first image (JPEG, PNG, TIFF, WebP, ...)")
    parser.add_argument("second", type=Path, metavar="B", help="second image")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PICTURE",
        help="where to write the picture of the matches (default: lift_matches.jpg; with --json: none)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, matches included")
    add_matching_options(parser, geometry="fundamental")
    add_feature_options(parser, num_features=2000, resize=1600)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Match, report, draw."""
    import json

    from kornia_lift._io import load_image
    from kornia_lift.cli._picture import check_picture_path, save_picture
    from kornia_lift.matching import StageClock
    from kornia_lift.viz import MAX_LINES, draw_matches

    picture: Path | None = args.out
    if picture is None and not args.json:
        picture = Path("lift_matches.jpg")
    if picture is not None:
        check_picture_path(picture, [args.first, args.second])
    clock = StageClock()
    with clock.stage("reading"):
        first, second = (load_image(path, apply_exif=args.apply_exif) for path in (args.first, args.second))
    match = match_as_asked(args, first, second, clock)
    if picture is not None:
        with clock.stage("drawing"):
            save_picture(picture, draw_matches(first, second, match))
    if args.json:
        print(json.dumps(as_json(args, match, clock, picture), indent=1, allow_nan=False))
    else:
        print(as_text(args, match, clock))
        print(f"picture         {picture}   ({_drawn(int(match.verified.sum()), MAX_LINES)})")
    return 0 if match.overlap else 1


def _drawn(count: int, most: int) -> str:
    """Say how many of the matches the picture shows."""
    return f"{most} of the {count} verified matches, evenly chosen" if count > most else f"{count} verified matches"


def match_as_asked(args: argparse.Namespace, first: Any, second: Any, clock: StageClock) -> PairMatch:
    """Match two images, tensors of shape (1, C, H, W), as the options say."""
    from kornia_lift.cli._feature import build_feature
    from kornia_lift.matching import match_tensors

    feature, device, dtype = build_feature(args)
    return match_tensors(
        feature,
        first,
        second,
        device=device,
        dtype=dtype,
        max_size=args.resize,
        ratio=args.ratio,
        geometry=args.geometry,
        threshold=args.threshold,
        keep=_filter_as_asked(args, device),
        refine=args.refine,
        clock=clock,
    )


def _filter_as_asked(args: argparse.Namespace, device: Any) -> CorrespondenceFilter | None:
    """Return the learned filter, or ``None`` for the ratio test.

    Raises:
        CommandError: if there are no such weights.
    """
    if args.filter == "ratio":
        return None
    from kornia_lift.matching.filtering import CorrespondenceFilter
    from kornia_lift.networks.correspondence import CorrespondenceNet

    try:
        network = CorrespondenceNet(CorrespondenceNet.name_of(args.filter))
    except (ValueError, OSError) as error:
        raise CommandError(f"--filter {args.filter}: not ratio or learned, and {error}") from error
    return CorrespondenceFilter(network.to(device))


def as_text(args: argparse.Namespace, match: PairMatch, clock: StageClock) -> str:
    """Return the report for a person."""
    lines = []
    for side, features in zip("AB", (match.first, match.second), strict=True):
        width, height = features.image_size or (0, 0)
        lines.append(f"keypoints {side}     {len(features):5d}   in {width} x {height} pixels")
    putative, verified = len(match.pairs), int(match.verified.sum())
    test = "mutual nearest neighbours"
    if args.filter != "ratio":
        test += f" that the {args.filter} filter keeps"
    elif args.ratio < 1:
        test += f", ratio at most {args.ratio:g}"
    lines.append(f"putative        {putative:5d}   {test}")
    name = f"{args.geometry}{' matrix' if args.geometry == 'fundamental' else ''}"
    if match.model is None:
        lines.append(f"verified            0   too few matches, or no common {name}")
    else:
        share = f", {100 * verified / putative:.0f} % of the putative matches"
        lines.append(f"verified        {verified:5d}   {name}, USAC_MAGSAC, {args.threshold:g} px{share}")
    if not match.overlap:
        lines.append(_no_overlap(match))
    parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in clock.seconds.items())
    lines.append(f"seconds         {sum(clock.seconds.values()):5.2f}   {parts}")
    return "\n".join(lines)


def _no_overlap(match: PairMatch) -> str:
    """Return the line about images of which chance gives as many verified matches."""
    from kornia_lift.matching.overlap import FEW_KEYPOINTS

    if not match.undecided:
        return "overlap            no   the images probably do not overlap: chance gives as many verified matches"
    sides = list(zip("AB", (match.first, match.second), strict=True))
    if empty := [side for side, features in sides if not len(features)]:
        return f"overlap       unknown   no keypoints in {' and '.join(empty)}: too small, or without texture"
    few = [f"{len(features)} in {side}" for side, features in sides if len(features) < FEW_KEYPOINTS]
    return (
        f"overlap       unknown   too few keypoints to tell ({' and '.join(few)}; fewer than {FEW_KEYPOINTS} often do "
        "not suffice): use a larger image, or a larger --num-features"
    )


def as_json(args: argparse.Namespace, match: PairMatch, clock: StageClock, picture: Path | None) -> dict[str, Any]:
    """Return the report for a program; JSON has no infinity, which becomes ``None``."""
    import numpy as np

    from kornia_lift import __version__
    from kornia_lift.cli._feature import provenance

    ends = np.concatenate(match.points, axis=1)
    usable = match.model is not None and bool(np.isfinite(match.model).all())
    return {
        "version": __version__,
        "options": provenance(args),
        "images": [
            {"path": str(path), "size": list(features.image_size or ()), "keypoints": len(features)}
            for path, features in zip((args.first, args.second), (match.first, match.second), strict=True)
        ],
        "putative": len(match.pairs),
        "verified": int(match.verified.sum()),
        "overlap": None if match.undecided else match.overlap,
        "log10_false_alarms": match.log_false_alarms if math.isfinite(match.log_false_alarms) else None,
        "filter": args.filter,
        "ratio": args.ratio if args.filter == "ratio" else None,
        "refined": match.refined is not None,
        "geometry": args.geometry,
        "estimator": "OpenCV USAC_MAGSAC",
        "threshold": args.threshold if math.isfinite(args.threshold) else None,
        "matrix": match.model.tolist() if match.model is not None and usable else None,
        "matches": {
            "columns": ["xA", "yA", "xB", "yB", "confidence", "verified"],
            "rows": [
                [*(round(value, 3) for value in xy), round(float(confidence), 4), bool(verified)]
                for xy, confidence, verified in zip(ends.tolist(), match.confidence, match.verified, strict=True)
            ],
        },
        "seconds": {stage: round(seconds, 4) for stage, seconds in clock.seconds.items()},
        "picture": None if picture is None else str(picture),
    }
