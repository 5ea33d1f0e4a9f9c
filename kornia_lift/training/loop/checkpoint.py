"""Checkpoints: whole files or none, readable without executing anything, never of another stage by mistake."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from kornia_lift._io import atomic_write, check_regular

LOGGER = logging.getLogger(__name__)
VERSION = 1
LAST = "last.pt"
BEST = "best.pt"
#: Options that may change between a checkpoint and its resumption. No weight depends on them, except for
#: ``max_minutes`` where the learning rate decays: a run out of time needs more, and logs that its rate rises again.
FREE_OPTIONS = frozenset(
    {"max_minutes", "validate_every", "checkpoint_every", "checkpoint_minutes", "log_every", "prefetch", "workers"}
    | {"tensorboard"}
)
#: Option of a recipe that says how held-out data are augmented; recipes without it do not augment them.
VALIDATION = "validation_photometric"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or belongs to something else."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader, or a killed writer, never sees half of one.

    Raises:
        OSError: if it cannot be written, as on a full disk.

    """
    content = io.BytesIO()  # where torch writes a file itself, a full disk is a RuntimeError that names nothing
    torch.save({"version": VERSION, **state}, content)
    # the view is released also where the disk is full: in a traceback it may outlive its buffer, and crash Python 3.12
    with content.getbuffer() as view, atomic_write(path) as temporary:
        temporary.write_bytes(view)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, with ``weights_only=True``.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, not a checkpoint, or of another version.

    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:  # it may also be removed while a training runs
        raise FileNotFoundError(
            f"no checkpoint {path}; if it was removed while a training ran, start the same command again"
        ) from error
    except Exception as error:  # torch raises a dozen types for a damaged file
        reason = str(error) if isinstance(error, (ValueError, zipfile.BadZipFile)) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({reason}); delete it to start the stage again, or copy {BEST} "
            f"over {LAST} if it is intact"
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} is a checkpoint of version {found!r}, this package reads version {VERSION}")
    return state


def _check_archive(path: Path) -> None:
    """Check the checksums of the parts, which torch does not compare, and that none expands: torch compresses nothing.

    Raises:
        ValueError: if the file is not what :func:`save_checkpoint` writes.

    """
    check_regular(path)
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("its parts are compressed")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} does not agree")


def check_nothing_lost(folder: Path) -> None:
    """Raise :class:`CheckpointError` where a training that starts again would overwrite trained weights."""
    if not (folder / BEST).is_file():
        return
    step = load_checkpoint(folder / BEST).get("step")
    if step:  # step 0: killed between the first validation and the first checkpoint
        raise CheckpointError(
            f"{folder} has no {LAST}, but a {BEST} of step {step}, which a new training would overwrite; to start "
            f"again, delete it or choose another folder; to go on, copy {BEST} to {LAST} (the optimizer starts anew)"
        )


def check_same_run(
    path: Path,
    state: Mapping[str, Any],
    stage: str,
    config: Mapping[str, Any],
    recipe: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Raise :class:`CheckpointError` unless ``state`` was written by this stage, with these options and data.

    Other options of the recipe that changed are logged: they may be those of another stage.

    Args:
        path: of the checkpoint.
        state: what it holds.
        stage: name of the stage.
        config: options of the loop.
        recipe: options of the whole recipe, without those of ``identity``.
        identity: what must not change at all.

    """
    missing = sorted({"stage", "step", "best", "config", "resolved"} - state.keys())
    if missing:
        raise CheckpointError(f"{path} is not the checkpoint of a training: it lacks {', '.join(missing)}")
    if state["stage"] != stage:
        raise CheckpointError(f"{path} is of the stage {state['stage']!r}, not of {stage!r}; choose another folder")
    changed = _changed(state["config"], config, FREE_OPTIONS)
    if "identity" in state:  # not in checkpoints of before 2026-11-28
        changed += _changed(state["identity"], identity)
    if changed:
        raise CheckpointError(
            f"{path} was trained with other options or data ({'; '.join(changed)}); "
            "use the old ones to resume, or choose another folder"
        )
    before, now = (options.get(VALIDATION, "training") for options in (state["resolved"], recipe))
    if before != now:
        was = "that of the training" if before == "training" else f"{before}"
        raise CheckpointError(
            f"{path} was validated on held-out data of another photometric augmentation ({was}), with whose errors "
            f"those of today cannot be compared; to go on, set the recipe's option {VALIDATION} to {before!r} in a "
            "file of your own, or choose another folder"
        )
    others = _changed(state["resolved"], recipe, _loops(state["resolved"]) | _loops(recipe) | {"split"})
    if others:
        LOGGER.warning(
            "%s: options changed since it was written (what is trained already keeps the old ones): %s",
            path,
            "; ".join(others),
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Say which values differ, except for free ones."""
    names = sorted((before.keys() | now.keys()) - set(free))
    return [f"{n} was {before.get(n)!r}, is {now.get(n)!r}" for n in names if before.get(n) != now.get(n)]


def _loops(options: Mapping[str, Any]) -> set[str]:
    """Names of the tables that hold the loops of stages; each is compared by its own stage."""
    return {name for name, value in options.items() if isinstance(value, Mapping) and "learning_rate" in value}
