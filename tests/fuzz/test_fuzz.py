"""Damaged files of every kind end in documented errors: a short run always, ten thousand files with ``-m slow``."""

from __future__ import annotations

import sys
import zlib

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import H5, in_process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
SHORT, LONG = 12, 230


@pytest.mark.parametrize("name", [*READERS, H5])
def test_damaged_files_are_read_or_refused(name: str) -> None:
    found = in_process(name, 10 * SHORT if name == H5 else SHORT, first=zlib.crc32(name.encode()))
    assert found["failures"] == []
    assert name == H5 or found["refused"] > 0  # the damage is felt


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READERS, H5])
def test_ten_thousand_damaged_files(name: str) -> None:
    assert in_process(name, 5 * LONG if name == H5 else LONG)["failures"] == []


def test_the_long_run_is_long_enough() -> None:
    assert len(READERS) * LONG + 5 * LONG >= 10_000
