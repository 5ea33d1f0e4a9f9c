"""The gradient of score maps, followed into LIFT's response at the few pixels that carry it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse

LossOfScores = Callable[[list[Tensor]], tuple[Tensor, dict[str, float]]]


def loss_by_windows(
    response: LIFTResponse, levels: Sequence[Tensor], loss_of: LossOfScores, keep: int
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of the score maps of images, with a gradient that reaches the network where it is strongest.

    Few pixels, those around candidates, carry the gradient, and the backward pass of a dense 25x25 convolution is ten
    times slower than scoring these few windows again.

    Args:
        response: the network.
        levels: images that it scores, shape (N, 1, H, W) each, values in [0, 1].
        loss_of: loss and figures of their score maps, float32, of the shapes of the images.
        keep: pixels, over all images, whose gradient is followed.

    Returns:
        Loss and figures. Without gradient what ``loss_of`` returns.

    """
    with torch.autocast(levels[0].device.type, enabled=False):  # differences of scores decide: no half precision
        with torch.no_grad():
            images = [response.normalize(level) for level in levels]
            scores = [response.score_normalized(image).float() for image in images]
        if not torch.is_grad_enabled():
            return loss_of(scores)
        scores = [score.requires_grad_() for score in scores]
        loss, figures = loss_of(scores)
        gradients = torch.autograd.grad(loss, scores)
        weighted = _strongest(response, images, gradients, keep)
        return loss.detach() + weighted - weighted.detach(), figures


def _strongest(response: LIFTResponse, images: list[Tensor], gradients: Sequence[Tensor], keep: int) -> Tensor:
    """Sum of the scores whose gradient is strongest, weighted by it."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    strongest = flat.abs().topk(min(keep, len(flat))).indices.sort().values  # image by image
    windows, half, begin = [], FILTER_SIZE // 2, 0
    for image in images:
        pixels, width = image[0].numel(), image.shape[-1]
        at = strongest[(strongest >= begin) & (strongest < begin + image.numel())] - begin
        begin += image.numel()
        padded = F.pad(image[:, 0], (half,) * 4, mode="replicate")
        shifted = padded.unfold(1, FILTER_SIZE, 1).unfold(2, FILTER_SIZE, 1)
        windows.append(shifted[at // pixels, at % pixels // width, at % width])
    return (response.score_windows(torch.cat(windows)[:, None]) * flat[strongest]).sum()
