"""What a command says when it cannot do its job: one line, and exit code 2."""

from __future__ import annotations


class CommandError(Exception):
    """A fault in what the user gave; the message is one line that says how to mend it."""
