"""The parser of the command line: one line about a wrong argument, with the name that was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<choices>.*)\)")


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument with the command it was given to, what was probably meant, and where to read more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Keep the line breaks of descriptions, and refuse abbreviated options, unless the options say otherwise."""
        super().__init__(
            *args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options}
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse all arguments: the command that does not know an argument reports it, not the program."""
        found: Any
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            given = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            known = [option.removeprefix("--") for option in self._option_string_actions if option.startswith("--")]
            meant = _meant(given[0].removeprefix("--"), known, "--") if given else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, []

    def error(self, message: str) -> NoReturn:
        """Print the error and end with exit code 2."""
        if choice := _CHOICE.search(message):
            message += _meant(choice["given"], re.findall(r"[\w-]+", choice["choices"]))
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _meant(given: str, known: Sequence[str], before: str = "") -> str:
    """Return the question whether another name, with ``before`` in front, was meant; empty where none is similar."""
    names = [name for name in known if len(given) > 2 and name.startswith(given)] or get_close_matches(given, known, 1)
    return f"; did you mean {before}{names[0]}?" if names else ""
