"""Register two images by gradient descent on LIFT descriptors.

An image is rotated, rescaled, shifted and darkened. Starting from "no motion", the four numbers of the motion are
found by making the descriptors around the keypoints of the first image agree with those at their positions in the
second: the loss flows through descriptor, patch and frame into the motion. Nothing is matched.

    python docs/examples/register_images.py --out docs/images/registration.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from kornia.color import rgb_to_grayscale
from kornia.feature import LAFDescriptor, laf_is_filled, perspective_transform_lafs
from kornia.geometry.transform import warp_perspective
from skimage import data
from torch import Tensor

from kornia_lift import LIFTDescriptor, LIFTDetector, ScaleSpaceConfig
from kornia_lift.geometry import DESCRIPTOR_SIZE

SIZE = 384
CENTRE = (SIZE - 1) / 2
TRUE_MOTION = torch.tensor([math.radians(5.0), math.log(1.06), 5.0, -4.0])  # angle, log scale, shift in pixels


def similarity(motion: Tensor) -> Tensor:
    """Matrix (1, 3, 3) of a motion: rotation and scale about the centre of the image, then shift."""
    angle, log_scale, dx, dy = motion
    cosine, sine = log_scale.exp() * torch.cos(angle), log_scale.exp() * torch.sin(angle)
    x = CENTRE * (1 - cosine + sine) + dx
    y = CENTRE * (1 - sine - cosine) + dy
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([cosine, -sine, x, sine, cosine, y, zero, zero, one]).view(1, 3, 3)


def images() -> tuple[Tensor, Tensor]:
    """The first image, and the second: moved by the true motion, darker and with less contrast."""
    image = torch.from_numpy(data.astronaut()[20 : 20 + SIZE, 40 : 40 + SIZE]).permute(2, 0, 1).float()[None] / 255
    first = rgb_to_grayscale(image)
    moved = warp_perspective(first, similarity(TRUE_MOTION), (SIZE, SIZE), padding_mode="border")
    return first, 0.6 * moved + 0.1


def corner_error(motion: Tensor) -> float:
    """Mean distance in pixels between the corners moved by ``motion`` and by the true motion."""
    last = float(SIZE - 1)
    corners = torch.tensor([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]]).T
    difference = (similarity(motion) - similarity(TRUE_MOTION))[0] @ corners
    return difference[:2].norm(dim=0).mean().item()


def register(weights: bool | str, steps: int, keypoints: int) -> tuple[list[float], list[float]]:
    """Optimise the motion; returns loss and corner error before every step and after the last."""
    first, second = images()
    # large frames see far: a keypoint of scale sigma shows 12 sigma of the image
    config = ScaleSpaceConfig(min_sigma=4, max_sigma=16, enlarge_to=0, levels_per_octave=3, scale_nms=1, border=9)
    detector = LIFTDetector(keypoints, config, pretrained=weights).eval()
    describe = LAFDescriptor(LIFTDescriptor(weights), patch_size=DESCRIPTOR_SIZE)
    with torch.no_grad():
        lafs, _ = detector(first)
        lafs = lafs[:, laf_is_filled(lafs)[0]]
        target = describe(first, lafs)
    motion = torch.zeros(4, requires_grad=True)
    # angle and log scale act over 100 pixels and more: their unit is a hundredth
    unit = torch.tensor([0.01, 0.01, 1.0, 1.0])
    optimizer = torch.optim.Adam([motion], lr=0.5)
    losses, errors = [], []
    for step in range(steps + 1):
        moved = perspective_transform_lafs(similarity(motion * unit), lafs)
        loss = (1 - (describe(second, moved) * target).sum(-1)).mean()
        losses.append(loss.item())
        errors.append(corner_error((motion * unit).detach()))
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses, errors


def draw(losses: list[float], errors: list[float], out: Path) -> None:
    """Draw both curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, values, label in zip(
        figure.subplots(1, 2),
        (losses, errors),
        ("loss: 1 - cosine of the descriptors", "error of the corners, pixels"),
        strict=True,
    ):
        axes.plot(values)
        axes.set_xlabel("step")
        axes.set_title(label, fontsize=9)
        axes.set_yscale("log")
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="lift", help="shipped model or .safetensors file")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--keypoints", type=int, default=30)
    parser.add_argument("--out", type=Path, help="picture of the falling loss")
    args = parser.parse_args()
    losses, errors = register(args.weights, args.steps, args.keypoints)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, corner error {errors[0]:.2f} -> {errors[-1]:.2f} pixels")
    if args.out:
        draw(losses, errors, args.out)


if __name__ == "__main__":
    main()
