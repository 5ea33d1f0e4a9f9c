"""``kornia-lift match``: two photographs in, verified matches out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from kornia.color import rgb_to_grayscale
from torch import Tensor

from kornia_lift import __version__
from kornia_lift._io import load_image
from kornia_lift.cli._options import add_feature_options, place, provenance, real
from kornia_lift.cli._picture import check_picture_path, save_picture
from kornia_lift.matching import PairMatch, StageClock, extract_features, match_pair, shrink
from kornia_lift.viz import draw_matches

_DESCRIPTION = """\
Match two photographs: LIFT keypoints, tentative matches (mutual nearest neighbours that pass the ratio test),
and the matches that agree with one geometry, estimated by OpenCV's USAC_MAGSAC.
"""
_EPILOG = """\
examples:
  kornia-lift match left.jpg right.jpg
  kornia-lift match left.jpg right.jpg --geometry homography --out matches.png
  kornia-lift match left.jpg right.jpg --json > matches.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "match",
        help="match two photographs and draw the matches",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("first", type=Path, metavar="A", help="the one photograph (JPEG, PNG, TIFF, WebP, ...)")
    parser.add_argument("second", type=Path, metavar="B", help="the other photograph")
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


def add_matching_options(parser: argparse.ArgumentParser, *, geometry: str) -> None:
    """Add the options of matching and verification."""
    group = parser.add_argument_group("matching")
    group.add_argument(
        "--ratio",
        type=real(0, 1),
        default=0.95,
        help="nearest / second-nearest distance at most, both ways; 1: no test (default: %(default)s)",
    )
    group.add_argument(
        "--geometry",
        choices=("fundamental", "homography"),
        default=geometry,
        help="fundamental: any static scene; homography: a plane, or a camera that only turned (default: %(default)s)",
    )
    group.add_argument(
        "--threshold",
        type=real(0),
        default=2.0,
        metavar="PIXELS",
        help="error up to which a match agrees, in pixels of the photographs (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Match, report, draw."""
    picture: Path | None = args.out
    if picture is None and not args.json:
        picture = Path("lift_matches.jpg")
    if picture is not None:
        check_picture_path(picture, [args.first, args.second])
    clock = StageClock()
    with clock.stage("reading"):
        photographs = [load_image(path, apply_exif=not args.ignore_exif) for path in (args.first, args.second)]
    match = match_photographs(photographs, args, clock)
    if picture is not None:
        with clock.stage("drawing"):
            chosen = match.pairs[match.verified]
            lafs = match.first.lafs[chosen[:, 0]], match.second.lafs[chosen[:, 1]]
            save_picture(picture, draw_matches(photographs[0], photographs[1], lafs))
    if args.json:
        print(json.dumps(as_json(args, match, clock, picture), indent=1))
    else:
        print(as_text(args, match, clock))
        print(f"picture         {picture}")
    return 0


def match_photographs(photographs: list[Tensor], args: argparse.Namespace, clock: StageClock) -> PairMatch:
    """Describe two photographs as the options say, and match them."""
    feature, device, dtype = place(args.make_feature(args), args)
    extracted = []
    for photograph in photographs:
        gray = rgb_to_grayscale(photograph) if photograph.shape[1] == 3 else photograph
        image = shrink(gray, args.resize).to(device, dtype)
        with clock.stages_of(feature):
            extracted.append(extract_features(feature, image, (photograph.shape[-1], photograph.shape[-2])))
    return match_pair(
        extracted[0],
        extracted[1],
        ratio=args.ratio,
        geometry=args.geometry,
        threshold=args.threshold,
        clock=clock,
    )


def as_text(args: argparse.Namespace, match: PairMatch, clock: StageClock) -> str:
    """Return the report that a person reads."""
    lines = []
    for side, features in zip("AB", (match.first, match.second), strict=True):
        width, height = features.image_size or (0, 0)
        lines.append(f"keypoints {side}     {len(features):5d}   in {width} x {height} pixels")
    tentative, verified = len(match.pairs), int(match.verified.sum())
    share = f", {100 * verified / tentative:.0f} % of them" if tentative else ""
    test = f"mutual nearest neighbours, ratio at most {args.ratio:g}" if args.ratio < 1 else "mutual nearest neighbours"
    lines.append(f"tentative       {tentative:5d}   {test}")
    model = f"{args.geometry}{' matrix' if args.geometry == 'fundamental' else ''}, USAC_MAGSAC, {args.threshold:g} px"
    if match.model is None:
        lines.append(f"verified            0   too few matches, or none agree: no {args.geometry} found")
    else:
        lines.append(f"verified        {verified:5d}   {model}{share}")
    parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in clock.seconds.items())
    lines.append(f"seconds         {sum(clock.seconds.values()):5.2f}   {parts}")
    return "\n".join(lines)


def as_json(args: argparse.Namespace, match: PairMatch, clock: StageClock, picture: Path | None) -> dict[str, Any]:
    """Return the report that a program reads."""
    ends = np.concatenate(match.points, axis=1)
    return {
        "version": __version__,
        "options": provenance(args),
        "images": [
            {"path": str(path), "size": list(features.image_size or ()), "keypoints": len(features)}
            for path, features in zip((args.first, args.second), (match.first, match.second), strict=True)
        ],
        "tentative": len(match.pairs),
        "verified": int(match.verified.sum()),
        "ratio": args.ratio,
        "geometry": args.geometry,
        "estimator": "OpenCV USAC_MAGSAC",
        "threshold": args.threshold,
        "matrix": None if match.model is None else match.model.tolist(),
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
