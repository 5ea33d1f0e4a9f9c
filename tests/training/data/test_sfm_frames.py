"""Frames from structure from motion: the algebra by finite differences, the whole on a real scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kornia_lift.training.data.images import PhotoSources
from kornia_lift.training.data.sfm_frames import nearest_similarity, plane_basis, projection_jacobian, read_sfm
from kornia_lift.training.data.split import SplitConfig, find_sources, split_sources
from kornia_lift.training.modern.tracks import CutConfig, _observations, cut_tracks


def test_jacobian_is_the_derivative_of_the_projection() -> None:
    ray, focal, step = np.array([0.3, -0.2, 2.0]), 500.0, 1e-6
    directions = plane_basis(np.array([0.1, 0.2, -1.0]))
    assert np.allclose(directions.T @ directions, np.eye(2)) and np.allclose(directions.T @ [0.1, 0.2, -1.0], 0)

    def project(p: np.ndarray) -> np.ndarray:
        return focal * p[:2] / p[2]

    numeric = np.stack([(project(ray + step * d) - project(ray - step * d)) / (2 * step) for d in directions.T], axis=1)
    assert np.allclose(projection_jacobian(ray, directions, focal), numeric, atol=1e-4)


def test_nearest_similarity_of_similarities_and_of_a_mirror() -> None:
    angle = np.array([0.0, 0.7, -2.5])
    scale = np.array([1.0, 3.0, 0.2])
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    found = nearest_similarity(rotation * scale[:, None, None])
    assert np.allclose(found[0], scale) and np.allclose(found[1], angle) and found[2].all()
    assert not nearest_similarity(np.diag([1.0, -1.0])[None])[2].any()


def test_patches_of_a_real_track_look_alike(shared: Path) -> None:
    scene = shared / "data" / "train" / "sfm" / "et"
    tracks = cut_tracks(PhotoSources((scene,), (), ()), CutConfig(points_per_scene=80, max_sigma=4.0))
    # the central square of the descriptor, without the context around it
    flat = tracks.pixels[:, 32:72, 32:72].flatten(1).float()
    flat = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    alike = flat @ flat.T
    same = (tracks.track[:, None] == tracks.track[None]) & ~torch.eye(len(flat), dtype=torch.bool)
    assert same.sum() > 50
    assert alike[same].median() > 0.7
    assert alike[~same].median().abs() < 0.2


def test_parts_of_a_scene_share_neither_photograph_nor_point(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "et").symlink_to(shared / "data" / "train" / "sfm" / "et")
    parts = [s.parts[0] for s in split_sources(tmp_path, split=SplitConfig(share=0.4))]
    seen = [_observations(part) for part in parts]
    assert not set(parts[0].images) & set(parts[1].images)
    assert not set(seen[0].point) & set(seen[1].point)
    for part, of in zip(parts, seen, strict=True):
        assert {of.images[i] for i in of.image} == set(part.images)
    train, held_out = (cut_tracks(s, CutConfig(points_per_scene=300)) for s in split_sources(tmp_path))
    assert len(train) > len(held_out) > 0
    assert not set(train.image.tolist()) & set(held_out.image.tolist())


def test_positions_are_those_of_the_model(shared: Path) -> None:
    seen = read_sfm(shared / "data" / "train" / "sfm" / "et")
    assert len(seen.images) == 9 and len(seen.xy) == len(seen.point) == len(seen.jacobian)
    assert (seen.xy > -0.5).all() and (np.bincount(seen.point)[np.unique(seen.point)] >= 2).all()


def test_validation_split_is_never_trained_on(shared: Path) -> None:
    root = shared / "data" / "train"
    train, held_out = find_sources(root), find_sources(root, validation=True)
    for kind in ("sfm", "photos", "brackets"):
        assert getattr(held_out, kind) and not set(getattr(train, kind)) & set(getattr(held_out, kind))
    assert {p.name for p in held_out.sfm} == {"cyprus_arches", "golden_statue", "reichstag", "street2"}
