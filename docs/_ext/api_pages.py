"""The pages of the API reference, written from the package itself when the site is built: no public name is missing.

Public is what no underscore hides, but for the command line, which has a page of its own. A name is documented once,
where it is imported from: ``kornia_lift`` before the room (``kornia_lift.matching``) before the file.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = "kornia_lift"


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        title: its heading.
        text: what it begins with.
        modules: the modules that it shows, each with all below it that no other page shows.
    """

    title: str
    text: str
    modules: tuple[str, ...]


PAGES = {
    "feature": Page("Features", "The local feature, and mixtures of its parts with kornia's.", ("feature",)),
    "detector": Page("Detector", "The detector: scale space, maxima, suppression, refinement.", ("detector",)),
    "networks": Page(
        "Networks", "The networks: responses, orientations, descriptors, and the correspondence network.", ("networks",)
    ),
    "geometry": Page(
        "Geometry and pictures",
        "Frames, crops and cameras, and the drawing of keypoints and matches.",
        ("geometry", "features", "viz"),
    ),
    "matching": Page(
        "Matching", "Matching of descriptors, verification, overlap of images, learned filtering.", ("matching",)
    ),
    "files": Page(
        "Files and reconstruction",
        "From image files to feature files, and from there to COLMAP.",
        ("extraction", "files", "reconstruction"),
    ),
    "integrations": Page(
        "Other programs", "Bridges to other programs, one module each, imported on demand.", ("integrations",)
    ),
    "weights": Page("Weights", "Shipped weights, and published ones from your own copy.", ("weights", "convert")),
    "scenes": Page("Scenes", "Images with known geometry, in the layouts of public data sets.", ("scenes",)),
    "evaluation": Page("Evaluation", "Evaluation: the runner, its measures, and the reports.", ("evaluation",)),
    "training": Page("Training", "Recipes in general: options, the loop, held-out data.", ("training",)),
    "training_data": Page("Training: data", "From images to stores, and from stores to batches.", ("training.data",)),
    "training_paper": Page(
        "Training: the paper's recipe",
        "The Siamese stages of the paper, and TILDE's.",
        ("training.paper", "training.tilde"),
    ),
    "training_modern": Page(
        "Training: the modern recipe", "The stages that made ``lift``.", ("training.modern", "training.warped")
    ),
    "training_compact": Page(
        "Training: the compact recipe", "The stages that made ``lift-plus``.", ("training.compact",)
    ),
    "training_family": Page(
        "Training: the family",
        "The training of learned correspondences and of LF-Net.",
        ("training.correspondences", "training.lfnet"),
    ),
}


@dataclass
class Documented:
    """A module and the names that are documented there."""

    module: str
    names: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before the sources are read."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "api"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(folder: Path) -> None:
    """Write all pages; those that would not change keep their date."""
    folder.mkdir(exist_ok=True)
    found = {entry.module: entry for entry in documented()}
    for name, page in PAGES.items():
        others = tuple(m for other, p in PAGES.items() if other != name for m in p.modules)
        mine = [entry for module, entry in found.items() if _belongs(module, page.modules, others)]
        text = _page(page, mine)
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def documented() -> Iterator[Documented]:
    """Yield every module, with the names that are documented there and those that are documented elsewhere."""
    seen: set[int] = set()
    top = importlib.import_module(PACKAGE)
    seen.update(id(getattr(top, name)) for name in top.__all__)
    yield Documented(PACKAGE, [name for name in top.__all__ if not name.startswith("_")])
    modules = {name: importlib.import_module(name) for name in public_modules()}
    rooms = {name for name, module in modules.items() if hasattr(module, "__all__")}
    entries = {}
    for name in sorted(modules, key=lambda name: (name not in rooms, name)):  # rooms before files
        entry = Documented(name)
        for member, value in sorted(public_members(modules[name]).items()):
            (entry.elsewhere if id(value) in seen else entry.names).append(member)
            seen.add(id(value))
        entries[name] = entry
    for name in sorted(entries):
        yield entries[name]


def public_modules() -> list[str]:
    """Names of the modules that no underscore hides, without the command line."""
    top = importlib.import_module(PACKAGE)
    names = (found.name for found in pkgutil.walk_packages(top.__path__, f"{PACKAGE}."))
    return [n for n in names if not any(p.startswith("_") for p in n.split(".")) and n.split(".")[1] != "cli"]


def public_members(module: ModuleType) -> dict[str, Any]:
    """Classes and functions that a room offers, or that a file defines."""
    if hasattr(module, "__all__"):
        members = {name: getattr(module, name) for name in module.__all__}
    else:
        members = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    return {
        name: value
        for name, value in members.items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    }


def _belongs(module: str, mine: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether the longest of all prefixes of the module is one of mine."""
    inside = [p for p in (*mine, *others) if f"{module}.".startswith(f"{PACKAGE}.{p}.")]
    return bool(inside) and max(inside, key=len) in mine


def _page(page: Page, entries: list[Documented]) -> str:
    lines = [page.title, "=" * len(page.title), "", page.text, ""]
    for entry in entries:
        if not entry.names and entry.elsewhere:
            continue  # all of it stands with its room
        lines += [entry.module, "-" * len(entry.module), "", f".. automodule:: {entry.module}"]
        if entry.names:
            lines += ["   :members:", "   :show-inheritance:"]
        if entry.elsewhere:
            lines += [f"   :exclude-members: {', '.join(entry.elsewhere)}"]
        lines += [""]
    return "\n".join(lines)
