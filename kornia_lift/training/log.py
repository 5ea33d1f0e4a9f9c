"""The record of a training: one JSON object per line, a progress bar, TensorBoard where asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_lift._extras import require
from kornia_lift._io import atomic_write

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that a killed process left unfinished is dropped.

    Raises:
        ValueError: if another line is not JSON.

    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
    return entries


class TrainingLog:
    """Write the record of one stage.

    Args:
        folder: where ``log.jsonl`` lies.
        name: of the stage, in front of the progress bar.
        start: steps already done.
        total: steps in all.
        resumed: a training goes on: lines up to ``start`` are kept, those of steps that will be done again are not.
        tensorboard: also write TensorBoard files to ``folder/tensorboard``.
        progress: show a progress bar on stderr.

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
        self._bar = tqdm(total=total, initial=start, desc=name, unit="step", disable=not progress, smoothing=0.05)
        self._shown: dict[str, str] = {}

    def advance(self) -> None:
        """One step was done."""
        self._bar.update()

    def write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Add a line: ``kind`` is "train" or "validation"."""
        self._file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)
        keys = ("loss", "samples_per_s") if kind == "train" else ("error",)
        self._shown |= {key: f"{figures[key]:.4g}" for key in keys if key in figures}
        self._bar.set_postfix(self._shown)

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()
