"""LIFT's speed beside all peers: comparison table, growth with pixels and keypoints, memory, roofline, imports.

Writes JSON, a Markdown page and two plots beside it. Cases alternate over the rounds; times are medians over all
repeated calls, the first call of each process is reported by itself. Every call is followed by one of OpenCV's SIFT in
the same process, and the quotients are of such pairs. The load of the machine is written beside the result. On a
machine that does other work, ``--clock cpu --threads 1`` counts the processor time of the process instead of the time
on the wall.

Weights of the learned peers come from the torch hub cache:

    TORCH_HOME=../shared/peers python benchmarks/speed.py --out benchmarks/results/speed/speed.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import kornia
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # Python looks beside this file only

from benchmarks.timing import roofline  # noqa: E402
from benchmarks.timing.cases import CLOCKS, Case  # noqa: E402
from benchmarks.timing.results import quotient  # noqa: E402
from kornia_lift import __version__  # noqa: E402
from kornia_lift._extras import require  # noqa: E402
from kornia_lift._io import atomic_write  # noqa: E402
from kornia_lift.evaluation.report.results import processor_name  # noqa: E402

METHODS = (
    "lift", "lift-upright", "lift-plus", "lift-plus-upright", "lift-dense", "lf-net", "lift-direct", "opencv-sift",
    "opencv-orb", "kornia-sift", "kornia-sift-scale-space", "keynet-orinet-hardnet", "aliked-t16", "aliked-n16",
    "xfeat", "disk",
)  # fmt: skip
SIFT = "opencv-sift"
SLOW = 3.0  # seconds: slower methods run in one round
SIZES = ((640, 480), (1024, 768), (1600, 1200), (2048, 1536), (2828, 2121), (4000, 3000))
COUNTS = (250, 500, 1000, 2000, 4000, 8000, 16000)
GROWING = ("lift", "lift-plus", "opencv-sift", "kornia-sift-scale-space")
SCALE_SPACE_UP_TO = 4e6  # pixels: kornia's scale space takes gigabytes beyond


class Bench:
    """Runs cases with the settings of the command line."""

    def __init__(self, threads: int, clock: str) -> None:
        self._settings = {"threads": threads, "clock": clock}

    def case(self, method: str, size: tuple[int, int], count: int, repeats: int, beside: str = "") -> dict[str, Any]:
        """Run one case; print and return its row."""
        row = Case(method, *size, count, repeats=repeats, beside=beside, **self._settings).run()
        print(f"{row['method']} {size} {count}: {median(row, 'total'):.3f} s", file=sys.stderr, flush=True)
        return row


def median(row: dict[str, Any], stage: str) -> float:
    """Median seconds of a stage over the repeated calls; of the only call where there was one."""
    return statistics.median(seconds[stage] for seconds in row["seconds"] or [row["first"]])


def compare(bench: Bench, rounds: int, repeats: int) -> list[dict[str, Any]]:
    """All methods on 1600x1200 pixels, 1000 keypoints."""
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for method in METHODS:
            old = rows.get(method)
            if old is not None and old["first"]["total"] > SLOW:
                continue
            new = bench.case(method, (1600, 1200), 1000, repeats, beside=SIFT)
            lists = ("seconds", "beside_seconds")
            rows[method] = new if old is None else new | {name: old[name] + new[name] for name in lists}
    return list(rows.values())


def grow(bench: Bench) -> list[dict[str, Any]]:
    """Over pixels at 1000 keypoints; over keypoints at 12 megapixels."""
    cases = [
        (method, size, 1000)
        for size in SIZES
        for method in GROWING
        if method != "kornia-sift-scale-space" or size[0] * size[1] < SCALE_SPACE_UP_TO
    ]
    cases += [(method, SIZES[-1], count) for count in COUNTS for method in GROWING[:-1] if count != 1000]
    return [bench.case(*case, repeats=1) for case in cases]


def imports() -> dict[str, float]:
    """Processor seconds of fresh interpreters, best of three."""
    codes = {
        "python": "pass",
        "kornia.feature": "import kornia.feature",
        "kornia_lift": "import kornia.feature; from kornia_lift import LIFTFeature",
        "kornia-lift --help": "import kornia_lift.cli\ntry: kornia_lift.cli.main(['--help'])\nexcept SystemExit: pass",
    }
    found: dict[str, float] = {}
    for _ in range(3):
        for name, code in codes.items():
            before = os.times()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            found[name] = min(spent, found.get(name, spent))
    return found


def plots(record: dict[str, Any], out: Path) -> None:
    """Write ``<out>_growth.svg`` and ``<out>_comparison.svg``."""
    pyplot = require("matplotlib.pyplot", extra="eval")
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
    for method in GROWING:
        rows = [r for r in record["growth"] if r["method"] == method]
        by_size = [r for r in rows if r["count"] == 1000]
        by_count = sorted((r for r in rows if (r["width"], r["height"]) == SIZES[-1]), key=lambda r: r["keypoints"])
        megapixels = [r["width"] * r["height"] / 1e6 for r in by_size]
        axes[0].plot(megapixels, [median(r, "total") for r in by_size], marker="o", label=method)
        if len(by_count) > 1:
            counts = [r["keypoints"] for r in by_count]
            axes[1].plot(counts, [median(r, "total") for r in by_count], marker="o", label=method)
            axes[2].plot(counts, [r["peak_mb"] / 1024 for r in by_count], marker="o", label=method)
    axes[0].set(xlabel="megapixels (1000 keypoints)", ylabel="seconds")
    axes[1].set(xlabel="keypoints (12 megapixels)", ylabel="seconds")
    axes[2].set(xlabel="keypoints (12 megapixels)", ylabel="peak memory, GiB")
    for axis in axes:
        axis.set_xlim(0)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    _save(figure, out.with_name(f"{out.stem}_growth.svg"))

    rows = sorted(record["comparison"], key=lambda r: median(r, "total"))
    figure, axis = pyplot.subplots(figsize=(8, 4))
    left = [0.0] * len(rows)
    names = [r["method"] for r in rows]
    for stage in ("detect", "orient", "describe", "total"):
        # stages of LIFT side by side; one bar for what is not divided
        width = [
            median(r, stage) if (stage in r["first"]) and (stage != "total" or "detect" not in r["first"]) else 0.0
            for r in rows
        ]
        axis.barh(names, width, left=left, label="all" if stage == "total" else stage)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axis.set_xlabel("seconds, 1600x1200 pixels, 1000 keypoints")
    axis.invert_yaxis()
    axis.legend(fontsize=7)
    figure.tight_layout()
    _save(figure, out.with_name(f"{out.stem}_comparison.svg"))


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def page(record: dict[str, Any], command: str) -> str:
    """Return the result as Markdown."""
    about = record["provenance"]
    lines = [
        "# Speed",
        "",
        f"{about['date']}, commit {about['commit']}, {about['machine']}, {about['threads']} threads, "
        f"{about['clock']} clock, load {about['load_average'][0]:.1f}; torch {about['torch']}, "
        f"kornia {about['kornia']}, OpenCV {about['opencv']}. Made by `{command}`.",
        "",
        "## 1600x1200 pixels, 1000 keypoints",
        "Medians; *first* is the first call of a process, imports excluded. *x OpenCV SIFT*: median of the quotients "
        "of a call and a call of SIFT right after it in the same process.",
        "",
        "| method | keypoints | detect s | orient s | describe s | total s | x OpenCV SIFT | first s | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(record["comparison"], key=lambda r: median(r, "total")):
        stages = [
            f"{median(row, s):.3f}" if s in row["first"] else "" for s in ("detect", "orient", "describe", "total")
        ]
        lines.append(
            f"| {row['method']} | {row['keypoints']} | {' | '.join(stages)} | {quotient(row) or math.nan:.2f} "
            f"| {row['first']['total']:.3f} | {row['peak_mb']:.0f} |"
        )
    lines += [
        "",
        "`lift-direct`: LIFT without its inference paths. HardNet has random weights here: its time does not "
        "depend on them.",
        "",
        "## Growth",
        "",
        "| method | megapixels | slots | keypoints | seconds | peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['method']} | {r['width'] * r['height'] / 1e6:.2f} | {r['count']} | {r['keypoints']} "
        f"| {median(r, 'total'):.3f} | {r['peak_mb']:.0f} |"
        for r in record["growth"]
    ]
    cost = record["imports"]
    lines += [
        "",
        f"![growth]({record['name']}_growth.svg)",
        "",
        "## Limits of the machine",
        "",
        roofline.table(record["roofline"]),
        "",
        "*paper*: multiply-adds of the network as defined; *done*: those that ran.",
        "",
        "## Imports, processor seconds",
        "",
        f"`import kornia.feature` {cost['kornia.feature']:.2f}, with `LIFTFeature` {cost['kornia_lift']:.2f}, "
        f"`kornia-lift --help` {cost['kornia-lift --help']:.2f}, Python itself {cost['python']:.2f}.",
        "",
    ]
    return "\n".join(lines)


def provenance(args: argparse.Namespace) -> dict[str, Any]:
    """Say when, where and with what."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git.stdout.strip() or "unknown",
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": args.threads,
        "clock": args.clock,
        "load_average": os.getloadavg(),
        "version": __version__,
        "torch": torch.__version__,
        "kornia": kornia.__version__,
        "opencv": cv2.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the page and the plots lie beside it")
    args = parser.parse_args()

    start = time.perf_counter()
    record: dict[str, Any] = {"name": args.out.stem, "provenance": provenance(args)}
    bench = Bench(args.threads, args.clock)
    record["comparison"] = compare(bench, args.rounds, args.repeats)
    command = [sys.executable, "-m", roofline.__name__, "--json", "--threads", str(args.threads), "--clock", args.clock]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    record["roofline"] = json.loads(done.stdout.splitlines()[-1])
    record["growth"] = grow(bench)
    record["imports"] = imports()
    record["minutes"] = (time.perf_counter() - start) / 60
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.out) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    plots(record, args.out)
    text = page(record, "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    with atomic_write(args.out.with_suffix(".md")) as path:
        path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
