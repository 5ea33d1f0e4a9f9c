"""Where the repository is: the one place that says so.

Links in the README and the pages must work on a package index and in the built pages, so they are written out there.
``python scripts/set_repository.py OWNER/NAME`` changes them and this file together.
"""

from __future__ import annotations

REPOSITORY = "kornia-lift/kornia_lift"  # assumed: there is no public repository yet
HOME = f"https://github.com/{REPOSITORY}"
FILES = f"{HOME}/blob/main"
PICTURES = f"https://raw.githubusercontent.com/{REPOSITORY}/main"
