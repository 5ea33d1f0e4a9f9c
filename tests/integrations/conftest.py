"""A fresh import of the integration modules for every test: they subclass what is installed, or its stand-in."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

PREFIX = "kornia_lift.integrations."


def _forget() -> None:
    for name in [name for name in sys.modules if name.startswith(PREFIX) and not name.endswith("._extract")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _fresh_integrations() -> Iterator[None]:
    _forget()
    yield
    _forget()  # what was imported beside a stand-in must not reach other tests
