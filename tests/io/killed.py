"""Processes that die while they write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KILLED = """
import os, signal, sys
from pathlib import Path
from kornia_lift._io.writing import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path) -> None:
    """Leave the temporary file of a process that SIGKILL met while it wrote a file."""
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert [p.name for p in path.parent.iterdir() if ".tmp" in p.name]
