"""Greedy non-maximum suppression of keypoints by location, across all scales: the strongest one of every location."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UNDECIDED, KEPT, SUPPRESSED = 0, 1, 2
ROUNDS = 16  # of suppress_all: 10 were enough for the best 6000 candidates of each of 14 images
FIRST_LOOK = 4096  # candidates of an image looked at first; then twice as many, until enough of them survive
DENSE = 8192  # keypoints of an image up to which a GPU compares all pairs: 64 million distances take it a millisecond


def suppress(image: Tensor, xy: Tensor, score: Tensor, radius: Tensor, count: int | None = None) -> Tensor:
    """Keep a keypoint unless a stronger kept one lies closer than the radius of that stronger one.

    This is the exact result of going through the keypoints of each image by decreasing score (of equal scores, the
    first one first). Memory grows with the number of keypoints and of pairs that are closer than a radius.

    Args:
        image: index of the image of each keypoint, shape (M,).
        xy: locations in pixels, shape (M, 2).
        score: shape (M,).
        radius: radius in pixels within which each keypoint suppresses weaker ones, shape (M,).
        count: keypoints wanted per image: candidates too weak to be among them are not looked at. ``None``: all.

    Returns:
        Indices of the kept keypoints, by image and decreasing score; at least the ``count`` strongest of each image.

    """
    image, xy, score, radius = image.detach(), xy.detach(), score.detach(), radius.detach()
    order = score.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]
    image, xy, radius = image[order], xy[order], radius[order]
    total = torch.bincount(image) if len(image) else image
    rank = torch.arange(len(image), device=image.device) - (total.cumsum(0) - total)[image]
    alive, looked_at = torch.ones_like(image, dtype=torch.bool), FIRST_LOOK
    while True:
        # what survives among the strongest does not depend on the weaker ones
        first = ((rank < looked_at) & alive).nonzero()[:, 0]
        survives = _greedy(image[first], xy[first], radius[first])
        alive[first[~survives]] = False
        kept = first[survives]
        done = total <= looked_at
        if count is not None:
            done |= torch.bincount(image[kept], minlength=len(total)) >= count
        if bool(done.all()):
            return order[kept]
        looked_at *= 2


def suppress_all(xy: Tensor, radius: Tensor, valid: Tensor) -> Tensor:
    """Same as :func:`suppress`, by operations that are the same for all values, as a graph needs them.

    All pairs are compared: memory grows with the square of the number of keypoints. The survival of a keypoint may
    depend on a chain of keypoints, each of which would suppress the next: up to :data:`ROUNDS` of them are followed.

    Args:
        xy: locations in pixels, keypoints of each image by decreasing score, shape (B, N, 2).
        radius: radius in pixels within which each keypoint suppresses weaker ones, shape (B, N).
        valid: which of the keypoints exist, shape (B, N).

    Returns:
        Which keypoints survive, shape (B, N).

    """
    x, y = xy.unbind(-1)
    distance = (x[:, :, None] - x[:, None]).square() + (y[:, :, None] - y[:, None]).square()
    rank = torch.arange(xy.shape[1], device=xy.device)
    reached = (distance < radius.square()[:, None]) & (rank < rank[:, None])  # the second would suppress the first
    pairs = (reached & valid[:, None]).to(xy.dtype)
    survives = valid
    for _ in range(ROUNDS):
        survives = valid & (torch.bmm(pairs, survives.to(xy.dtype)[..., None])[..., 0] == 0)
    return survives


def _greedy(image: Tensor, xy: Tensor, radius: Tensor) -> Tensor:
    """Return which keypoints, the strongest of each image first, survive; shape (M,)."""
    weaker, stronger = _close_pairs(image, xy, radius)
    state = torch.full_like(image, UNDECIDED)
    while len(weaker):
        # kept: everything that could still suppress it has been suppressed
        waiting = torch.zeros_like(state, dtype=torch.bool).index_fill_(0, weaker, True)
        state.masked_fill_((state == UNDECIDED) & ~waiting, KEPT)
        hit = torch.zeros_like(state).index_add_(0, weaker, (state[stronger] == KEPT).long()) > 0
        state.masked_fill_(hit, SUPPRESSED)
        # a single list of what is left, since each waits for a GPU
        left = ((state[weaker] == UNDECIDED) & (state[stronger] == UNDECIDED)).nonzero()[:, 0]
        weaker, stronger = weaker[left], stronger[left]
    return state != SUPPRESSED


def _close_pairs(image: Tensor, xy: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """List the pairs of a keypoint and a stronger one within whose radius it lies, as two index tensors (P,).

    Keypoints come image by image and by decreasing score.
    """
    if image.device.type != "cpu":
        counts = torch.bincount(image).tolist()
        if max(counts, default=0) <= DENSE:
            return pairs_by_comparison(counts, xy, radius)
    return pairs_by_cells(image, xy, radius)


def pairs_by_comparison(counts: Sequence[int], xy: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Compare all pairs of each image, of which there are ``counts``: few operations, each a large one."""
    weaker, stronger, begin = [radius.new_empty(0).long()], [radius.new_empty(0).long()], 0
    for count in counts:
        at, reach = xy[begin : begin + count], radius[begin : begin + count]
        close = (at[:, None] - at).square().sum(-1) < reach[:, None].square()
        one, other = (close.triu(1).nonzero() + begin).unbind(1)
        weaker.append(other)
        stronger.append(one)
        begin += count
    return torch.cat(weaker), torch.cat(stronger)


def pairs_by_cells(image: Tensor, xy: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Compare the keypoints of neighbouring cells.

    Keypoints with radii within one octave are looked up in one grid of cells of the largest of these radii: what lies
    within a radius is in the 3x3 cells around, three runs of the keypoints sorted by cell.
    """
    weaker, stronger = [image.new_empty(0)], [image.new_empty(0)]
    reaching = radius > 0
    octave = torch.where(reaching, radius, torch.ones_like(radius)).log2().floor()
    for this in octave[reaching].unique().tolist():
        mine = ((octave == this) & reaching).nonzero()[:, 0]
        cell = (xy / 2 ** (this + 1)).floor().long()
        cell -= cell.amin(0) - 1  # a frame of empty cells keeps rows and images apart
        cols, rows = (cell.amax(0) + 2).tolist()
        key = (image * rows + cell[:, 1]) * cols + cell[:, 0]
        key, by_cell = key.sort()
        for shift in (-cols, 0, cols):
            middle = (image[mine] * rows + cell[mine, 1]) * cols + cell[mine, 0] + shift
            start = torch.searchsorted(key, middle - 1)
            length = torch.searchsorted(key, middle + 1, right=True) - start
            one = mine.repeat_interleave(length)
            run = torch.arange(len(one), device=one.device) - (length.cumsum(0) - length).repeat_interleave(length)
            other = by_cell[start.repeat_interleave(length) + run]
            # keypoints come by decreasing score: a larger index is weaker
            close = (other > one) & ((xy[one] - xy[other]).square().sum(1) < radius[one].square())
            weaker.append(other[close])
            stronger.append(one[close])
    return torch.cat(weaker), torch.cat(stronger)
