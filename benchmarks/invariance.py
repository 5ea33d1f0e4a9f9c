"""What moves when an image is translated, rotated, mirrored, enlarged, brightened or loses contrast.

    python benchmarks/invariance.py

Exact changes of two images of scikit-image and of a random texture, none of which any model was trained on. Of the
best 120 keypoints that should lie in both images: which share returns within 1.5 px (at the size of the first image)
and within a factor 1.25 of the size; of those, how far position, size, angle and descriptor moved (medians). Writes
benchmarks/results/trust/invariance.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale, laf_is_filled
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kornia_lift._io import atomic_write
from kornia_lift.evaluation.report.blocks import Heading, Paragraph, Table, to_markdown
from kornia_lift.evaluation.report.results import provenance
from kornia_lift.feature import feature_of

RESULTS = Path(__file__).parent / "results" / "trust"
BEST, DISTANCE, FACTOR = 120, 1.5, 1.25
MARGIN = 24  # pixels around the image from which the translated one is cut
SIZE = 256


Found = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Change:
    """A change of an image whose effect on points is known.

    Args:
        image: the change of an image with a margin, which it cuts off.
        points: where points (N, 2) of an image (height, width) go.
        scale: by which sizes are multiplied.
        angle: kornia's degrees that are added to angles; None where the image is mirrored.
    """

    image: Callable[[Tensor], Tensor]
    points: Callable[[Tensor, int, int], Tensor]
    scale: float = 1.0
    angle: float | None = 0.0


def _same(points: Tensor, height: int, width: int) -> Tensor:
    return points


def _cut(x: int, y: int) -> Callable[[Tensor], Tensor]:
    return lambda image: image[..., y : image.shape[-2] - MARGIN + y, x : image.shape[-1] - MARGIN + x]


def _enlarge(image: Tensor) -> Tensor:
    return interpolate(image, scale_factor=2, mode="bicubic", align_corners=False).clamp(0, 1)


#: The first image is cut at (0, 0), so that a translation brings new pixels in at the border.
CHANGES: dict[str, Change] = {
    "translated by (7, 3) px": Change(_cut(7, 3), lambda p, h, w: p - p.new_tensor([7.0, 3.0])),
    "translated by (16, 16) px": Change(_cut(16, 16), lambda p, h, w: p - p.new_tensor([16.0, 16.0])),
    "rotated by 90°": Change(
        lambda i: _cut(0, 0)(i).rot90(1, (-2, -1)),
        lambda p, h, w: torch.stack([p[:, 1], w - 1 - p[:, 0]], 1),
        1.0,
        90.0,
    ),
    "rotated by 180°": Change(
        lambda i: _cut(0, 0)(i).rot90(2, (-2, -1)), lambda p, h, w: p.new_tensor([w - 1, h - 1]) - p, 1.0, 180.0
    ),
    "mirrored": Change(
        lambda i: _cut(0, 0)(i).flip(-1), lambda p, h, w: torch.stack([w - 1 - p[:, 0], p[:, 1]], 1), 1.0, None
    ),
    "enlarged by 2": Change(lambda i: _enlarge(_cut(0, 0)(i)), lambda p, h, w: 2 * p + 0.5, 2.0),
    "brighter by 0.1": Change(lambda i: _cut(0, 0)(i) + 0.1, _same),
    "contrast halved": Change(lambda i: 0.5 * _cut(0, 0)(i) + 0.2, _same),
}


@dataclass(frozen=True)
class Moved:
    """What a change does to the best keypoints; medians of those that return, NaN where that has no meaning.

    Attributes:
        returned: share of the best keypoints that return.
        position: pixels of the first image.
        size: ratio of the larger to the smaller size.
        angle: degrees.
        descriptor: Euclidean distance of unit vectors.
        keypoints: how many the share is of.
    """

    returned: float
    position: float
    size: float
    angle: float
    descriptor: float
    keypoints: int


@torch.inference_mode()
def measure(feature: nn.Module, image: Tensor, change: Change, before: Found | None = None) -> Moved:
    """Compare the keypoints of an image (1, 1, H, W), with a margin, and of its change; see :func:`unchanged`."""
    after = change.image(image)
    height, width = image.shape[-2] - MARGIN, image.shape[-1] - MARGIN
    laf1, _, desc1 = unchanged(feature, image) if before is None else before
    laf2, _, desc2 = _filled(feature(after))
    size2 = (after.shape[-1], after.shape[-2])
    expected = change.points(get_laf_center(laf1[None])[0], height, width)
    # the whole described region must be seen in both
    reach = change.scale * get_laf_scale(laf1[None])[0, :, 0, 0]
    inside = (expected >= reach[:, None]).all(1) & (expected <= expected.new_tensor(size2) - 1 - reach[:, None]).all(1)
    best = torch.nonzero(inside)[:BEST, 0]
    centres = get_laf_center(laf2[None])[0]
    distance = torch.cdist(expected[best], centres) / change.scale
    ratio = get_laf_scale(laf2[None])[0, :, 0, 0] / (change.scale * get_laf_scale(laf1[None])[0, best, 0, 0])[:, None]
    close = (distance <= DISTANCE) & (ratio.log().abs() <= math.log(FACTOR))
    nearest = torch.where(close, distance, torch.inf).argmin(1)
    rows = torch.nonzero(close.any(1))[:, 0]
    first, second = best[rows], nearest[rows]
    angle = descriptor = float("nan")
    if change.angle is not None:
        rotation = get_laf_orientation(laf2[None, second]) - get_laf_orientation(laf1[None, first]) - change.angle
        angle = _median(((rotation + 180).remainder(360) - 180).abs())
        descriptor = _median((desc1[first] - desc2[second]).norm(dim=1))
    return Moved(
        len(rows) / max(1, len(best)), _median(distance[rows, second]), _median(ratio[rows, second].log().abs().exp()),
        angle, descriptor, len(best),
    )  # fmt: skip


@torch.inference_mode()
def unchanged(feature: nn.Module, image: Tensor) -> Found:
    """Keypoints of the image itself, without its margin."""
    return _filled(feature(_cut(0, 0)(image)))


def _filled(found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    keep = laf_is_filled(found[0])[0]
    return found[0][0, keep], found[1][0, keep], found[2][0, keep]


def _median(values: Tensor) -> float:
    return float(values.median()) if values.numel() else float("nan")


def images() -> dict[str, Tensor]:
    """Gray images (1, 1, SIZE + MARGIN, SIZE + MARGIN) with values that leave room above."""
    from skimage import data

    found: dict[str, Tensor] = {}
    for name in ("astronaut", "coffee"):
        pixels = torch.from_numpy(np.ascontiguousarray(getattr(data, name)())).float() / 255
        pixels = rgb_to_grayscale(pixels.permute(2, 0, 1)[None]) if pixels.dim() == 3 else pixels[None, None]
        side = min(pixels.shape[-2:])
        pixels = interpolate(pixels[..., :side, :side], (SIZE + MARGIN,) * 2, mode="area")
        found[name] = 0.9 * pixels
    generator = torch.Generator().manual_seed(0)
    noise = torch.zeros(1, 1, SIZE + MARGIN, SIZE + MARGIN)
    for cell in (4, 8, 16):
        coarse = torch.rand(1, 1, (SIZE + MARGIN) // cell + 3, (SIZE + MARGIN) // cell + 3, generator=generator)
        noise += interpolate(coarse, scale_factor=cell, mode="bicubic")[..., : SIZE + MARGIN, : SIZE + MARGIN]
    low, high = noise.aminmax()
    found["texture"] = 0.9 * (noise - low) / (high - low)
    return found


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """One model: a row per change, means over the images."""
    head = ["", "returned", "position, px", "size, factor", "angle, °", "descriptor distance"]
    cells = [
        [
            name,
            f"{100 * m['returned']:.0f} %",
            *("–" if math.isnan(m[k]) else f"{m[k]:.{d}f}"
              for k, d in (("position", 2), ("size", 3), ("angle", 1), ("descriptor", 3))),
        ]
        for name, m in rows.items()
    ]  # fmt: skip
    return Table(head, cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lift", "lift-plus", "lf-net"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    pictures = images()
    found: dict[str, Any] = {}
    blocks: list[Any] = [
        Heading("What returns of the best keypoints", 1),
        Paragraph(
            f"Means over {', '.join(pictures)}, {SIZE}x{SIZE} pixels; of the best {BEST} keypoints whose described "
            f"region lies in both images. Returned: within {DISTANCE:g} px and a factor {FACTOR:g} in size."
        ),
    ]
    for model in args.models:
        feature = feature_of(model)
        before = {name: unchanged(feature, image) for name, image in pictures.items()}
        each = {
            name: {k: asdict(measure(feature, image, change, before[k])) for k, image in pictures.items()}
            for name, change in CHANGES.items()
        }
        means = {
            name: {key: float(np.mean([m[key] for m in by.values()])) for key in next(iter(by.values()))}
            for name, by in each.items()
        }
        found[model] = {"mean": _plain(means), "images": _plain(each)}
        blocks += [Heading(model), table(means)]
    made = provenance()
    blocks.append(Paragraph(f"Made {made['time']} at commit {made['commit']} by python benchmarks/invariance.py."))
    content = {"best": BEST, "distance_px": DISTANCE, "size_factor": FACTOR, "provenance": made, "models": found}
    for name, text in (
        ("invariance.json", json.dumps(content, indent=1, allow_nan=False) + "\n"),
        ("invariance.md", to_markdown(blocks)),
    ):
        with atomic_write(args.out / name) as temporary:
            temporary.write_text(text)
    print(to_markdown(blocks))
    return 0


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    raise SystemExit(main())
