"""The script that makes the stores of the shipped weights keeps apart what has to be apart."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kornia_lift.training.data.prepare.provenance import OtherSourceError
from kornia_lift.training.data.store import load_store
from tests.helpers.repository import load_script
from tests.helpers.training import picture


@pytest.fixture
def script() -> ModuleType:
    return load_script("scripts/remake_weights.py")


def test_held_out_stores_lie_apart_and_posed_scenes_are_asked_for(script: ModuleType, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    data, out = tmp_path / "data", tmp_path / "stores"
    (data / "photos").mkdir(parents=True)
    wall = data / "posed" / "wall"
    wall.mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(data / "photos" / f"{i}.png"), picture(i))
        cv2.imwrite(str(wall / f"{i + 1}.png"), picture(7))
    np.savetxt(wall / "H_1_2", np.eye(3))
    for source in script.find_sources(data):
        assert source.kind in ("homography", "single")
    held_out = script.build_stores(data, out)
    assert held_out.parent != out
    (train,) = out.glob("*.npz")  # what `--data stores/` would train on
    names = set(load_store(train).names), set(load_store(held_out).names)
    assert not names[0] & names[1]
    assert {n for n in names[0] | names[1] if n.startswith("photos")} == {f"photos/{i}.png" for i in range(3)}
    assert script.build_stores(data, out) == held_out
    with pytest.raises(OtherSourceError, match="posed was False, is True"):
        script.build_stores(data, out, posed=True)
