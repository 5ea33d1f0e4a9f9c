"""``kornia-lift demo``: match an image with a warped copy of itself, where the truth is known."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift.cli._options import add_feature_options, add_matching_options

if TYPE_CHECKING:
    from torch import Tensor

CORRECT_WITHIN = 3.0  # pixels
ANGLE, SCALE = 30.0, 0.8  # degrees counter-clockwise on screen, factor

_DESCRIPTION = f"""\
Match scikit-image's astronaut (NASA, public domain) with a copy that is rotated by {ANGLE:.0f} degrees, reduced to
{100 * SCALE:.0f} %, tilted, and under another illumination. The warp is known, so the report gives the precision: the
share of matches within {CORRECT_WITHIN:g} pixels of where the warp puts them.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="match an image with a warped copy of itself; needs no files",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("lift_demo.jpg"),
        metavar="PICTURE",
        help="where to write the picture: correct matches green, wrong ones red (default: %(default)s)",
    )
    add_matching_options(parser, geometry="homography")
    add_feature_options(parser, num_features=1000, resize=0, apply_exif=None)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Warp, match, compare with the truth."""
    import numpy as np

    from kornia_lift.cli._picture import check_picture_path, save_picture
    from kornia_lift.cli.match import as_text, match_as_asked
    from kornia_lift.matching import StageClock
    from kornia_lift.viz import draw_matches

    check_picture_path(args.out)
    clock = StageClock()
    with clock.stage("reading"):
        image = astronaut()
        truth = known_warp(image.shape[-1], image.shape[-2])
        copy = warped_copy(image, truth)
    match = match_as_asked(args, image, copy, clock)
    here, there = match.points
    carried = np.c_[here, np.ones(len(here))] @ truth[0].double().numpy().T
    error = np.hypot(*(carried[:, :2] / carried[:, 2:] - there).T)
    correct = error <= CORRECT_WITHIN
    with clock.stage("drawing"):
        save_picture(args.out, draw_matches(image, copy, match.lafs, correct=correct))
    print(as_text(args, match, clock))
    median = f"{float(np.median(error[correct])):.2f}" if correct.any() else "unknown"
    of_verified = _percent(correct[match.verified])
    print(f"precision       {_percent(correct)} of the putative matches, {of_verified} of the verified")
    print(f"                (correct: within {CORRECT_WITHIN:g} px of the known warp; median error {median} px)")
    print(f"picture         {args.out}   (green: correct, red: wrong)")
    return 0


def astronaut() -> Tensor:
    """Return scikit-image's astronaut, shape (1, 3, 512, 512), values in [0, 1]."""
    import numpy as np
    import torch

    from kornia_lift._extras import require

    pixels = require("skimage.data", extra="cli").astronaut()
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def known_warp(width: int, height: int) -> Tensor:
    """Return the homography from the image to its copy, pixel centres at integers, shape (1, 3, 3)."""
    import torch

    angle = -math.radians(ANGLE)  # y points down
    cos, sin = SCALE * math.cos(angle), SCALE * math.sin(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    centre = torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    rotate_and_tilt = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.25 / width, -0.35 / height, 1.0]])
    return (centre @ rotate_and_tilt @ centre.inverse())[None]


def warped_copy(image: Tensor, truth: Tensor) -> Tensor:
    """Return the copy: warped, darker to the right, of another contrast, with noise; white where nothing is seen."""
    import torch
    from kornia.geometry.transform import warp_perspective

    size = image.shape[-2:]
    shading = torch.linspace(1.0, 0.5, size[1])
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    copy = warp_perspective(image, truth, size, align_corners=True).clamp(0, 1) ** 1.3 * shading + 0.01 * noise
    seen = warp_perspective(torch.ones_like(image), truth, size, align_corners=True)
    return torch.where(seen > 0.5, copy, 1.0).clamp(0, 1)


def _percent(correct: Any) -> str:
    return f"{100 * correct.mean():.1f} %" if len(correct) else "none"
