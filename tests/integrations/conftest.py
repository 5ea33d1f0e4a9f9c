"""A fresh import of the integration modules for every test: they subclass what is installed, or its stand-in."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _fresh_integrations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kornia_lift.integrations.")]:
        if not name.endswith("._extract"):
            monkeypatch.delitem(sys.modules, name)
