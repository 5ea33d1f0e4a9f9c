"""Options: what is written is what is read, and nothing misspelt passes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kornia_lift.training.compact.config import CompactConfig
from kornia_lift.training.compact.copies import CopyConfig
from kornia_lift.training.compact.detections import DetectionConfig
from kornia_lift.training.compact.observations import ViewConfig
from kornia_lift.training.config import ConfigError, LoopConfig, from_mapping, read_mapping, to_mapping
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.split import SplitConfig
from kornia_lift.training.held_out.scenes import HeldOutConfig
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.modern.config import ModernConfig
from kornia_lift.training.modern.tracks import CutConfig
from kornia_lift.training.paper.recipe import PaperConfig
from kornia_lift.training.tilde.config import TildeConfig

SEEDED = [
    LoopConfig, SplitConfig, ReadOptions, HeldOutConfig, PaperConfig, ModernConfig, CutConfig, CompactConfig,
    ViewConfig, DetectionConfig, CopyConfig, LFNetConfig, TildeConfig, CorrespondenceConfig,
]  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    scenes: tuple[str, ...] = ()
    size: tuple[int, float] = (1, 2.0)
    root: Path = Path("data")
    loop: LoopConfig = field(default_factory=LoopConfig)


def test_nested_options_survive_json() -> None:
    recipe = Recipe(("a", "b"), (3, 0.5), Path("x"), LoopConfig(steps=7, clip_norm=1.0, optimizer="sgd"))
    assert from_mapping(Recipe, json.loads(json.dumps(to_mapping(recipe)))) == recipe


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('scenes = ["a"]\n[loop]\nsteps = 3\nlearning_rate = 1\n')
    assert from_mapping(Recipe, read_mapping(path)) == Recipe(("a",), loop=LoopConfig(steps=3, learning_rate=1.0))


def test_a_nested_table_keeps_the_outer_defaults_of_what_it_does_not_name() -> None:
    @dataclass(frozen=True)
    class Outer:
        loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=9, optimizer="sgd"))

    assert from_mapping(Outer, {"loop": {"steps": 3}}).loop == LoopConfig(steps=3, optimizer="sgd")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"scense": []}, r"unknown option scense; valid are loop, root, scenes, size"),
        ({"loop": {"step": 3}}, r"unknown option loop\.step; valid are .*steps"),
        ({"loop": {"steps": "many"}}, r"loop\.steps must be int, got 'many'"),
        ({"loop": {"steps": True}}, r"loop\.steps must be int, got True"),
        ({"loop": {"steps": 0}}, r"loop: steps must be at least 1, got 0"),
        ({"loop": {"learning_rate": float("nan")}}, r"loop: learning_rate must be finite, got nan"),
        ({"loop": {"learning_rate": 0}}, r"loop: learning_rate must be above 0, got 0"),
        ({"loop": {"clip_norm": -1}}, r"loop: clip_norm must be above 0, got -1"),
        ({"loop": {"clip_norm": 0}}, r"loop: clip_norm must be above 0, got 0"),
        ({"loop": {"max_minutes": float("inf")}}, r"loop: max_minutes must be finite, got inf"),
        ({"loop": {"momentum": 1.0}}, r"loop: momentum must be below 1, got 1"),
        ({"loop": {"ema_decay": float("nan")}}, r"loop: ema_decay must be finite, got nan"),
        ({"loop": {"optimizer": "lion"}}, r"loop\.optimizer must be one of 'adam', 'adamw', 'sgd', got 'lion'"),
        ({"loop": {"clip_norm": "1"}}, r"loop\.clip_norm must be float"),
        ({"loop": 3}, r"loop must be a table"),
        ({"scenes": "a"}, r"scenes must be a list"),
        ({"scenes": [1]}, r"scenes\[0\] must be str"),
        ({"size": [1]}, r"size must have 2 values"),
    ],
)
def test_what_does_not_fit_is_named(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(Recipe, mapping)


def test_a_required_option_is_named() -> None:
    @dataclass(frozen=True)
    class Needs:
        store: Path

    with pytest.raises(ConfigError, match=r"missing option data\.store"):
        from_mapping(Needs, {}, "data")


@pytest.mark.parametrize("options", SEEDED, ids=lambda options: options.__name__)
def test_a_seed_below_zero_is_refused_by_name(options: type[Any]) -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        options(seed=-1)


@pytest.mark.parametrize(("name", "text"), [("c.toml", "a = "), ("c.json", "{"), ("c.json", "[]"), ("c.yaml", "")])
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        read_mapping(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config file"):
        read_mapping(tmp_path / "none.toml")
