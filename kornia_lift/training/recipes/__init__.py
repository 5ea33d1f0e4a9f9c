"""The recipes that the package ships, TOML files with the options of a run."""

from __future__ import annotations

from pathlib import Path

from kornia_lift.training.config import ConfigError

FOLDER = Path(__file__).parent
#: The same recipes for little data: from weights that exist, in minutes.
FINE_TUNING = FOLDER / "fine_tuning"


def recipe_path(recipe: Path, fine_tuning: bool = False) -> Path:
    """Return the file of a shipped recipe for its name, and any other path as it is.

    Args:
        recipe: name of a shipped recipe, such as ``paper``, or the path of a ``.toml`` or ``.json`` file; a file of
            that name has priority.
        fine_tuning: of a name, the file for training from weights that exist.

    Raises:
        ConfigError: if there is no recipe of that name, or it can only start from random weights.

    """
    if recipe.name != str(recipe) or recipe.suffix or recipe.exists():
        return recipe
    shipped = (FINE_TUNING if fine_tuning else FOLDER) / f"{recipe.name}.toml"
    if shipped.is_file():
        return shipped
    if (FOLDER / shipped.name).is_file():
        raise ConfigError(f"the recipe {recipe.name!r} starts from random weights only; leave out --init")
    names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
    raise ConfigError(f"no recipe {recipe.name!r}: expected one of {names}, or the path of a .toml or .json file")
