"""Scenes that LF-Net cannot be trained on by depth: depth of another size, depth that is missing, no pose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.posed import PosedViews
from tests.helpers.small_scenes import write_plane_scene

CONFIG = LFNetConfig(size=64, min_step=1.0, max_step=1.5)


def test_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    root = write_plane_scene(tmp_path / "plane")
    depth = sorted((root / "depth").iterdir())[0]
    with image.open(depth) as opened:
        small = opened.resize((opened.width // 2, opened.height // 2), image.Resampling.NEAREST)
    small.save(depth)
    with pytest.raises(ValueError, match="the depth map .* the cameras are for"):
        PosedViews([PosedScene.load(root)], CONFIG).draw(torch.Generator().manual_seed(0), 2)


def test_scene_without_depth_is_refused(tmp_path: Path) -> None:
    root = write_plane_scene(tmp_path / "plane")
    shutil.rmtree(root / "depth")
    (root / "depth").mkdir()
    with pytest.raises(ValueError, match="no scene has a pair of images with depth"):
        PosedViews([PosedScene.load(root)], CONFIG)


def test_pair_that_shares_nothing_sees_nothing(tmp_path: Path) -> None:
    """Depth that is unknown everywhere: the views are drawn, and no pixel of them counts."""
    np = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    root = write_plane_scene(tmp_path / "plane")
    for depth in (root / "depth").iterdir():
        with image.open(depth) as opened:
            size = opened.size
        image.fromarray(np.zeros(size[::-1], np.uint16)).save(depth)
    views = PosedViews([PosedScene.load(root)], CONFIG).draw(torch.Generator().manual_seed(0), 2)
    assert not views["seen_first"].any()
    assert not views["seen_second"].any()
    assert all(t.isfinite().all() for t in views.values())
