"""The script that makes the stores of the paper's recipe keeps apart what has to be apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from kornia_lift.training.data.provenance import OtherSourceError
from kornia_lift.training.data.store import Store, load_store

from .conftest import picture

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "remake_weights.py"


@pytest.fixture
def script(tiny_store: Store, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("remake_weights", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("kornia_lift.scenes.posed.PosedScene", SimpleNamespace(load=lambda scene: scene))
    monkeypatch.setattr(module, "scene_store", lambda scene: tiny_store)
    return module


def test_held_out_stores_lie_apart_and_posed_scenes_are_asked_for(script: ModuleType, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    data, out = tmp_path / "data", tmp_path / "stores"
    (data / "photos").mkdir(parents=True)
    (data / "posed" / "castle").mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(data / "photos" / f"{i}.png"), picture(i))
    held_out = script.build_stores(data, out)
    assert held_out.parent != out
    (train,) = out.glob("*.npz")  # what `--data stores/` would train on
    names = set(load_store(train).names), set(load_store(held_out).names)
    assert names[0] | names[1] == {f"photos/{i}.png" for i in range(3)}
    assert not names[0] & names[1]
    assert script.build_stores(data, out) == held_out
    with pytest.raises(OtherSourceError, match="posed was False, is True"):
        script.build_stores(data, out, posed=True)
    script.build_stores(data, tmp_path / "with", posed=True)
    assert "turned/0" in load_store(tmp_path / "with" / "train-0.npz").names
