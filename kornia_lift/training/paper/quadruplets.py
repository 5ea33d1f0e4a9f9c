"""Draw the quadruplets P1..P4 of the paper's training and cut their patches (LIFT spec 2, 4, 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d
from torch import Generator, Tensor

from kornia_lift.geometry import BIG_SIZE, DESCRIPTOR_HALF_SUPPORT, DESCRIPTOR_SIZE, DETECTOR_HALF_SUPPORT
from kornia_lift.training.data.negatives import ROTATED_SUPPORT
from kornia_lift.training.data.photometric import BEST_QUALITY, cast_shadows, compress, draw_qualities, draw_shadows
from kornia_lift.training.data.store import Places, Store
from kornia_lift.training.limits import check_limits
from kornia_lift.training.paper.atlas import ImageAtlas, gray_statistics, square_axes

PERTURBATION = 0.2  # of the half side of P, uniform in x and y: 20 % of 24 sigma in all (paper Sec. 3.2)
#: Half side, in sigma, of what a training patch may need: turned by any angle, and moved by the perturbation.
SUPPORT = ROTATED_SUPPORT * (1 + PERTURBATION)
#: :attr:`Quadruplets.light` of a view that is left as it was taken.
SAME_LIGHT = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SyntheticView:
    """How far the second view of a place in a single photograph is from the first.

    Args:
        stretch: largest ratio of the axes (a slanted view).
        zoom: largest change of scale.
        turn: largest change of direction, radians.
        exposure: largest factor of brightness.
        gamma: largest exponent of the gray values.
        noise: largest standard deviation of pixel noise, in [0, 1] grey units.
        blur: largest standard deviation of additional blur, in pixels of the descriptor's patch; half of the views
            stay sharp.
        shadow: share of the views over which the edge of a cast shadow runs.
        shadow_depth: largest share of the light that it takes.
        jpeg: share of the views that are compressed as JPEG.
        jpeg_quality: lowest quality; the highest is 90.

    """

    stretch: float = 1.6
    zoom: float = 1.5
    turn: float = math.pi / 6
    exposure: float = 1.4
    gamma: float = 1.4
    noise: float = 0.03
    blur: float = 1.0
    shadow: float = 0.15
    shadow_depth: float = 0.6
    jpeg: float = 0.15
    jpeg_quality: int = 30

    def __post_init__(self) -> None:
        check_limits(self, "stretch", "zoom", "exposure", "gamma", at_least=1)
        check_limits(self, "turn", "noise", "blur", at_least=0)
        check_limits(self, "shadow", "shadow_depth", "jpeg", at_least=0, at_most=1)
        check_limits(self, "jpeg_quality", at_least=1, at_most=BEST_QUALITY)


class QuadrupletSampler:
    """Draw places: P1 and P2 show one point, P3 another point, P4 none.

    Args:
        store: photographs and places.
        device: where patches are cut.
        synthetic: second views of places that are seen once.

    Raises:
        ValueError: if the store has fewer than two points, or no empty region.

    """

    def __init__(
        self, store: Store, device: torch.device | str = "cpu", synthetic: SyntheticView | None = None
    ) -> None:
        if not len(store.empty):
            raise ValueError(
                "the store has no region free of keypoints: add photographs with smooth parts (sky, walls)"
            )
        images = [store.decode(index) for index in range(len(store.names))]
        self.mean, self.std = gray_statistics(images)
        self.atlas = ImageAtlas(images, device)
        self._size = torch.tensor([[i.shape[1], i.shape[0]] for i in images])
        self.synthetic = synthetic or SyntheticView()
        self._places, self._empty = _Table(store.places), _Table(store.empty)
        order = torch.argsort(self._places.point, stable=True)
        self._by_point = order
        _, self._count = torch.unique_consecutive(self._places.point[order], return_counts=True)
        self._begin = self._count.cumsum(0) - self._count
        if len(self._count) < 2:
            raise ValueError(f"quadruplets need at least two points, the store has {len(self._count)}")

    @property
    def num_points(self) -> int:
        """Number of different places."""
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
        p1, p2, p3, p4 = *(self._places.take(row) for row in rows), self._empty.take(empty)
        warp = torch.eye(2).repeat(number, 4, 1, 1)
        light = torch.tensor(SAME_LIGHT).repeat(number, 4, 1)
        single = views == 1
        warp[single, 1], light[single, 1] = self._synthetic_view(p2.take(single), generator)
        tables = [torch.stack([getattr(p, n) for p in (p1, p2, p3, p4)], dim=1) for n in _Table.COLUMNS]
        image, _, xy, sigma, theta = tables
        theta[single, 1] -= _turn_of(warp[single, 1])  # SIFT's angle, carried into the synthetic view
        return Quadruplets(image, xy, sigma, theta, warp, light, first_point, other_point)

    def moved_patches(
        self,
        quadruplets: Quadruplets,
        branches: tuple[int, ...],
        turn: Tensor,
        shift: Tensor,
        noise: Generator,
        size: int = BIG_SIZE,
    ) -> Tensor:
        """Cut patches P over 24 sigma, whose content is turned and moved.

        They are cut from the photograph itself, so a turned patch shows what is really there: no corner is made up
        and the support stays 24 sigma.

        Args:
            quadruplets: N of them.
            branches: which of P1..P4 (0..3), k of them.
            turn: clockwise turn of the content in radians, (N, k).
            shift: where the keypoint lies in its patch, in patch units, (N, k, 2).
            noise: source of the pixel noise of synthetic views.
            size: side in pixels, 128 for P itself, 48 for what the detector sees of it.

        Returns:
            Patches (N, k, size, size) in [0, 1].

        """
        pick = list(branches)
        sigma, warp = quadruplets.sigma[:, pick], quadruplets.warp[:, pick]
        axes = warp @ square_axes((DETECTOR_HALF_SUPPORT * sigma).flatten(), -turn.flatten()).view(*sigma.shape, 2, 2)
        centre = quadruplets.xy[:, pick] - (axes @ shift[..., None])[..., 0]
        return self._cut(quadruplets, pick, centre, axes, size, noise, size / BIG_SIZE)

    def descriptor_patches(self, quadruplets: Quadruplets, branches: tuple[int, ...], noise: Generator) -> Tensor:
        """Cut the descriptor's patches, 64 px over 12 sigma, at the keypoint and at SIFT's angle.

        Returns:
            Patches (N, k, 64, 64) in [0, 1].

        """
        pick = list(branches)
        sigma, theta = quadruplets.sigma[:, pick], quadruplets.theta[:, pick]
        axes = square_axes((DESCRIPTOR_HALF_SUPPORT * sigma).flatten(), theta.flatten()).view(*sigma.shape, 2, 2)
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
        """Cut patches and change their light; ``density`` in pixels per pixel of the descriptor's patch."""
        number = len(quadruplets.image)
        patches = self.atlas.cut(
            quadruplets.image[:, pick].flatten(), centre.flatten(0, 1), axes.flatten(0, 1), size
        ).view(number, len(pick), size, size)
        light = quadruplets.light[:, pick]
        changed = torch.nonzero((light != torch.tensor(SAME_LIGHT)).any(dim=2), as_tuple=True)
        if len(changed[0]):
            there = tuple(index.to(patches.device) for index in changed)
            patches[there] = self._relit(patches[there][:, None], light[changed], noise, density)[:, 0]
        return patches

    def _relit(self, patches: Tensor, light: Tensor, noise: Generator, density: float) -> Tensor:
        """Change the light of patches (N, 1, S, S) as the rows of ``light`` (N, 8) say."""
        exposure, gamma, strength = light[:, :3, None, None, None].to(patches).unbind(1)
        patches = cast_shadows(patches, light[:, 5:])
        blurred = torch.nonzero(light[:, 3])[:, 0]
        if len(blurred):
            kernel = 2 * math.ceil(2 * self.synthetic.blur * density) + 1
            sigma = (light[blurred, 3:4] * density).to(patches).expand(-1, 2)
            blurred = blurred.to(patches.device)
            patches[blurred] = gaussian_blur2d(patches[blurred], kernel, sigma, "replicate")
        grain = torch.randn(patches.shape, generator=noise).to(patches)
        lit = ((patches * exposure).clamp(1e-4, 1) ** gamma + grain * strength).clamp(0, 1)
        return compress(lit, light[:, 4])

    def _synthetic_view(self, seen: _Table, generator: Generator) -> tuple[Tensor, Tensor]:
        view, count = self.synthetic, len(seen)

        def factor(limit: float) -> Tensor:
            return torch.exp((torch.rand(count, generator=generator) * 2 - 1) * math.log(limit))

        ratio = torch.exp(torch.rand(count, generator=generator) * math.log(view.stretch)).sqrt()
        axis = square_axes(torch.ones(count), torch.rand(count, generator=generator) * math.pi)
        turn = (torch.rand(count, generator=generator) * 2 - 1) * view.turn
        stretch = axis @ torch.diag_embed(torch.stack([ratio, 1 / ratio], dim=1)) @ axis.mT
        # no farther away than the photograph has pixels for the whole support
        size = self._size[seen.image]
        room = torch.minimum(seen.xy, size - 1 - seen.xy).amin(dim=1) / (SUPPORT * seen.sigma)
        zoom = torch.minimum(factor(view.zoom), room / ratio)
        light = torch.zeros(count, len(SAME_LIGHT))
        light[:, 0], light[:, 1] = factor(view.exposure), factor(view.gamma)
        light[:, 2] = torch.rand(count, generator=generator) * view.noise
        if view.blur:
            light[:, 3] = (torch.rand(count, generator=generator) * 2 - 1).clamp(min=0) * view.blur
        light[:, 4] = draw_qualities(generator, count, view.jpeg, view.jpeg_quality)
        light[:, 5:] = draw_shadows(generator, count, view.shadow, view.shadow_depth)
        return square_axes(zoom, turn) @ stretch, light


