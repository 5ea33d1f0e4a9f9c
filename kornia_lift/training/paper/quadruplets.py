"""Draw the quadruplets P1..P4 of the paper's training and cut their patches (paper Sec. 3.1 and 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from kornia_lift._checks import Device
from kornia_lift.geometry import BIG_SIZE, DESCRIPTOR_HALF_SUPPORT, DESCRIPTOR_SIZE, DETECTOR_HALF_SUPPORT
from kornia_lift.training.data.photometric import UNCHANGED, Photometric, apply_photometric, draw_photometric
from kornia_lift.training.data.prepare.negatives import PERTURBATION, SUPPORT
from kornia_lift.training.data.store import Observations, Store
from kornia_lift.training.limits import check_limits
from kornia_lift.training.paper.atlas import ImageAtlas, gray_statistics, rotated_axes


@dataclass(frozen=True)
class SyntheticView(Photometric):
    """How far the second view of a location in a single image is from the first; it also inherits the photometric part.

    Args:
        gain: largest factor of contrast.
        gamma: largest exponent of the gray values.
        stretch: largest ratio of the axes (a slanted view).
        zoom: largest change of scale.
        rotation: largest change of direction, radians.

    """

    gain: float = 1.4
    gamma: float = 1.4
    stretch: float = 1.6
    zoom: float = 1.5
    rotation: float = math.pi / 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, "stretch", "zoom", at_least=1)
        check_limits(self, "rotation", at_least=0)


class QuadrupletSampler:
    """Draw quadruplets: P1 and P2 show one point, P3 another point, P4 none.

    Args:
        store: images and locations.
        device: where patches are cut.
        synthetic: second views of locations that are seen once.

    Raises:
        ValueError: if the store has fewer than two points, or no empty region.

    """

    def __init__(self, store: Store, device: Device = "cpu", synthetic: SyntheticView | None = None) -> None:
        if not len(store.empty):
            raise ValueError("the store has no region free of keypoints: add images with smooth parts (sky, walls)")
        images = [store.decode(index) for index in range(len(store.names))]
        self.mean, self.std = gray_statistics(images)
        self.atlas = ImageAtlas(images, device)
        self._size = torch.tensor([[i.shape[1], i.shape[0]] for i in images])
        self.synthetic = synthetic or SyntheticView()
        self._seen, self._empty = _Table(store.with_sift_frames()), _Table(store.empty)
        order = torch.argsort(self._seen.point, stable=True)
        self._by_point = order
        _, self._count = torch.unique_consecutive(self._seen.point[order], return_counts=True)
        self._begin = self._count.cumsum(0) - self._count
        if len(self._count) < 2:
            raise ValueError(f"quadruplets need at least two points, the store has {len(self._count)}")

    @property
    def num_points(self) -> int:
        """Number of different locations."""
        return len(self._count)

    def draw(self, generator: Generator, count: int) -> Quadruplets:
        """Draw ``count`` quadruplets of different points (of all points, where there are fewer)."""
        first_point = torch.randperm(self.num_points, generator=generator)[:count]
        number = len(first_point)
        views = self._count[first_point]
        one = (torch.rand(number, generator=generator) * views).long()
        jump = 1 + (torch.rand(number, generator=generator) * (views - 1).clamp(min=1)).long()
        # any of the other points: skip the own one
        other_point = (torch.rand(number, generator=generator) * (self.num_points - 1)).long()
        other_point = other_point + (other_point >= first_point)
        third = (torch.rand(number, generator=generator) * self._count[other_point]).long()
        rows = [
            self._by_point[self._begin[first_point] + one],
            self._by_point[self._begin[first_point] + (one + jump) % views],
            self._by_point[self._begin[other_point] + third],
        ]
        empty = (torch.rand(number, generator=generator) * len(self._empty)).long()
        p1, p2, p3, p4 = *(self._seen.take(row) for row in rows), self._empty.take(empty)
        warp = torch.eye(2).repeat(number, 4, 1, 1)
        photometric = torch.tensor(UNCHANGED).repeat(number, 4, 1)
        single = views == 1
        warp[single, 1], photometric[single, 1] = self._synthetic_view(p2.take(single), generator)
        tables = [torch.stack([getattr(p, n) for p in (p1, p2, p3, p4)], dim=1) for n in _Table.COLUMNS]
        image, _, xy, sigma, theta = tables
        theta[single, 1] -= _rotation_of(warp[single, 1])  # SIFT's angle, carried into the synthetic view
        return Quadruplets(image, xy, sigma, theta, warp, photometric, first_point, other_point)

    def moved_patches(
        self,
        quadruplets: Quadruplets,
        branches: tuple[int, ...],
        angle: Tensor,
        shift: Tensor,
        noise: Generator,
        size: int = BIG_SIZE,
    ) -> Tensor:
        """Cut patches P over 24 sigma, whose content is rotated and shifted.

        They are cut from the image itself, so a rotated patch shows what is really there: no corner is filled in
        and the support stays 24 sigma.

        Args:
            quadruplets: N of them.
            branches: which of P1..P4 (0..3), k of them.
            angle: clockwise rotation of the content in radians, (N, k).
            shift: where the keypoint lies in its patch, in patch units, (N, k, 2).
            noise: source of the pixel noise of synthetic views.
            size: side in pixels, 128 for P itself, 48 for what the detector sees of it.

        Returns:
            Patches (N, k, size, size) in [0, 1].

        """
        pick = list(branches)
        sigma, warp = quadruplets.sigma[:, pick], quadruplets.warp[:, pick]
        axes = warp @ rotated_axes((DETECTOR_HALF_SUPPORT * sigma).flatten(), -angle.flatten()).view(*sigma.shape, 2, 2)
        centre = quadruplets.xy[:, pick] - (axes @ shift[..., None])[..., 0]
        return self._cut(quadruplets, pick, centre, axes, size, noise, size / BIG_SIZE)

    def descriptor_patches(self, quadruplets: Quadruplets, branches: tuple[int, ...], noise: Generator) -> Tensor:
        """Cut the descriptor's patches, 64 px over 12 sigma, at the keypoint and at SIFT's angle.

        Returns:
            Patches (N, k, 64, 64) in [0, 1].

        """
        pick = list(branches)
        sigma, theta = quadruplets.sigma[:, pick], quadruplets.theta[:, pick]
        axes = rotated_axes((DESCRIPTOR_HALF_SUPPORT * sigma).flatten(), theta.flatten()).view(*sigma.shape, 2, 2)
        return self._cut(
            quadruplets, pick, quadruplets.xy[:, pick], quadruplets.warp[:, pick] @ axes, DESCRIPTOR_SIZE, noise
        )

    def _cut(
        self,
        quadruplets: Quadruplets,
        pick: list[int],
        centre: Tensor,
        axes: Tensor,
        size: int,
        noise: Generator,
        density: float = 1.0,
    ) -> Tensor:
        """Cut patches and change their illumination; ``density`` in pixels per pixel of the descriptor's patch."""
        number = len(quadruplets.image)
        patches = self.atlas.cut(
            quadruplets.image[:, pick].flatten(), centre.flatten(0, 1), axes.flatten(0, 1), size
        ).view(number, len(pick), size, size)
        photometric = quadruplets.photometric[:, pick]
        changed = torch.nonzero((photometric != torch.tensor(UNCHANGED)).any(dim=2), as_tuple=True)
        if len(changed[0]):
            there = tuple(index.to(patches.device) for index in changed)
            patches[there] = apply_photometric(patches[there][:, None], photometric[changed], noise, density)[:, 0]
        return patches

    def _synthetic_view(self, seen: _Table, generator: Generator) -> tuple[Tensor, Tensor]:
        view, count = self.synthetic, len(seen)

        def factor(limit: float) -> Tensor:
            return torch.exp((torch.rand(count, generator=generator) * 2 - 1) * math.log(limit))

        ratio = torch.exp(torch.rand(count, generator=generator) * math.log(view.stretch)).sqrt()
        axis = rotated_axes(torch.ones(count), torch.rand(count, generator=generator) * math.pi)
        rotation = (torch.rand(count, generator=generator) * 2 - 1) * view.rotation
        stretch = axis @ torch.diag_embed(torch.stack([ratio, 1 / ratio], dim=1)) @ axis.mT
        # no farther away than the image has pixels for the whole support
        size = self._size[seen.image]
        room = torch.minimum(seen.xy, size - 1 - seen.xy).amin(dim=1) / (SUPPORT * seen.sigma)
        zoom = torch.minimum(factor(view.zoom), room / ratio)
        return rotated_axes(zoom, rotation) @ stretch, draw_photometric(generator, count, view)


