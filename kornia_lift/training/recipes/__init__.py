"""The recipes that the package ships, TOML files with the options of a run."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def recipe_path(recipe: Path) -> Path:
    """Return the file of a shipped recipe for its name, and any other path as it is.

    Args:
        recipe: name of a shipped recipe, such as ``paper``, or the path of a ``.toml`` or ``.json`` file; a file of
            that name has priority.

    """
    shipped = FOLDER / f"{recipe.name}.toml"
    is_name = recipe.name == str(recipe) and not recipe.suffix
    return shipped if is_name and not recipe.exists() and shipped.is_file() else recipe
