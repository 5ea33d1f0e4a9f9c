"""Training of LF-Net: warps from homographies, tracks and depth agree with the cameras; the stage; the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import extract_patches_simple
from torch import Generator, Tensor, nn

from kornia_lift.detector.lfnet import ChosenPixels, LFNetDetector
from kornia_lift.evaluation.candidates import candidate
from kornia_lift.feature.lfnet import LFNetFeature
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.data.observations import Observations
from kornia_lift.training.data.store import Camera, Store, StoredImage, encode_jpeg
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.recipe import LFNetRecipe
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage, _patches
from kornia_lift.training.lfnet.tracked import TrackedViews
from kornia_lift.training.lfnet.views import ViewSource, WarpedViews, homography_warp
from kornia_lift.training.loop.loop import fit
from kornia_lift.weights import WeightFileError
from tests.helpers.lfnet import SIZE, config, warped
from tests.helpers.training import picture


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_jacobian_of_a_homography_is_that_of_its_differences() -> None:
    matrix = torch.tensor([[[0.9, -0.4, 12.0], [0.35, 1.1, -3.0], [4e-4, -6e-4, 1.0]]], dtype=torch.float64)
    xy, zoom, rotation = homography_warp(matrix, 32)
    across = (xy[:, 15:17, 1:-1] - 0).double()
    right = (xy[:, 15, 2:] - xy[:, 15, :-2]) / 2
    down = (xy[:, 16, 1:-1] - xy[:, 14, 1:-1]) / 2
    area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
    assert across.isfinite().all()
    assert (zoom[:, 15, 1:-1] - area.sqrt()).abs().max() < 1e-4
    angle = torch.atan2(right[..., 1] - down[..., 0], right[..., 0] + down[..., 1])
    assert (rotation[:, 15, 1:-1] - angle).abs().max() < 1e-4


def agreement(views: dict[str, Tensor], mine: str, other: str) -> tuple[Tensor, Tensor]:
    """Correlation of a view with the other one carried to it, where it is seen; and the share that is."""
    xy, seen = views[f"to_{other}"], views[f"seen_{mine}"]
    scaled = xy / ((views[other].shape[-1] - 1) / 2) - 1
    carried = nn.functional.grid_sample(views[other], scaled, align_corners=True)[:, 0]
    here = views[mine][:, 0]
    pairs = [torch.stack([h[s], c[s]]) for h, c, s in zip(here, carried, seen, strict=True)]
    return torch.stack([torch.corrcoef(p)[0, 1] for p in pairs]), seen.float().mean((1, 2))


def test_warped_views_show_the_same_where_they_say_so() -> None:
    views = warped().draw(generator(), 6)
    for mine, other in (("first", "second"), ("second", "first")):
        correlation, share = agreement(views, mine, other)
        assert correlation.median() > 0.8 and share.min() > 0.1
    # back and forth
    there = views["to_second"].round().long()
    b, row, column = views["seen_first"].nonzero(as_tuple=True)
    x, y = there[b, row, column].unbind(1)
    back = views["to_first"][b, y, x]
    step = views["zoom_second"][b, y, x]
    assert ((back - torch.stack([column, row], 1)).norm(dim=1) / step.clamp(min=1)).max() < 1.5
    product = views["zoom_first"][b, row, column] * step
    assert (product.log().abs()).max() < 0.1


def plane_store(tilt: float = 0.25) -> Store:
    """Two images of a textured plane under known cameras, with exact tracks."""
    cv2 = pytest.importorskip("cv2")
    size, focal = 420, 500.0
    k = np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])
    first = picture(3, size)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    translation = np.array([-0.25 * 5, 0.05 * 5, 0.1])
    # the plane z = 5 of the first camera
    homography = k @ (rotation + np.outer(translation, [0, 0, 1]) / 5) @ np.linalg.inv(k)
    second = cv2.warpPerspective(first, homography, (size, size))
    rng = np.random.default_rng(0)
    points = rng.uniform(60, size - 60, (400, 2))
    moved = np.c_[points, np.ones(len(points))] @ homography.T
    depth = moved[:, 2:]
    there = moved[:, :2] / depth
    inside = ((there > 20) & (there < size - 20)).all(1)
    points, there, depth = points[inside], there[inside], depth[inside]
    jacobian = (homography[None, :2, :2] - there[:, :, None] * homography[None, 2:, :2]) / depth[:, :, None]
    zoom = np.sqrt(np.linalg.det(jacobian))
    angle = np.arctan2(jacobian[:, 1, 0] - jacobian[:, 0, 1], jacobian[:, 0, 0] + jacobian[:, 1, 1])
    n = len(points)
    ones, zeros = np.ones(n), np.zeros(n)
    tracks = Observations(
        np.r_[np.zeros(n), np.ones(n)],
        np.r_[np.arange(n), np.arange(n)],
        np.concatenate([points, there]),
        np.r_[ones, zoom],
        np.r_[zeros, angle],
    )
    params = (focal, size / 2, size / 2)
    images = tuple(
        StoredImage(
            f"plane/{name}",
            "plane",
            "sfm",
            encode_jpeg(pixels, 98),
            Camera("SIMPLE_PINHOLE", params, (size, size), r, t),
        )
        for name, pixels, r, t in (("a", first, np.eye(3), np.zeros(3)), ("b", second, rotation, translation))
    )
    return Store(images, tracks, Observations.none())


def test_tracked_views_show_the_same_and_obey_the_cameras() -> None:
    pytest.importorskip("pycolmap")
    c = config(pairs={} or LFNetConfig().pairs)
    c = LFNetConfig(**{**vars(c), "pairs": type(c.pairs)(max_overlap=1.0, min_shared=20)})
    source = TrackedViews(plane_store(), c)
    views = source.draw(generator(2), 6)
    for mine, other in (("first", "second"), ("second", "first")):
        correlation, share = agreement(views, mine, other)
        assert correlation.median() > 0.8 and share.mean() > 0.1
    product = [views["zoom_first"][n][views["seen_first"][n]].log().median() for n in range(6)]
    back = [views["zoom_second"][n][views["seen_second"][n]].log().median() for n in range(6)]
    assert all(abs(a + b) < 0.1 for a, b in zip(product, back, strict=True))


def test_what_leaves_its_epipolar_line_is_not_seen() -> None:
    """Tracks that lie off their epipolar lines are of no use: nothing is seen around them."""
    pytest.importorskip("pycolmap")
    store = plane_store()
    wrong = store.tracks.xy.copy()
    wrong[store.tracks.image == 1, 1] += 12  # epipolar lines are nearly horizontal here
    tracks = Observations(store.tracks.image, store.tracks.point, wrong, store.tracks.sigma, store.tracks.theta)
    c = LFNetConfig(**{**vars(config()), "pairs": type(config().pairs)(max_overlap=1.0, min_shared=20)})
    good = TrackedViews(store, c).draw(generator(2), 4)["seen_first"].float().mean()
    bad = TrackedViews(Store(store.images, tracks, store.empty), c).draw(generator(2), 4)["seen_first"].float().mean()
    assert bad < 0.1 * good


def test_views_of_a_scene_with_depth_agree_with_its_images(shared: Path) -> None:
    from kornia_lift.scenes.posed import PosedScene
    from kornia_lift.training.lfnet.posed import PosedViews

    scene = PosedScene.load(shared / "data/train/posed/castle-P30")
    views = PosedViews([scene], config(min_step=1.0, max_step=2.0)).draw(generator(4), 6)
    correlation, share = agreement(views, "first", "second")
    used = share > 0.02
    assert used.sum() >= 3
    assert correlation[used].median() > 0.6
    seen = views["seen_first"]
    assert (views["to_second"][seen] >= 0).all() and (views["to_second"][seen] <= SIZE - 1).all()


def networks(seed: int = 0) -> LFNetNetworks:
    torch.manual_seed(seed)
    return LFNetNetworks(LFNetDetector(40), LFNetDescriptor())


def stage(**options: object) -> LFNetStage:
    return LFNetStage(networks(), warped(1, 10.0), warped(2, 10.0), config(**options))


@pytest.mark.parametrize("half", [False, True])
def test_patches_show_what_lies_in_their_frames(half: bool) -> None:
    """Of an image whose values are its columns, a patch shows the columns of its samples."""
    ramp = torch.arange(96.0).expand(1, 1, 96, 96)
    images = torch.cat([ramp, ramp.mT])
    xy, scale = torch.tensor([[48.0, 40.0], [30.0, 52.0]]), torch.tensor([1.0, 0.75])
    upright = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    samples = torch.linspace(-16, 16, 32)
    number = torch.arange(2)
    chosen = ChosenPixels(number, number, xy[:, 1].long(), xy[:, 0].long())  # the second slot of the second image
    frames = LFNetDetector.frames_at(xy, scale, upright)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = _patches(images, chosen, frames, 3)[:, 0]
    lafs = torch.zeros(2, 3, 2, 3).index_put((chosen.image, chosen.slot), frames)
    assert (found - extract_patches_simple(images, lafs, 32)[number, number, 0]).abs().max() < 1e-3
    assert (found[0] - (48 + samples)).abs().max() < 1e-3
    assert (found[1] - (52 + 0.75 * samples)[:, None]).abs().max() < 1e-3


def test_every_part_learns_only_from_its_own_losses() -> None:
    made = stage()
    batch = made.batch(generator(), 0)
    zero = {"score": 0.0, "orientation": 0.0, "consistent_scale": 0.0}

    def gradients(**options: object) -> tuple[float, float]:
        LFNetStage(made.networks, warped(1), warped(2), config(**options)).loss(batch)[0].backward()
        norms = []
        for part in (made.networks.detector, made.networks.descriptor):
            norms.append(sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None))
        made.networks.zero_grad()
        return norms[0], norms[1]

    only_descriptor = gradients(**zero, pair=0.0)
    assert only_descriptor[0] == 0 and only_descriptor[1] > 0
    with_pair = gradients(**zero, pair=1.0)
    assert with_pair[0] > 0 and with_pair[1] == pytest.approx(only_descriptor[1], rel=1e-4)


def losses_of_steps(part: str, rate: float, steps: int, **options: object) -> tuple[list[dict[str, float]], LFNetStage]:
    """Figures of the steps of one part, ``detector`` or ``descriptor``, on one batch."""
    made = stage(**options)
    batch = made.batch(generator(), 0)
    optimizer = torch.optim.Adam(getattr(made.networks, part).parameters(), rate)
    found = []
    for _ in range(steps):
        made.networks.zero_grad()
        loss, figures = made.loss(batch)
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in made.networks.parameters())
        optimizer.step()
        found.append(figures)
    return found, made


def test_steps_on_one_batch_lower_the_loss_of_the_descriptor() -> None:
    found, _ = losses_of_steps("descriptor", 1e-3, 5, apart=8.0)
    assert found[-1]["triplet"] < found[0]["triplet"] - 0.03
    assert found[-1]["score"] == found[0]["score"]  # the detector has not changed
    assert found[-1]["keypoints"] > 5
    assert found[-1]["impulses"] > 5


def test_steps_on_one_batch_lower_the_loss_of_the_detector() -> None:
    found, _ = losses_of_steps("detector", 1e-2, 6, pair=0.0, orientation=0.0)
    assert found[-1]["score"] < 0.97 * found[0]["score"]


def test_constant_images_give_a_finite_loss_without_keypoints() -> None:
    made = stage()
    batch = made.batch(generator(), 0)
    batch |= {"first": torch.full_like(batch["first"], 0.5), "second": torch.full_like(batch["second"], 0.5)}
    loss, figures = made.loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.networks.parameters())
    assert figures["keypoints"] < 40


def test_training_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    loop = config().lfnet
    whole = stage()
    fit(whole, loop, tmp_path / "whole", progress=False)
    half = stage()
    fit(half, LoopConfig(**{**vars(loop), "steps": 1}), tmp_path / "parts", progress=False)
    again = stage()
    state = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)
    assert state["step"] == 1
    state["config"]["steps"] = loop.steps
    torch.save(state, tmp_path / "parts" / "last.pt")
    fit(again, loop, tmp_path / "parts", progress=False)
    first, second = (torch.load(tmp_path / run / "last.pt", weights_only=True)["network"] for run in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def single_images() -> Store:
    images = tuple(StoredImage(f"single/{n}", f"single/{n}", "single", encode_jpeg(picture(n))) for n in range(4))
    rows = np.arange(4)
    return Store(images, Observations(rows, rows, np.full((4, 2), 200.0), np.ones(4), np.zeros(4)), Observations.none())


def test_recipe_trains_and_its_file_is_a_feature(tmp_path: Path) -> None:
    recipe = LFNetRecipe(single_images(), tmp_path / "run", config())
    results = recipe.run(progress=False)
    assert results["lfnet"].step == 2 and set(results["lfnet"].figures) >= {"error", "matching_score", "keypoints"}
    recipe.save(tmp_path / "lfnet.safetensors")
    feature = LFNetFeature(30, tmp_path / "lfnet.safetensors")
    lafs, responses, descriptors = feature(torch.from_numpy(picture(9)).float()[None, None, :128, :160] / 255)
    assert lafs.shape == (1, 30, 2, 3) and descriptors.isfinite().all() and bool((responses > 0).any())
    assert candidate(f"mine={tmp_path / 'lfnet.safetensors'}").name == "mine"
    half = recipe.networks.detector.maps.input.weight.half().float()
    assert torch.equal(feature.detector.maps.input.weight, half)
    content = bytearray((tmp_path / "lfnet.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(WeightFileError, match="checksum"):
        LFNetFeature(30, tmp_path / "damaged.safetensors")


def test_a_recipe_starts_from_weights_of_its_own_networks(tmp_path: Path) -> None:
    recipe = LFNetRecipe(single_images(), tmp_path / "run", config(), init="lf-net")
    for name, there in (("detector", LFNetDetector(pretrained=True)), ("descriptor", LFNetDescriptor(True))):
        mine, theirs = recipe.parts[name].state_dict(), there.state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    results = recipe.run(progress=False)
    assert results["lfnet"].step == 2
    with pytest.raises(ValueError, match="'lift', those of this recipe of 'lfnet'; use the recipe modern"):
        LFNetRecipe(single_images(), tmp_path / "other", config(), init="lift")


@pytest.mark.parametrize("largest", [0.0, 10.0, 60.0, 180.0])
def test_warped_views_are_rotated_as_far_as_the_options_say(largest: float) -> None:
    images = [[torch.from_numpy(picture(seed, 300))] for seed in range(2)]
    rotation = WarpedViews(images, SIZE, rotation=largest).draw(generator(), 40)["rotation_first"]
    middle = rotation[:, SIZE // 2, SIZE // 2].abs().rad2deg().max()
    assert 0.8 * largest <= middle <= largest + 25  # slant and perspective rotate a little too


def test_the_pool_of_negatives_shrinks_at_the_given_rate() -> None:
    made = stage(pool_rate=0.5)
    assert [int(made.batch(generator(), step)["pool"][0]) for step in (0, 1000, 3000, 9000)] == [64, 32, 8, 5]
    made = stage(pool=5)
    assert [int(made.batch(generator(), step)["pool"][0]) for step in (0, 1000)] == [5, 5]


def test_sources_say_what_they_lack() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        WarpedViews([], SIZE)
    empty = TrackedViews(Store((), Observations.none(), Observations.none()), config())
    with pytest.raises(ValueError, match="points in common"):
        empty.draw(generator(), 1)
    source: ViewSource = warped()
    assert source.draw(generator(), 1)["first"].shape == (1, 1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 32}, "size must be at least 64"), ({"tracked": 2.0}, "tracked"), ({"scale": 0.5}, "scale")],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)
