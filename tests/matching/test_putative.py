"""Putative matches and the learned filter: what the network is given, empty inputs, kornia's matcher, the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import DescriptorMatcher, LocalFeatureMatcher
from torch import nn

from kornia_lift._kornia import ShapeError
from kornia_lift.features import Features
from kornia_lift.matching import match_pair
from kornia_lift.matching.filtering import CorrespondenceFilter, FilteredMatcher, PutativeMatcher
from kornia_lift.matching.learned import filter_matches
from kornia_lift.matching.putative import putative_matches
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.weights import WeightFileError


def descriptors(count: int, seed: int, width: int = 16) -> torch.Tensor:
    made = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(made, dim=1)


@pytest.mark.parametrize("count", [40, 1500])
def test_putative_matches_are_the_nearest_ones(count: int) -> None:
    """1500 rows need two chunks."""
    one, other = descriptors(count, 0), descriptors(70, 1)
    found = putative_matches(one, other)
    assert torch.equal(found.pairs[:, 0], torch.arange(count))
    distance = (one.double()[:, None] - other.double()).norm(dim=2)
    two = distance.topk(2, 1, largest=False)
    clear = two.values[:, 0] < 0.999 * two.values[:, 1]  # of equally near ones rounding chooses
    assert clear.double().mean() > 0.9
    assert torch.equal(found.pairs[clear, 1], two.indices[clear, 0])
    assert (found.side[:, 0] - two.values[:, 0] / two.values[:, 1]).abs().max() < 1e-3
    back = distance.topk(2, 0, largest=False)
    sure = clear & (back.values[0] < 0.999 * back.values[1])[two.indices[:, 0]]
    mutual = back.indices[0][two.indices[:, 0]] == torch.arange(count)
    assert torch.equal(found.side[sure, 1] > 0, mutual[sure])


def test_ratio_of_what_cannot_be_told_apart_is_one() -> None:
    one = descriptors(5, 0)
    assert (putative_matches(one, one[:1]).side[:, 0] == 1).all()  # no second-nearest one
    twice = putative_matches(one, torch.cat([one, one]))
    assert (twice.side[:, 0] == 1).all()  # two at distance zero


def test_images_without_keypoints_have_no_matches() -> None:
    some, none = descriptors(5, 0), torch.zeros(0, 16)
    for pair in ((some, none), (none, some), (none, none)):
        found = putative_matches(*pair)
        assert found.pairs.shape == (0, 2)
        assert found.side.shape == (0, 2)


@pytest.mark.parametrize("shapes", [((5, 16), (5, 8)), ((5, 4, 4), (5, 16)), ((5,), (5, 16))])
def test_descriptors_of_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="putative_matches expects"):
        putative_matches(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_ratio_of_zero_without_mutuality_is_told_apart(dtype: torch.dtype) -> None:
    one = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=dtype)
    other = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=dtype)
    expected = putative_matches(one, other).side
    assert expected.tolist() == [[0, 1], [0, 0], [1, 0]]  # the second is the same descriptor as the first
    numbers, _ = PutativeMatcher()(one, other)
    found = PutativeMatcher.side_columns(1 - numbers[:, 0])
    assert found[:, 1].tolist() == [1, 0, 0]
    assert (found - expected.to(dtype)).abs().max() < 0.01


def test_kornias_confidence_tells_ratio_and_mutuality() -> None:
    one, other = descriptors(50, 0), descriptors(60, 1)
    numbers, pairs = PutativeMatcher()(one, other)
    expected = putative_matches(one, other)
    assert torch.equal(pairs, expected.pairs)
    assert (PutativeMatcher.side_columns(1 - numbers[:, 0]) - expected.side).abs().max() < 1e-6


def features(seed: int, count: int = 60) -> Features:
    rng = np.random.default_rng(seed)
    return Features(rng.uniform(0, 400, (count, 2)), descriptors(count, seed).numpy(), image_size=(400, 300))


def network() -> CorrespondenceNet:
    torch.manual_seed(0)
    return CorrespondenceNet(channels=8, blocks=1, side=True).eval()


def test_filtered_pairs_are_one_to_one_and_best_first() -> None:
    pairs, weights, tried = filter_matches(
        features(0), features(1), ((400, 300), (400, 300)), CorrespondenceFilter(network())
    )
    assert len(pairs) <= tried
    assert len(set(pairs[:, 1].tolist())) == len(pairs)
    assert (np.diff(weights) <= 0).all()
    assert ((weights > 0) & (weights <= 1)).all()
    match = match_pair(features(0), features(1), keep=CorrespondenceFilter(network()))
    assert np.array_equal(match.pairs, pairs)


def test_filter_of_images_without_keypoints_is_empty() -> None:
    empty = Features(np.zeros((0, 2)), np.zeros((0, 16), np.float32), image_size=(400, 300))
    keep = CorrespondenceFilter(network())
    for pair in ((empty, features(1)), (features(1), empty)):
        match = match_pair(*pair, keep=keep)
        assert match.pairs.shape == (0, 2)
        assert not match.overlap


def test_fewer_than_eight_matches_give_no_essential_matrix_and_nothing_is_nan() -> None:
    points = torch.rand(5, 2) * 300
    pairs = torch.arange(5)[:, None].expand(-1, 2)
    found = CorrespondenceFilter(network())(points, points + 5, pairs, ((400, 300), (400, 300)), torch.rand(5, 2))
    assert (found.essential == 0).all()
    assert all(t.isfinite().all() for t in found)


def test_network_is_told_of_matches_exactly_where_it_wants_to_be() -> None:
    matches = torch.rand(1, 20, 4) - 0.5
    with pytest.raises(ShapeError, match="expects side=ratio, mutual"):
        network()(matches)
    with pytest.raises(ShapeError, match="expects side=ratio, mutual"):
        network()(matches, side=torch.rand(1, 19, 2))
    with pytest.raises(ShapeError, match="without side"):
        CorrespondenceNet(channels=8, blocks=1).eval()(matches, side=torch.rand(1, 20, 2))


def test_matcher_that_tells_nothing_of_matches_is_refused() -> None:
    with pytest.raises(ValueError, match="PutativeMatcher"):
        FilteredMatcher(LocalFeatureMatcher(nn.Identity(), DescriptorMatcher("nn")), network())


def test_shape_of_the_network_is_that_of_its_file(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "filter.safetensors"
    save({f"correspondence.{n}": t for n, t in network().state_dict().items()}, path)
    again = CorrespondenceNet(path)
    assert again.side
    assert len(again.blocks) == 1
    assert again.input.out_channels == 8
    assert not again.training
    with pytest.raises(WeightFileError, match="do not fit"):
        CorrespondenceNet(path, channels=16)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightFileError, match="are of .*descriptor.*, not of CorrespondenceNet"):
        CorrespondenceNet("lift")
