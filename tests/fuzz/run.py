"""Read damaged files of every kind, and count how they end.

    python -m tests.fuzz.run --cases 300 --out benchmarks/results/trust/fuzz.json     the long run: every reader and h5
    python -m tests.fuzz.run --cases 20 --only store weights                    some readers

Every reader runs in a process of its own, so that a crash of a library is a result, too. A case fails if it ends with
an error that is not documented, takes 20 s of processor time (400 s of waiting), raises the memory of the process by
1 GB, or leaves a file behind.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.repository import ROOT

SECONDS = 20
MEMORY_KB = 2**20
ADDRESSES = 2**33  # bytes
H5 = "h5 features"


def fuzz(name: str, cases: int, first: int = 0) -> dict[str, Any]:
    """Damage the file of one reader and read it, case by case.

    Args:
        name: key of :data:`tests.fuzz.readers.READERS`.
        cases: how many damaged files.
        first: seed of the first one; it decides all about the case.

    Returns:
        How many were read, how many refused, and the failures.
    """
    from tests.fuzz.mutators import write
    from tests.fuzz.readers import READERS

    reader = READERS[name]
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of numpy and Pillow on what a header says
    counts, failures = {"read": 0, "refused": 0}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data" / reader.name
        path.parent.mkdir(parents=True)
        reader.write(path)
        raw = path.read_bytes()
        reader.read(path)  # whole, it is readable
        before = {p.relative_to(folder) for p in Path(folder).rglob("*")}
        memory = _peak()
        for seed in range(first, first + cases):
            rng = np.random.default_rng([seed, len(name)])
            write(path, raw, reader.mutate, rng)
            print(seed, file=sys.stderr, flush=True)  # the last line of a process that dies names the case
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # processor time: machines are busy
            signal.alarm(20 * SECONDS)  # waiting
            try:
                reader.read(path)
                counts["read"] += 1
            except (*reader.errors, OSError):
                counts["refused"] += 1
            except Exception:
                failures.append({"seed": seed, "error": traceback.format_exc(limit=-3)})
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            grown, memory = _peak() - memory, max(memory, _peak())
            if grown > MEMORY_KB:
                failures.append({"seed": seed, "error": f"memory grew by {grown} kB"})
            left = {p.relative_to(folder) for p in Path(folder).rglob("*")} - before
            half = [str(p) for p in left if ".tmp" in p.name]
            if half:
                failures.append({"seed": seed, "error": f"left behind: {half}"})
    return {"cases": cases, **counts, "failures": failures, "peak_mb": memory // 1024}


def _peak() -> int:
    """Largest resident memory of this process so far, kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz_h5(cases: int, first: int = 0) -> dict[str, Any]:
    """The same for feature files, which are read, merged and continued."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.h5", str(first), str(cases)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines() or ["nothing"]
    failures = []
    if done.returncode or lines[-1] != "done":
        failures.append({"seed": lines[-1], "error": done.stderr[-3000:]})
    return {"cases": cases, "failures": failures}


def in_process(name: str, cases: int, first: int = 0) -> dict[str, Any]:
    """Run one reader in a process of its own, a fork of this one, which has everything imported but no threads."""
    if name == H5:
        return fuzz_h5(cases, first)
    from tests.fuzz import readers  # noqa: F401

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryFile("w+") as log:
        process = context.Process(target=_child, args=(name, cases, first, theirs, log))
        process.start()
        theirs.close()
        try:
            found = dict(ours.recv())
        except EOFError:
            found = {}
        process.join()
        if not found:
            log.seek(0)
            lines = log.read().splitlines()
            seed = next((line for line in reversed(lines) if line.isdecimal()), "none")
            error = f"exit code {process.exitcode}\n" + "\n".join(lines[-30:])
            found = {"cases": cases, "failures": [{"seed": seed, "error": error}]}
    return found


def _child(name: str, cases: int, first: int, answer: Any, log: Any) -> None:
    """Fuzz in a fork, whose messages go to a file: the last seed there is that of a crash."""
    os.dup2(log.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))  # one bad case must not take the machine's memory
    answer.send(fuzz(name, cases, first))


def main() -> int:
    """Run readers and write what came of it."""
    import cv2
    import torch

    from tests.fuzz.readers import READERS

    torch.set_num_threads(1)  # forks of a process with threads of OpenMP stand still
    cv2.setNumThreads(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="per reader; feature files get five times as many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--only", nargs="+", metavar="READER")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    for name in args.only or [*READERS, H5]:
        rows[name] = in_process(name, args.cases * (5 if name == H5 else 1), args.first)
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
    if args.out and args.only and args.out.exists():  # rows of the others stay
        rows = {**json.loads(args.out.read_text())["readers"], **rows}
    total, failed = sum(r["cases"] for r in rows.values()), sum(len(r["failures"]) for r in rows.values())
    print(f"{total} damaged files, {failed} failures")
    if args.out:
        from kornia_lift._io import atomic_write
        from kornia_lift.evaluation.report.results import provenance

        commit = provenance(ROOT)["commit"]
        rows = {name: {"commit": commit, **row} for name, row in rows.items()}  # rows that stay keep theirs
        content = {
            "command": f"python -m tests.fuzz.run --cases {args.cases} --first {args.first}",
            "provenance": provenance(ROOT), "system": platform.platform(),
            "limits": {"seconds": SECONDS, "memory_kb": MEMORY_KB}, "cases": total, "failed": failed, "readers": rows,
        }  # fmt: skip
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
