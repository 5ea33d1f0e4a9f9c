"""Limits of numeric options, checked where the options are made."""

from __future__ import annotations

import math
from typing import Any


def check_limits(
    options: Any,
    *names: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    error: type[ValueError] = ValueError,
) -> None:
    """Check that numbers are finite and within limits; ``None`` is not checked.

    Args:
        options: object whose attributes are checked.
        names: of the attributes.
        at_least: smallest value.
        above: all values are larger than this.
        at_most: largest value.
        below: all values are smaller than this.
        error: what is raised.

    Raises:
        ValueError: naming the first attribute that is not.

    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        for kind, limit, good in (
            ("finite", None, math.isfinite(value)),
            ("at least", at_least, at_least is None or value >= at_least),
            ("above", above, above is None or value > above),
            ("at most", at_most, at_most is None or value <= at_most),
            ("below", below, below is None or value < below),
        ):
            if not good:
                raise error(f"{name} must be {kind}{'' if limit is None else f' {limit}'}, got {value}")
