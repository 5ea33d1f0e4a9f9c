"""Give the project another address: rewrite every link to its repository, and set the url of the package.

    python scripts/set_repository.py OWNER/NAME

The address that is replaced is that of docs/_ext/address.py. Links to files and to pictures have different hosts, so
replacing one text by another leaves some behind. Benchmark results and the history of git stay as they are.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "docs", "kornia_lift")
KINDS = {".md", ".cff", ".py", ".ipynb"}
_HOSTS = ("https://github.com", "https://raw.githubusercontent.com")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_CONSTANT = re.compile(r'^REPOSITORY = "([^"]+)".*$', re.MULTILINE)
_URL = re.compile(r"^(url = .*|# no url .*)$", re.MULTILINE)


def current(root: Path = ROOT) -> str:
    """Return the owner and name that the project has now."""
    found = _CONSTANT.search((root / "docs/_ext/address.py").read_text())
    if found is None:
        raise ValueError("docs/_ext/address.py does not set REPOSITORY")
    return found[1]


def files_with_links(root: Path = ROOT) -> list[Path]:
    """Return the files in which links are written out."""
    found: list[Path] = []
    for entry in (root / name for name in LINKED):
        found += [entry] if entry.is_file() else sorted(path for path in entry.rglob("*") if path.suffix in KINDS)
    return [path for path in found if "_build" not in path.parts]


def set_repository(name: str, root: Path = ROOT) -> list[Path]:
    """Rewrite the links.

    Args:
        name: owner and name, as in ``https://github.com/OWNER/NAME``.
        root: folder of the project.

    Returns:
        The files that were changed.

    Raises:
        ValueError: if the name has another form.

    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected OWNER/NAME of a repository on GitHub, got {name!r}")
    before, changed = current(root), []
    for path in files_with_links(root):
        text = path.read_text()
        new = text
        for host in _HOSTS:
            new = re.sub(rf"{re.escape(f'{host}/{before}')}(?![\w-]|\.\w)", f"{host}/{name}", new)
        if path == root / "docs/_ext/address.py":
            new = _CONSTANT.sub(f'REPOSITORY = "{name}"', new)
        if new != text:
            path.write_text(new)
            changed.append(path)
    setup = root / "setup.cfg"
    setup.write_text(_URL.sub(f"url = https://github.com/{name}", setup.read_text(), count=1))
    return [*changed, setup]


def main() -> int:
    """Rewrite, and say what was changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="OWNER/NAME")
    try:
        changed = set_repository(parser.parse_args().name)
    except ValueError as error:
        parser.error(str(error))
    print(*(path.relative_to(ROOT) for path in changed), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