@dataclass(frozen=True)
class Quadruplets:
    """N quadruplets; column i is P(i+1).

    Args:
        image: photograph, (N, 4).
        xy: keypoint in pixels, (N, 4, 2).
        sigma: scale in pixels, (N, 4).
        theta: SIFT angle in radians, clockwise, in the view that is cut, (N, 4).
        warp: local map from the view that is cut to the photograph; the identity except for synthetic views,
            (N, 4, 2, 2).
        light: exposure, gamma, noise, blur, JPEG quality (0: none) and shadow (direction, edge, depth) of the view,
            (N, 4, 8).
        point: point of P1 and P2, (N,).
        other_point: point of P3, (N,).

    """

    image: Tensor
    xy: Tensor
    sigma: Tensor
    theta: Tensor
    warp: Tensor
    light: Tensor
    point: Tensor
    other_point: Tensor


class _Table:
    """Places as tensors."""

    COLUMNS = ("image", "point", "xy", "sigma", "theta")

    def __init__(self, places: Places) -> None:
        self.image = torch.from_numpy(places.image).long()
        self.point = torch.from_numpy(places.point).long()
        self.xy = torch.from_numpy(places.xy)
        self.sigma = torch.from_numpy(places.sigma)
        self.theta = torch.from_numpy(places.theta)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> _Table:
        """Return the chosen rows."""
        chosen = object.__new__(_Table)
        for name in self.COLUMNS:
            setattr(chosen, name, getattr(self, name)[rows])
        return chosen


def _turn_of(warp: Tensor) -> Tensor:
    """Clockwise turn of the rotation nearest to each map, radians, (N, 2, 2) to (N,)."""
    return torch.atan2(warp[:, 1, 0] - warp[:, 0, 1], warp[:, 0, 0] + warp[:, 1, 1])


def draw_shift(generator: Generator, count: int, branches: int) -> Tensor:
    """Uniform perturbation of the place of the keypoint, in patch units, shape (count, branches, 2)."""
    return (torch.rand(count, branches, 2, generator=generator) * 2 - 1) * PERTURBATION


def draw_turn(generator: Generator, count: int, branches: int, full_circle: bool) -> Tensor:
    """Independent uniform turns in [0, 2 pi), or zeros, shape (count, branches)."""
    turn = torch.rand(count, branches, generator=generator) * (2 * math.pi)
    return turn if full_circle else torch.zeros_like(turn)
