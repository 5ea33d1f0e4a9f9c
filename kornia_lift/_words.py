"""Counts with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, noun: str, ending: str = "s") -> str:
    """Return ``"1 image"``, ``"2 images"`` and so on; the plural is the noun with an ending."""
    return f"{count} {noun}{'' if count == 1 else ending}"
