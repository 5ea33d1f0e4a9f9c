"""The figures of the page "How LIFT works", drawn by the networks that the package ships.

    python scripts/draw_how_it_works.py                    # into docs/images/how_it_works
    python scripts/draw_how_it_works.py --model lift-plus  # the same with another model

The image is scikit-image's astronaut (NASA, public domain), the second view the one of `kornia-lift demo`, so that
anyone can make them again; needs the extras ``cli`` and ``eval``.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from kornia.feature import extract_patches_from_pyramid, get_laf_orientation, laf_is_filled, scale_laf
from kornia.geometry.transform import warp_perspective
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTFeature
from kornia_lift._io import atomic_write
from kornia_lift.cli.demo import SCALE, astronaut, known_warp, warped_copy
from kornia_lift.detector.scale_space import plan_levels
from kornia_lift.feature.stages import orienter_of
from kornia_lift.geometry import DETECTOR_SIZE, crop_rotate, lafs_from_lift, lift_from_lafs, softargmax
from kornia_lift.networks.response import FILTER_SIZE

ROOT = Path(__file__).parents[1]
COLOURS = ("#e4572e", "#17a398", "#7b5ea7")  # of the keypoints that are followed
SHOWN_LEVELS = (0, 3, 5, 7)
CROP = 128  # pixels of a drawn patch
FOLLOWED = 3
SHARPNESS = (0.3, 1.0, 10.0)  # of the softmax; the last one is the paper's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lift", help="shipped model or weight file (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "how_it_works")
    args = parser.parse_args()
    first = astronaut()
    truth = known_warp(first.shape[-1], first.shape[-2])
    second = warped_copy(first, truth)
    feature = LIFTFeature(400, pretrained=args.model)
    with torch.inference_mode():
        grays = [rgb_to_grayscale(image) for image in (first, second)]
        found = [feature(gray) for gray in grays]
        kept = [laf_is_filled(f[0])[0] for f in found]
        lafs = [f[0][:, k] for f, k in zip(found, kept, strict=True)]
        descriptors = [f[2][0, k] for f, k in zip(found, kept, strict=True)]
        pairs = true_pairs(lafs, descriptors, truth)
        figures = {
            "levels.jpg": levels(feature.detector, first, grays[0]),
            "softargmax.jpg": soft_location(feature.detector, grays[0]),
            "crops.jpg": crops(feature, grays, [f[0, p] for f, p in zip(lafs, pairs.T, strict=True)]),
            "orientation.svg": orientation(args.model, grays[0], lafs[0]),
            "descriptors.svg": distances(descriptors, pairs, same_location(lafs, truth)),
        }
    for name, figure in figures.items():
        save(figure, args.out / name)
        print(args.out / name, f"{(args.out / name).stat().st_size / 1000:.0f} kB")
    return 0


def true_pairs(lafs: list[Tensor], descriptors: list[Tensor], truth: Tensor) -> NDArray[np.int64]:
    """Mutual nearest neighbours that are where the warp puts them, large and far from each other first; (M, 2)."""
    distance = torch.cdist(*descriptors)
    forward, backward = distance.argmin(1), distance.argmin(0)
    mutual = torch.arange(len(forward))[backward[forward] == torch.arange(len(forward))]
    here, there = lafs[0][0, mutual, :, 2], lafs[1][0, forward[mutual], :, 2]
    carried = torch.cat([here, torch.ones(len(here), 1)], 1) @ truth[0].T
    correct = (carried[:, :2] / carried[:, 2:] - there).norm(dim=1) < 1.5
    mutual = mutual[correct]
    order = lift_from_lafs(lafs[0][:, mutual])[1][0].argsort(descending=True)
    chosen: list[int] = []
    for k in mutual[order].tolist():  # the largest first, none near another
        if all((lafs[0][0, k, :, 2] - lafs[0][0, c, :, 2]).norm() > 90 for c in chosen):
            chosen.append(k)
    return np.array([(k, int(forward[k])) for k in chosen])


def levels(detector: LIFTDetector, image: Tensor, gray: Tensor) -> Figure:
    """Levels of the pyramid, each with its score map and the keypoints found on it."""
    plan = plan_levels(gray.shape[-2], gray.shape[-1], detector.config, detector.num_features)
    scores = detector.score_levels(gray)
    centres, sigmas, _ = lift_from_lafs(detector(gray)[0])
    nearest = (sigmas[0, :, None].log2() - torch.tensor([level.sigma for level in plan]).log2()).abs().argmin(1)
    figure, axes = _grid(2, len(SHOWN_LEVELS), 2.6)
    pixels = image[0].permute(1, 2, 0).numpy()
    for column, k in enumerate(SHOWN_LEVELS):
        level, score = plan[k], scores[k][0].numpy()
        score = np.where(np.isfinite(score), score, np.nan)
        low, high = np.nanquantile(score, (0.02, 0.999))
        axes[0, column].imshow(pixels, extent=(0, 1, 1, 0))
        axes[1, column].imshow(score, extent=(0, 1, 1, 0), cmap="magma", vmin=low, vmax=high)
        axes[0, column].set_title(f"sigma {level.sigma:.1f}: {level.size[1]} x {level.size[0]} pixels", fontsize=9)
        size = torch.tensor([gray.shape[-1], gray.shape[-2]])
        for (x, y), sigma in zip(
            ((centres[0, nearest == k] + 0.5) / size).tolist(), sigmas[0, nearest == k].tolist(), strict=True
        ):
            for axis in axes[:, column]:
                axis.add_patch(Circle((x, y), 2 * sigma / gray.shape[-1], fill=False, color="#7CFC5B", linewidth=0.8))
    axes[0, 0].set_ylabel("keypoints of the level", fontsize=9)
    axes[1, 0].set_ylabel("score", fontsize=9)
    return figure


def soft_location(detector: LIFTDetector, gray: Tensor) -> Figure:
    """A training patch, its score map, and what the softmax makes of it for three sharpnesses."""
    centres, sigmas, _ = lift_from_lafs(detector(gray)[0])
    inside = (centres[0] - gray.shape[-1] / 2).abs().amax(1) + 15 * sigmas[0] < gray.shape[-1] / 2
    chosen = torch.where(inside & (sigmas[0] > 3))[0]
    # off the keypoint, as training patches are: the location has to be found
    shift = 2.0 * sigmas[0, chosen, None] * torch.tensor([0.8, -0.6])
    big = scale_laf(lafs_from_lift((centres[0, chosen] + shift)[None], sigmas[:, chosen]), 2.0)  # 24 sigma
    patches = extract_patches_from_pyramid(gray, big, DETECTOR_SIZE)[0]
    border = FILTER_SIZE // 2
    scores = detector.resp(patches)[:, :, border:-border, border:-border]
    side = 14  # of the part of the map from which a rotated patch still lies within the training patch
    margin = (scores.shape[-1] - side) // 2
    inner = scores[:, 0, margin:-margin, margin:-margin].flatten(1)
    best = inner.argmax(1)
    central = ((best % side - side / 2).abs() < side / 3) & ((best // side - side / 2).abs() < side / 3)
    log_weight = torch.log_softmax(SHARPNESS[0] * inner, 1)
    entropy = -(log_weight.exp() * log_weight).sum(1)
    k = int(torch.where(central, (entropy - 3).abs(), torch.inf).argmin())  # neither a peak nor a plain
    patch, score = patches[k : k + 1], scores[k : k + 1]
    figure, axes = _grid(1, 5, 2.1)
    axes[0].imshow(patch[0, 0], cmap="gray")
    axes[0].set_title("patch, 48 x 48", fontsize=9)
    axes[1].imshow(score[0, 0], cmap="magma")
    axes[1].set_title("score, 24 x 24", fontsize=9)
    low, high = margin - 0.5, margin + side - 0.5
    axes[1].add_patch(Rectangle((low, low), side, side, fill=False, edgecolor="white", linewidth=1))
    for axis, beta in zip(axes[2:], SHARPNESS, strict=True):
        weight = torch.softmax(beta * score[0, 0, margin:-margin, margin:-margin].flatten(), 0).view(side, side)
        axis.imshow(weight, cmap="magma", extent=(low, high, high, low))
        axis.set_title(f"softmax, beta = {beta:g}", fontsize=9)
        x, y = ((softargmax(score, beta)[0] + 1) * (DETECTOR_SIZE - 1) / 2 - border).tolist()
        axis.plot(x, y, "o", markersize=8, color="#3ddc97", markeredgecolor="black")
    axes[1].plot(x, y, "o", markersize=5, color="#3ddc97", markeredgecolor="black")
    at = [c + border for c in (x, y)]
    axes[0].plot(*at, "o", markersize=5, color="#3ddc97", markeredgecolor="black")
    return figure


def crops(feature: LIFTFeature, grays: list[Tensor], lafs: list[Tensor]) -> Figure:
    """Support regions in two views, and the patches: as cut upright, and rotated by the estimated angle."""
    figure = Figure(figsize=(10.4, 3.9), layout="constrained", facecolor="white", dpi=110)
    axes = figure.subplots(2, 1 + 2 * FOLLOWED, width_ratios=[2.0] + [1.0] * (2 * FOLLOWED))
    for row, gray, frames in zip(axes, grays, lafs, strict=True):
        frames = scale_laf(frames[None, :FOLLOWED], 1 / feature.scaling_coef)  # the paper's region, 12 sigma
        centres, sigmas, angles = lift_from_lafs(frames)
        row[0].imshow(gray[0, 0], cmap="gray", vmin=0, vmax=1)
        # 24 sigma around the keypoint, from which every patch is cut, as in training
        big = extract_patches_from_pyramid(gray, scale_laf(lafs_from_lift(centres, sigmas), 2.0), CROP)[0]
        for n, colour in enumerate(COLOURS):
            corners = torch.tensor([[-1.0, -1.0], [1, -1], [1, 1], [-1, 1]]) @ frames[0, n, :, :2].T + centres[0, n]
            row[0].add_patch(Polygon(corners.numpy(), fill=False, edgecolor=colour, linewidth=2))
            ends = torch.stack([centres[0, n], centres[0, n] + frames[0, n, :, 0]])
            row[0].plot(*ends.T.tolist(), color=colour, linewidth=2)
            for k, theta in enumerate((torch.zeros(1), angles[0, n : n + 1])):
                patch = crop_rotate(big[n : n + 1], torch.zeros(1, 2), theta)
                row[1 + k * FOLLOWED + n].imshow(patch[0, 0], cmap="gray")
                _bare(row[1 + k * FOLLOWED + n], colour)
        _bare(row[0])
    axes[0, 2].set_title("Crop: upright", fontsize=10)
    axes[0, 2 + FOLLOWED].set_title("Rot: at the estimated angle", fontsize=10)
    axes[0, 0].set_ylabel("view 1", fontsize=10)
    axes[1, 0].set_ylabel("view 2", fontsize=10)
    return figure


def orientation(model: str, gray: Tensor, lafs: Tensor) -> Figure:
    """How the estimated angle follows a rotation of the image, over keypoints."""
    orienter = orienter_of(model, 1)
    orienter.eval()
    centres, sigmas, _ = lift_from_lafs(lafs)
    middle = (gray.shape[-1] - 1) / 2
    near = (centres[0] - middle).norm(dim=1) < middle - 60
    upright = lafs_from_lift(centres[:, near], sigmas[:, near])
    reference = get_laf_orientation(orienter(upright, gray))[0, :, 0]
    rotations, medians, shares = np.arange(0, 361, 15), [], []
    for degrees in rotations:
        angle = torch.deg2rad(torch.tensor(float(degrees)))
        cosine, sine = float(angle.cos()), float(angle.sin())
        rotation = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0, 0, 1.0]])  # counter-clockwise on screen
        shift = torch.tensor([[1.0, 0, middle], [0, 1, middle], [0, 0, 1]])
        matrix = shift @ rotation @ shift.inverse()
        image = warp_perspective(gray, matrix[None], gray.shape[-2:], align_corners=True, padding_mode="border")
        moved = upright.clone()
        moved[0, :, :, 2] = (matrix @ torch.cat([upright[0, :, :, 2], torch.ones(int(near.sum()), 1)], 1).T).T[:, :2]
        estimate = get_laf_orientation(orienter(moved, image))[0, :, 0]
        error = (estimate - reference - degrees + 180).remainder(360) - 180
        medians.append(float(error.abs().median()))
        shares.append(float((error.abs() < 20).float().mean()))
    figure = Figure(figsize=(8.4, 2.8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    left.plot(rotations, medians, color="#2f6fdf", marker="o", markersize=3)
    left.set_ylabel("median error of the angle, degrees", fontsize=9)
    left.set_ylim(0)
    right.plot(rotations, shares, color="#2f6fdf", marker="o", markersize=3)
    right.set_ylabel("keypoints within 20 degrees", fontsize=9)
    right.set_ylim(0, 1.03)
    for axis in (left, right):
        axis.set_xlabel(f"rotation of the image, degrees ({int(near.sum())} keypoints)", fontsize=9)
        axis.set_xticks(range(0, 361, 90))
        axis.grid(alpha=0.3)
    return figure


def same_location(lafs: list[Tensor], truth: Tensor) -> NDArray[np.int64]:
    """Pairs of keypoints within 2 pixels and a factor of 1.3 in scale, by the warp alone; (M, 2)."""
    (here, sizes, _), (there, other_sizes, _) = (lift_from_lafs(frames) for frames in lafs)
    carried = torch.cat([here[0], torch.ones(here.shape[1], 1)], 1) @ truth[0].T
    near = torch.cdist(carried[:, :2] / carried[:, 2:], there[0]) < 2
    # the scale of the warp differs over the image by a quarter at most
    alike = (sizes[0, :, None] * SCALE / other_sizes[0]).log2().abs() < np.log2(1.3)
    return (near & alike).nonzero().numpy()


def distances(descriptors: list[Tensor], pairs: NDArray[np.int64], located: NDArray[np.int64]) -> Figure:
    """Distances of the descriptors of keypoints at the same location, against those of all."""
    distance = torch.cdist(descriptors[0][pairs[:, 0]], descriptors[1][pairs[:, 1]])
    every = torch.cdist(*descriptors)
    figure = Figure(figsize=(8.4, 3.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    shown = left.imshow(distance, cmap="viridis", vmin=0)
    left.set_xlabel("keypoint of view 2", fontsize=9)
    left.set_ylabel("keypoint of view 1", fontsize=9)
    left.set_xticks([])
    left.set_yticks([])
    figure.colorbar(shown, ax=left, label="distance")
    bins = np.linspace(0, float(every.max()), 60)
    right.hist(every.flatten().numpy(), bins, density=True, color="#9aa5b1", label="all pairs of keypoints")
    true = every[located[:, 0], located[:, 1]].numpy()
    right.hist(true, bins, density=True, color="#17a398", alpha=0.8, label=f"the same location ({len(true)})")
    right.set_xlabel("distance of descriptors", fontsize=9)
    right.set_ylabel("density", fontsize=9)
    right.legend(fontsize=8)
    return figure


def _grid(rows: int, columns: int, side: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(side * columns, side * rows * 1.05), layout="constrained", facecolor="white", dpi=100)
    axes = figure.subplots(rows, columns)
    for axis in np.ravel(axes):
        _bare(axis)
    return figure, axes


def _bare(axis: Any, colour: str | None = None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(colour is not None)
        spine.set(color=colour, linewidth=2.5)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; those with images as JPEG, which is a tenth of PNG."""
    if path.suffix == ".svg":
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        return
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png")
    with atomic_write(path) as temporary:
        Image.open(pixels).convert("RGB").save(temporary, format="JPEG", quality=85, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
