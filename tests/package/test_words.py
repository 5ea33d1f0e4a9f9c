"""Counts in messages agree with their nouns."""

import pytest

from kornia_lift._words import counted


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (-1, "-1 images")])
def test_counted(count: int, text: str) -> None:
    assert counted(count, "image") == text
    assert counted(count, "match", "es") == text.replace("images", "matches").replace("image", "match")
