"""Pairs of posed images: on a real scene, whose points say where matches lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kornia_lift.training.data.posed_pairs import (
    PairConfig,
    PosedPair,
    choose_partners,
    epipolar_distance,
    is_seen,
    label_by_error,
    posed_pairs,
)
from kornia_lift.training.data.prepare.read import read_source
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.split import take_images
from kornia_lift.training.data.store import Store


@pytest.fixture(scope="module")
def et(shared: Path) -> Store:
    pytest.importorskip("pycolmap")
    return read_source(Source("sfm", "et", shared / "data" / "train" / "sfm" / "et"))


@pytest.mark.parametrize("max_size", [1024, 512])
def test_common_points_of_a_real_scene_lie_on_their_epipolar_lines(et: Store, max_size: int) -> None:
    images, pairs = posed_pairs(et, PairConfig(max_images=4, max_size=max_size))
    assert len(images) == 4 and len(pairs) >= 3
    assert all(max(image.gray.shape) <= max_size for image in images)
    for pair in pairs:
        first, second = pair.shared
        assert len(first) >= 40
        height, width = images[pair.first].gray.shape
        assert (first > -0.5).all() and (first < [width, height]).all()
        error = epipolar_distance(pair, images, first, second)
        assert np.median(error) < 0.6
        # points of another location lie on the line by chance only
        assert np.median(epipolar_distance(pair, images, first, second[::-1])) > 10
        assert is_seen(pair, images, 0, first, 0.03).all()
        assert not is_seen(pair, images, 1, np.full((1, 2), -500.0), 0.03).any()


def test_both_distances_count() -> None:
    class Image:
        factor = 0.5

        def ideal(self, points: np.ndarray) -> np.ndarray:
            return points

    # a camera that moves along x, with a second image of twice the focal length: rows double
    pair = PosedPair(0, 1, np.array([[0.0, 0, 0], [0, 0, -0.5], [0, 1, 0]]), np.zeros((2, 0, 2)))
    error = epipolar_distance(pair, [Image(), Image()], np.array([[3.0, 10.0]]), np.array([[50.0, 28.0]]))  # type: ignore[list-item]
    assert error == pytest.approx([4.0])  # 8 px in the second image, 4 in the first, both of half the size


def test_partners_spread_over_the_overlap() -> None:
    observed = [{n: np.zeros(2) for n in range(start, start + 100)} for start in (0, 5, 20, 40, 60, 95)]
    config = PairConfig(partners=2, min_shared=10, min_overlap=0.1, max_overlap=0.9)
    pairs = choose_partners(observed, config)
    # of the first image: 95 % are too many, 5 too few; the widest and the narrowest of the others
    assert [j for i, j in pairs if i == 0] == [2, 4]
    assert choose_partners(observed[:1], config) == []


def test_a_held_out_part_of_a_scene_keeps_to_its_images(et: Store) -> None:
    part = take_images(et, np.arange(len(et.images)) < 3)
    images, pairs = posed_pairs(part)
    assert len(images) <= 3 and {i for pair in pairs for i in (pair.first, pair.second)} <= {0, 1, 2}
    assert posed_pairs(take_images(et, np.zeros(len(et.images), dtype=bool))) == ([], [])


def test_labels_fall_linearly() -> None:
    assert label_by_error(np.array([0.0, 1.0, 1.75, 2.5, 9.0]), 1.0, 2.5).tolist() == [1, 1, 0.5, 0, 0]
    with pytest.raises(ValueError, match="loose"):
        PairConfig(exact=2.0, loose=1.0)
