"""Stand-ins for the programs whose base classes our extractors inherit, so that their modules can be documented.

A program that is installed is left alone.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: The class that each bridge inherits, by the module that it is imported from.
BASES = {
    "deep_image_matching.extractors.extractor_base": "ExtractorBase",
    "gluefactory.models.base_model": "BaseModel",
    "hloc.utils.base_model": "BaseModel",
    "lightglue.utils": "Extractor",
    "vismatch": "BaseMatcher",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Put the stand-ins into ``sys.modules`` before the modules are imported."""
    provide()
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def provide() -> None:
    """Put the stand-ins into ``sys.modules``."""
    for name, base in BASES.items():
        parts = name.split(".")
        if find_spec(parts[0]) is not None:
            continue
        for depth in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:depth]))
            module.__path__ = []  # a package: others lie below it
            sys.modules.setdefault(module.__name__, module)
        setattr(sys.modules[name], base, type(base, (), {"__module__": name}))
