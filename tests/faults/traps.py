"""Commands in forked processes that a signal, a removed file or a full disk meets at a chosen moment.

Moments are counted in what the process does, never in time on a clock: operations on files (audit events of Python),
or its own processor time, so that a busy machine changes nothing.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_OPERATIONS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}
)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


@dataclass(frozen=True)
class Trap:
    """What happens when.

    Args:
        action: called once in the process.
        operation: at this operation on a file below the watched folder; 0 for never.
        seconds: or at this much processor time of the process; 0 for never.
    """

    action: Callable[[], object]
    operation: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal.
        said: what it wrote to stderr.
        operations: on files below the watched folder.
        seconds: of processor time.
    """

    code: int
    said: str
    operations: int = 0
    seconds: float = 0.0


def send(number: signal.Signals) -> Callable[[], None]:
    """Return an action: this process gets the signal."""
    return lambda: os.kill(os.getpid(), number)


def run(command: Callable[[], int], watched: Path, trap: Trap | None = None) -> End:
    """Run a command in a fork of this process.

    Args:
        command: returns an exit code.
        watched: the folder whose files count.
        trap: what happens to it.
    """
    said, figures = watched.parent / "stderr.txt", watched.parent / "figures.json"
    figures.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 70
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
            counted = _watch(watched, trap)
            code = command()
            # renamed when whole: the signal may come here too
            partial = figures.with_suffix(".partial")
            partial.write_text(json.dumps([counted[0], _used()]))
            partial.replace(figures)
        except SystemExit as end:  # SIGTERM, argparse
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    operations, seconds = json.loads(figures.read_text()) if figures.exists() else (0, 0.0)
    return End(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), operations, seconds)


def _watch(watched: Path, trap: Trap | None) -> list[int]:
    counted, root, start = [0], str(watched), _used()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _OPERATIONS or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.fspath(arguments[0]).startswith(root):
            counted[0] += 1
            if trap is not None and counted[0] == trap.operation:
                trap.action()

    sys.addaudithook(hook)
    if trap is not None and trap.seconds:
        del start
        signal.signal(signal.SIGPROF, lambda number, frame: trap.action())
        signal.setitimer(signal.ITIMER_PROF, trap.seconds)
    return counted


def _used() -> float:
    times = os.times()
    return times.user + times.system


def small_disk(folder: Path, pages: int, *, read_only: bool = False) -> bool:
    """Mount a file system of so many pages of 4096 bytes over a folder, for this process and its forks only.

    Returns:
        Whether that is allowed here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    group, user = os.getgid(), os.getuid()
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={pages * 4096}{',ro' if read_only else ''}".encode()
    return not libc.mount(b"none", os.fsencode(folder), b"tmpfs", 1 if read_only else 0, options)


def grow_disk(folder: Path) -> None:
    """Make the room of :func:`small_disk` large, and writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    remount = 32
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", remount, b"size=256m"):
        raise OSError(ctypes.get_errno(), "cannot remount")


def in_fork(work: Callable[[], Sequence[str]]) -> list[str]:
    """Do work that changes the process, such as mounting, in a fork; returns the texts that it returns."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, json.dumps(list(work())).encode()[:60_000])
        except BaseException:
            os.write(theirs, json.dumps([traceback.format_exc(limit=-4)]).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return list(json.loads(text)) if text else ["the process of the trial died"]
