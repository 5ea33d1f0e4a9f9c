"""The record of a training: one JSON object per line; a bar or lines on stderr; TensorBoard where asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from kornia_lift._extras import require
from kornia_lift._io import atomic_write, parse_json, read_text
from kornia_lift.training.stage import Measure

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that a killed process left unfinished is dropped.

    Raises:
        ValueError: if another line is not a JSON object with a whole ``step`` and a text ``kind``.

    """
    lines = read_text(path).splitlines() if path.exists() else []
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
            continue
        if not isinstance(entry, dict) or type(entry.get("step")) is not int or not isinstance(entry.get("kind"), str):
            raise ValueError(f"{path}, line {number} is not from a training: it lacks step or kind")
        if abs(entry["step"]) >= 2**53:
            raise ValueError(f"{path}, line {number} has an impossible step")
        entries.append(entry)
    return entries


class TrainingLog:
    """Write the record of one stage.

    Args:
        folder: where ``log.jsonl`` lies.
        name: title in front of the progress.
        start: steps already done.
        total: steps in all.
        resumed: whether a training goes on; lines up to ``start`` are then kept, those of steps done again are not.
        tensorboard: also write TensorBoard files to ``folder/tensorboard``.
        progress: show progress on stderr: a bar on a terminal, else one line per validation.
        measure: what the validation error is, said once before the first step of this process.

    """

    def __init__(
        self,
        folder: Path,
        name: str,
        start: int,
        total: int,
        *,
        resumed: bool = False,
        tensorboard: bool = False,
        progress: bool = True,
        measure: Measure | None = None,
    ) -> None:
        path = folder / LOG
        kept = [entry for entry in read_log(path) if entry["step"] <= start] if resumed else []
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = None
        if tensorboard:
            require("tensorboard", extra="train")
            self._board = require("torch.utils.tensorboard", extra="train").SummaryWriter(
                str(folder / "tensorboard"), purge_step=start
            )
        tqdm = require("tqdm", extra="train").tqdm
        bar = progress and sys.stderr.isatty()
        # without tqdm's own estimate, which does not know about a time budget
        form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, initial=start, desc=name, disable=not bar, bar_format=form)
        self._lines = progress and not bar
        self._name, self._total, self._left = name, total, 0.0
        self._first = next((e.get("error") for e in kept if e["kind"] == "validation"), None)
        self._shown: dict[str, str] = {}
        if progress and measure is not None and start < total:
            text = f"{name}: validation error: {measure.as_text()}"
            if bar:
                self._bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr)

    def advance(self, seconds_left: float = 0.0) -> None:
        """One step was done; ``seconds_left`` until the steps or the minutes are used up."""
        self._left = seconds_left
        self._bar.update()

    def write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Add a line: ``kind`` is "train" or "validation"."""
        try:
            self._file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
            self._file.flush()
        except OSError as error:
            raise type(error)(
                f"cannot write {self._file.name}: {error.strerror}; make room, and start the same command again"
            ) from error
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)
        keys = ("loss", "samples_per_s") if kind == "train" else ("error",)
        self._shown |= {key: f"{figures[key]:.4g}" for key in keys if key in figures}
        left = str(timedelta(seconds=round(max(0.0, self._left))))
        self._bar.set_postfix({**self._shown, "left": left})
        if kind == "validation":
            if self._first is None:
                self._first = figures.get("error")
            if self._lines:
                said = f"validation error {figures['error']:.4f}"
                before = f", at the start {self._first:.4f}; {left} left" if step and self._first is not None else ""
                print(f"{self._name}: step {step} of {self._total}, {said}{before}", file=sys.stderr)

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._bar.close()
        with suppress(OSError):  # a full disk, which write() has reported
            self._file.close()
        if self._board is not None:
            self._board.close()
