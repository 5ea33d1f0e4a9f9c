"""Disturb commands at random moments, start them again, and compare with an undisturbed run.

    python -m tests.faults.run --trials 20 --out benchmarks/results/trust/faults.json     the long run
    python -m tests.faults.run --trials 3 --only extract merge --kinds kill disk

Kinds: ``kill`` (SIGKILL, SIGTERM, SIGINT, up to three times), ``disk`` (a full one), ``read-only``, ``removed`` (a file
or folder of the output disappears), ``two`` (the same command twice at once). Moments are drawn from the operations on
files and from the processor time of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.repository import ROOT

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from tests.faults.traps import End, Trap, grow_disk, in_fork, run, send, small_disk

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KINDS = ("kill", "disk", "read-only", "removed", "two")
PAGES = 4096
CLEAN = {0, 1, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


class Trials:
    """Trials of one scenario.

    Args:
        name: key of :data:`tests.faults.scenarios.SCENARIOS`.
        folder: an empty folder for all files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        from tests.faults.scenarios import SCENARIOS

        self.name, self.scenario = name, SCENARIOS[name]
        self.inputs, self.folder = folder / "inputs", folder
        self.inputs.mkdir()
        self.scenario.prepare(self.inputs)
        out = self._new()
        self.whole = self._run(out)
        if self.whole.code not in self.scenario.done:
            raise RuntimeError(f"{name}: undisturbed, it ends with {self.whole.code}: {self.whole.said}")
        self.expected, self.files = self.scenario.outcome(out), _files(out)
        self.bytes = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())

    def _new(self) -> Path:
        out = self.folder / "trial" / "out"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.mkdir(parents=True)
        return out

    def _run(self, out: Path, trap: Trap | None = None) -> End:
        return run(lambda: self.scenario.work(self.inputs, out), out, trap)

    def _trap(self, rng: np.random.Generator, action: Callable[[], object]) -> Trap:
        if rng.integers(3) and self.whole.operations:
            return Trap(action, operation=int(rng.integers(1, self.whole.operations + 1)))
        return Trap(action, seconds=float(rng.uniform(0.01, 1.0) * max(0.05, self.whole.seconds)))

    def _after(self, out: Path, but: str | None = None) -> list[str]:
        """Start again, undisturbed, and say what differs, but for names that begin with a text."""
        end = self._run(out)
        if end.code not in self.scenario.done:
            return [f"started again, it ends with {end.code}: {end.said[-600:]}"]
        names = different(self.expected, self.scenario.outcome(out))
        wrong = [f"another {name}" for name in names if but is None or not name.startswith(but)]
        left = _files(out) ^ self.files
        return wrong + ([f"other files: {sorted(left)[:5]}"] if left else [])

    def kill(self, seed: int) -> list[str]:
        """Kill it up to three times."""
        rng, out, problems = self._generator(seed, 1), self._new(), []
        for _ in range(int(rng.integers(1, 4))):
            number = SIGNALS[int(rng.integers(3))]
            problems += _unclean(self._run(out, self._trap(rng, send(number))), number.name)
        return problems + self._after(out)

    def disk(self, seed: int) -> list[str]:
        """Fill the disk."""
        rng, out = self._generator(seed, 2), self._new()
        pages = int(rng.integers(1, max(3, 2 * self.bytes // PAGES)))

        def work() -> list[str]:
            if not small_disk(out, pages):
                return ["skipped"]
            end = self._run(out)
            problems = _unclean(end, f"{pages} pages")
            if end.code == 2 and "No space left" not in end.said and "cannot write" not in end.said:
                problems.append(f"{pages} pages: says nothing of the disk: {end.said[-300:]}")
            grow_disk(out)
            return problems + self._after(out)

        return in_fork(work)

    def read_only(self, seed: int) -> list[str]:
        """Write where nothing can be written."""
        out = self._new()

        def work() -> list[str]:
            if not small_disk(out, 10, read_only=True):
                return ["skipped"]
            end = self._run(out)
            problems = _unclean(end, "read-only")
            if end.code != 2 or "Read-only file system" not in end.said:
                problems.append(f"read-only: ends with {end.code}: {end.said[-300:]}")
            grow_disk(out)
            return problems + self._after(out)

        return in_fork(work)

    def removed(self, seed: int) -> list[str]:
        """Remove a file or folder of the output while it works."""
        rng, out = self._generator(seed, 3), self._new()

        def remove() -> None:
            found = sorted(out.rglob("*"))
            if found:
                victim = found[int(rng.integers(len(found)))]
                if victim.is_dir():
                    shutil.rmtree(victim, ignore_errors=True)
                else:
                    victim.unlink(missing_ok=True)

        problems = _unclean(self._run(out, self._trap(rng, remove)), "removed")
        again = self._run(out)
        # it cannot know what the rest was made of, and says so
        if again.code == 2 and "to make it again" in again.said:
            out = self._new()
        # nothing can write the lines of a removed log again
        return problems + _unclean(again, "after the removal") + self._after(out, but="log ")

    def two(self, seed: int) -> list[str]:
        """Run it twice at once."""
        out = self._new()

        def second() -> list[str]:
            beside = out.parent / "second"
            beside.mkdir()
            link = beside / "out"
            link.symlink_to(out)
            end = run(lambda: self.scenario.work(self.inputs, out), link)
            return _unclean(end, "second writer")

        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        other = context.Process(target=lambda: theirs.send(second()))
        other.start()
        problems = _unclean(self._run(out), "first writer") + list(ours.recv())
        other.join()
        return problems + self._after(out)

    def _generator(self, seed: int, kind: int) -> np.random.Generator:
        return np.random.default_rng([seed, kind, zlib.crc32(self.name.encode())])


def _files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def _unclean(end: End, how: str) -> list[str]:
    """What is wrong with the way a disturbed command ended."""
    if "Traceback" in end.said or end.code not in CLEAN:
        return [f"{how}: ends with {end.code}: {end.said[-900:]}"]
    return []


def different(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what two outcomes do not share; floating-point numbers may differ by rounding."""
    names = [name for name in first.keys() | second.keys() if name not in first or name not in second]
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            same = one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
        else:
            same = np.array_equal(one, other)
        if not same:
            names.append(name)
    return sorted(names)


def trials(name: str, kinds: tuple[str, ...], count: int, first: int = 0) -> dict[str, Any]:
    """Run trials of one scenario; kinds with a single moment run once."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scenario = Trials(name, Path(folder))
        for kind in kinds:
            done, skipped, failures = 0, 0, []
            for seed in range(first, first + (1 if kind in ("read-only", "two") else count)):
                problems = getattr(scenario, kind.replace("-", "_"))(seed)
                if problems == ["skipped"]:
                    skipped += 1
                    continue
                done += 1
                if problems:
                    failures.append({"seed": seed, "problems": problems})
            rows[kind] = {"trials": done, "skipped": skipped, "failures": failures}
    return rows


def main() -> int:
    """Run trials and write what came of them."""
    import cv2
    import torch

    from tests.faults.scenarios import SCENARIOS

    torch.set_num_threads(1)  # forks of a process with threads of OpenMP stand still
    cv2.setNumThreads(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each kind and command")
    parser.add_argument("--first", type=int, default=0, help="seed of the first trial")
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), metavar="COMMAND")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--out", type=Path, help="result file; rows of other commands in it stay")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text())["commands"] if args.out and args.out.exists() else {}
    for name in args.only:
        rows[name] = trials(name, tuple(args.kinds), args.trials, args.first)
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
    total = sum(row["trials"] for kinds in rows.values() for row in kinds.values())
    failed = sum(len(row["failures"]) for kinds in rows.values() for row in kinds.values())
    print(f"{total} trials, {failed} failures")
    if args.out:
        from kornia_lift._io import atomic_write
        from kornia_lift.evaluation.report.results import provenance

        content = {
            "command": f"python -m tests.faults.run --trials {args.trials} --first {args.first}",
            "provenance": provenance(ROOT), "system": platform.platform(),
            "trials": total, "failed": failed, "commands": rows,
        }  # fmt: skip
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
