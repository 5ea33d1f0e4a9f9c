"""``kornia-lift demo``: match a photograph with a warped, relit copy of itself, where the truth is known."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import warp_perspective
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.cli._options import add_feature_options
from kornia_lift.cli._picture import check_picture_path, save_picture
from kornia_lift.cli.match import add_matching_options, as_text, match_photographs
from kornia_lift.matching import StageClock
from kornia_lift.viz import draw_matches

RIGHT_WITHIN = 3.0  # pixels
ANGLE, SCALE = 30.0, 0.8  # degrees counter-clockwise on screen, factor

_DESCRIPTION = f"""\
Match scikit-image's astronaut (NASA, public domain) with a copy that is turned by {ANGLE:.0f} degrees, reduced to
{100 * SCALE:.0f} %, tilted, and lit differently. The warp is known, so the report tells the true precision: the share
of matches within {RIGHT_WITHIN:g} pixels of where the warp puts them.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="match a photograph with a warped copy of itself; needs no files",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("lift_demo.jpg"),
        metavar="PICTURE",
        help="where to write the picture: right matches green, wrong ones red (default: %(default)s)",
    )
    add_matching_options(parser, geometry="homography")
    add_feature_options(parser, num_features=1000, resize=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Warp, match, compare with the truth."""
    check_picture_path(args.out)
    clock = StageClock()
    with clock.stage("reading"):
        photograph = astronaut()
        truth = known_warp(photograph.shape[-1], photograph.shape[-2])
        copy = warped_and_relit(photograph, truth)
    match = match_photographs([photograph, copy], args, clock)
    chosen = [f.lafs[torch.from_numpy(match.pairs[:, k])] for k, f in enumerate((match.first, match.second))]
    error = transform_points(truth, chosen[0][None, ..., 2])[0] - chosen[1][..., 2]
    right = (error.norm(dim=-1) <= RIGHT_WITHIN).numpy()
    with clock.stage("drawing"):
        save_picture(args.out, draw_matches(photograph, copy, (chosen[0], chosen[1]), right=right))
    print(as_text(args, match, clock))
    of_verified = _percent(right[match.verified])
    print(f"true precision  {_percent(right)} of the tentative matches, {of_verified} of the verified")
    print(f"                (right: within {RIGHT_WITHIN:g} px of the known warp)")
    print(f"picture         {args.out}   (green: right, red: wrong)")
    return 0


def astronaut() -> Tensor:
    """Return scikit-image's astronaut, shape (1, 3, 512, 512), values in [0, 1]."""
    pixels = require("skimage.data", extra="cli").astronaut()
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def known_warp(width: int, height: int) -> Tensor:
    """Return the homography from the photograph to its copy, pixel centres at integers, shape (1, 3, 3)."""
    angle = -math.radians(ANGLE)  # y points down
    cos, sin = SCALE * math.cos(angle), SCALE * math.sin(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    centre = torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    turn_and_tilt = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.25 / width, -0.35 / height, 1.0]])
    return (centre @ turn_and_tilt @ centre.inverse())[None]


def warped_and_relit(photograph: Tensor, truth: Tensor) -> Tensor:
    """Return the copy: warped, darker to the right, of another contrast, with noise; white where nothing is seen."""
    size = photograph.shape[-2:]
    light = torch.linspace(1.0, 0.5, size[1])
    noise = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    relit = warp_perspective(photograph, truth, size, align_corners=True).clamp(0, 1) ** 1.3 * light + 0.01 * noise
    seen = warp_perspective(torch.ones_like(photograph), truth, size, align_corners=True)
    return torch.where(seen > 0.5, relit, 1.0).clamp(0, 1)


def _percent(right: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    return f"{100 * right.mean():.1f} %" if len(right) else "none"
