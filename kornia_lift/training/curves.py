"""Curves of runs: one row of panels per stage, with the training loss, the validation error and its other figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.training.loop.log import LOG, read_log
from kornia_lift.training.stage import ERROR
from kornia_lift.viz import plain_label

FORMATS = ("svg", "png", "pdf")
_PANELS = ("training loss", "validation error", "other validation figures")
_SMOOTH = 25  # lines of the log in the running median
Entries = list[dict[str, Any]]


def find_logs(run: str | Path) -> dict[str, Path]:
    """Return the logs of a run by stage, oldest first.

    Args:
        run: folder of a run, folder of one stage, or a log itself.

    Raises:
        FileNotFoundError: if there is no log.

    """
    run = Path(run)
    if run.is_file():
        return {run.stem if run.name != LOG else run.resolve().parent.name: run}
    if (run / LOG).is_file():
        return {run.resolve().name: run / LOG}
    found = {path.parent.name: path for path in sorted(run.glob(f"*/{LOG}"), key=_began)}
    if not found:
        raise FileNotFoundError(f"{run} holds no log of a training; expected STAGE/{LOG}, {LOG}, or a .jsonl file")
    return found


def plot_runs(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Draw the logs of runs into one figure, stages of one name into the same panels.

    Args:
        runs: see :func:`find_logs`.
        out: figure to write, ``.svg``, ``.png`` or ``.pdf``.

    Returns:
        ``out`` as a path.

    Raises:
        FileNotFoundError: if a run holds no log.
        ValueError: if a log is damaged or empty, or the name of the figure has another suffix.
        MissingExtraError: if matplotlib is not installed.

    """
    out = Path(out)
    if out.suffix[1:].lower() not in FORMATS:
        raise ValueError(f"{out}: a figure ends in .{', .'.join(FORMATS)}")
    stages: dict[str, list[tuple[int, str, Entries]]] = {}
    names = _names([Path(run) for run in runs])
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for stage, path in find_logs(run).items():
            stages.setdefault(stage, []).append((number, name, _read(path)))
    if not stages:
        raise ValueError("expected at least one run")
    make_figure = require("matplotlib.figure", extra="train").Figure
    figure = make_figure(figsize=(11, 0.4 + 2.7 * len(stages)), layout="constrained")
    grid = figure.subplots(len(stages), len(_PANELS), squeeze=False)
    for row, (stage, logs) in zip(grid, stages.items(), strict=True):
        for axes, title in zip(row, _PANELS, strict=True):
            axes.set_title(f"{plain_label(stage)}\n{title}", fontsize=9)
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.ticklabel_format(useOffset=False)  # an axis says its values, not what to add to them
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        _draw(row, logs, named=len(names) > 1)
    kind = out.suffix[1:].lower()
    with atomic_write(out) as temporary:
        # no date: such figures are kept beside the logs under version control
        figure.savefig(temporary, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return out


def _names(runs: Sequence[Path]) -> list[str]:
    """Names of the runs in the legends: their paths, shortened to what tells them from the others."""
    names = [run.stem if run.is_file() and run.name != LOG else _folder(run).name for run in runs]
    return [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def _folder(run: Path) -> Path:
    return run.resolve().parent if run.is_file() else run.resolve()


def _read(path: Path) -> Entries:
    entries = read_log(path)
    if not entries:
        raise ValueError(f"{path} is empty: the stage has not begun")
    return entries


def _began(log: Path) -> tuple[float, str]:
    """Sort key of a stage: the time of its log is when it ended, which in a recipe is the order of the stages."""
    return log.stat().st_mtime, log.parent.name


def _series(entries: Entries, kind: str, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = [(e["step"], e[key]) for e in entries if e["kind"] == kind and _is_number(e.get(key))]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _is_number(value: Any) -> bool:
    """Whether a figure of a log can be drawn: a number that a training can have written."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


def _draw(row: Sequence[Any], logs: list[tuple[int, str, Entries]], *, named: bool) -> None:
    """Draw the logs of a stage; ``named`` says which run each is of, also where only one has the stage."""
    for number, run, entries in logs:
        colour, label = f"C{number}", plain_label(run) if named else None
        step, loss = _series(entries, "train", "loss")
        if len(step) > 2 * _SMOOTH:
            row[0].plot(step, loss, color=colour, alpha=0.25, linewidth=0.6)
            row[0].plot(step, _running_median(loss), color=colour, linewidth=1.4, label=label)
        else:  # markers, or a single value would be invisible
            row[0].plot(step, loss, color=colour, marker=".", linewidth=1.2, label=label)
        step, error = _series(entries, "validation", ERROR)
        row[1].plot(step, error, color=colour, marker=".", linewidth=1.2, label=label)
        if len(error) and np.isfinite(error).any():
            best = int(np.nanargmin(error))
            row[1].plot(step[best], error[best], "o", color=colour, markersize=7, fillstyle="none")
            row[1].annotate(f"{error[best]:.3g}", (step[best], error[best]), (0, 7), textcoords="offset points",
                            ha="center", fontsize=7, color=colour)  # fmt: skip
        keys = dict.fromkeys(k for e in entries if e["kind"] == "validation" for k in e)
        style = ("-", "--", ":", "-.")[number % 4]
        for index, key in enumerate(k for k in keys if k not in ("step", "kind", ERROR)):
            step, value = _series(entries, "validation", key)
            name = plain_label(f"{key}, {run}" if named else key)
            row[2].plot(step, value, style, color=f"C{index}", marker=".", linewidth=1.2, label=name)
    for axes in row:
        axes.margins(y=0.12)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7)
        if not any(len(line.get_xdata()) for line in axes.lines):
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="0.5")


def _running_median(value: NDArray[np.float64]) -> NDArray[np.float64]:
    half = _SMOOTH // 2
    return np.array([np.median(value[max(0, i - half) : i + half + 1]) for i in range(len(value))])