@dataclass(frozen=True)
class Quadruplets:
    """N quadruplets; column i is P(i+1).

    Args:
        image: index of the image, (N, 4).
        xy: keypoint in pixels, (N, 4, 2).
        sigma: scale in pixels, (N, 4).
        theta: SIFT angle in radians, clockwise, in the view that is cut, (N, 4).
        warp: local map from the view that is cut to the image; the identity except for synthetic views,
            (N, 4, 2, 2).
        photometric: photometric change of the view, a row of
            :func:`~kornia_lift.training.data.photometric.draw_photometric`, (N, 4, 9).
        point: point of P1 and P2, (N,).
        other_point: point of P3, (N,).

    """

    image: Tensor
    xy: Tensor
    sigma: Tensor
    theta: Tensor
    warp: Tensor
    photometric: Tensor
    point: Tensor
    other_point: Tensor


class _Table:
    """Observations as tensors."""

    COLUMNS = ("image", "point", "xy", "sigma", "theta")

    def __init__(self, seen: Observations) -> None:
        self.image = torch.from_numpy(seen.image).long()
        self.point = torch.from_numpy(seen.point).long()
        self.xy = torch.from_numpy(seen.xy)
        self.sigma = torch.from_numpy(seen.sigma)
        self.theta = torch.from_numpy(seen.theta)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> _Table:
        """Return the chosen rows."""
        chosen = object.__new__(_Table)
        for name in self.COLUMNS:
            setattr(chosen, name, getattr(self, name)[rows])
        return chosen


def _rotation_of(warp: Tensor) -> Tensor:
    """Clockwise angle of the rotation nearest to each map, radians, (N, 2, 2) to (N,)."""
    return torch.atan2(warp[:, 1, 0] - warp[:, 0, 1], warp[:, 0, 0] + warp[:, 1, 1])


def draw_shift(generator: Generator, count: int, branches: int) -> Tensor:
    """Uniform perturbation of the position of the keypoint, in patch units, shape (count, branches, 2)."""
    return (torch.rand(count, branches, 2, generator=generator) * 2 - 1) * PERTURBATION


def draw_angle(generator: Generator, count: int, branches: int, full_circle: bool) -> Tensor:
    """Independent uniform angles in [0, 2 pi), or zeros, shape (count, branches)."""
    angle = torch.rand(count, branches, generator=generator) * (2 * math.pi)
    return angle if full_circle else torch.zeros_like(angle)
