"""Frames from structure from motion: the algebra by finite differences, the whole on a real scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.scenes.colmap import read_model
from kornia_lift.training.data.prepare.frames import (
    frames_from_colmap,
    nearest_similarity,
    plane_basis,
    projection_jacobian,
)
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.read import read_source
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.split import SplitConfig, split_store
from kornia_lift.training.data.store import Store
from kornia_lift.training.modern.tracks import CutConfig, cut_tracks


def test_jacobian_is_the_derivative_of_the_projection() -> None:
    ray, focal, step = np.array([0.3, -0.2, 2.0]), 500.0, 1e-6
    directions = plane_basis(np.array([0.1, 0.2, -1.0]))
    assert np.allclose(directions.T @ directions, np.eye(2)) and np.allclose(directions.T @ [0.1, 0.2, -1.0], 0)

    def project(p: np.ndarray) -> np.ndarray:
        return focal * p[:2] / p[2]

    numeric = np.stack([(project(ray + step * d) - project(ray - step * d)) / (2 * step) for d in directions.T], axis=1)
    assert np.allclose(projection_jacobian(ray, directions, focal), numeric, atol=1e-4)


def test_a_camera_that_faces_a_plane_sees_its_basis_unmirrored() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ray = rng.normal(size=3) + np.array([0.0, 0.0, 4.0])
        basis = plane_basis(-ray / np.linalg.norm(ray))
        assert np.linalg.det(projection_jacobian(ray, basis, 500.0)) > 0


def test_nearest_similarity_of_similarities_and_of_a_mirror() -> None:
    angle = np.array([0.0, 0.7, -2.5])
    scale = np.array([1.0, 3.0, 0.2])
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    found = nearest_similarity(rotation * scale[:, None, None])
    assert np.allclose(found[0], scale) and np.allclose(found[1], angle) and found[2].all()
    assert not nearest_similarity(np.diag([1.0, -1.0])[None])[2].any()


@pytest.fixture(scope="module")
def et(shared: Path) -> Store:
    pytest.importorskip("pycolmap")
    return read_source(Source("sfm", "et", shared / "data" / "train" / "sfm" / "et"), ReadOptions(points_per_scene=800))


def test_patches_of_a_real_track_look_alike(et: Store) -> None:
    tracks = cut_tracks(et, CutConfig(points_per_scene=80, max_sigma=4.0))
    # the central region of the descriptor, without the context around it
    flat = tracks.pixels[:, 32:72, 32:72].flatten(1).float()
    flat = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    alike = flat @ flat.T
    same = (tracks.track[:, None] == tracks.track[None]) & ~torch.eye(len(flat), dtype=torch.bool)
    assert same.sum() > 50
    assert alike[same].median() > 0.7
    assert alike[~same].median().abs() < 0.2


def test_a_divided_scene_shares_neither_image_nor_location(et: Store) -> None:
    train, held_out = split_store(et, SplitConfig(share=0.4))
    assert (len(train.images), len(held_out.images)) == (5, 4)
    assert not set(train.names) & set(held_out.names)
    columns = [{tuple(xy) for xy in part.tracks.xy.round(3).tolist()} for part in (train, held_out)]
    assert columns[0] and columns[1]
    one, two = (cut_tracks(s, CutConfig(points_per_scene=300)) for s in (train, held_out))
    assert len(one) > len(two) > 0


def test_a_store_keeps_what_both_recipes_need(et: Store) -> None:
    assert len(et.images) == 9 and all(image.camera is not None for image in et.images)
    views = np.bincount(et.tracks.point)
    assert views.min() >= 2
    # the paper's recipe needs confirmed SIFT frames, the modern one any location
    sift = et.with_sift_frames()
    assert 0 < len(np.unique(sift.point)) < len(views)
    counts = et.counts["et"]
    assert counts["found"] >= counts["tracked"] >= counts["near_sift"] >= counts["large"] >= counts["confirmed"]
    assert counts["supported"] >= len(np.unique(sift.point))


def test_positions_are_those_of_the_model(shared: Path) -> None:
    names, seen = frames_from_colmap(read_model(shared / "data" / "train" / "sfm" / "et"))
    assert len(names) == 9 and len(seen.xy) == len(seen.point) == len(seen.jacobian)
    assert (seen.xy > -0.5).all() and (np.bincount(seen.point)[np.unique(seen.point)] >= 2).all()
