"""The training loop, in plain torch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from kornia_lift._io.writing import remove_leftovers
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.loop import distributed
from kornia_lift.training.loop.batches import batches_from
from kornia_lift.training.loop.checkpoint import (
    BEST,
    LAST,
    CheckpointError,
    check_nothing_lost,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
)
from kornia_lift.training.loop.log import TrainingLog
from kornia_lift.training.loop.optimization import learning_rate
from kornia_lift.training.loop.paired import PairedParts
from kornia_lift.training.loop.result import Result, make_result
from kornia_lift.training.loop.signals import StopRequest, TrainingInterrupted, stop_requests
from kornia_lift.training.loop.update import TrainingDivergedError, Update
from kornia_lift.training.stage import ERROR, Stage, measure_of

LOGGER = logging.getLogger(__name__)
BUDGET_VALIDATIONS = 10  # of a stage with max_minutes
VALIDATION_SHARE = 0.25  # of the minutes, largest share for validations


def fit(
    stage: Stage,
    config: LoopConfig,
    out_dir: str | Path,
    resume: bool = True,
    *,
    progress: bool = True,
    resolved: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
    title: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Train ``stage.network``; it then holds the weights of the smallest validation error.

    ``out_dir`` receives ``last.pt``, ``best.pt`` and ``log.jsonl``. A process that is killed at any moment continues
    from ``last.pt`` when started again; every batch and every random number is then the same as without interruption.
    If somebody removes ``best.pt``, the weights of the last step take its place at the end, with a warning.
    SIGINT and SIGTERM end the step that runs, save, and raise; a second one interrupts at once.

    Args:
        stage: what to train.
        config: how to train it.
        out_dir: folder of this stage, made where it does not exist.
        resume: continue from ``last.pt`` where there is one; otherwise start from the beginning.
        progress: show progress on stderr: a bar on a terminal, else a line per validation.
        resolved: the whole configuration of the run, stored in the checkpoints for the record; changes are logged.
        identity: plain values that must not change between a checkpoint and its resumption, such as the names of the
            data.
        title: what the progress is called; the name of the stage by default.
        clock: gives seconds; measures ``max_minutes`` and ``checkpoint_minutes``.

    Raises:
        TrainingInterrupted: after SIGINT or SIGTERM, with the state saved.
        TrainingDivergedError: at a loss or gradient that is not finite; the last checkpoint stays as it was. Also at
            the end, where no validation gave a finite error.
        CheckpointError: if ``last.pt`` is damaged, or of another stage or of other options; or if it is missing beside
            a ``best.pt`` of trained weights, which would be overwritten.
        WorkerLostError: if another process of the same training died.

    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    advice = f"Start the same command again to go on from {out_dir / LAST}"
    device = next(stage.network.parameters()).device
    with distributed.lost_worker_says(advice), torch.random.fork_rng([device] if device.type == "cuda" else []):
        if distributed.rank() == 0:
            remove_leftovers(out_dir)
        run = _Run(stage, config, out_dir, resolved or {}, identity or {}, clock, title or stage.name)
        if resume and distributed.from_first((out_dir / LAST).is_file()):
            run.restore()
        elif resume and distributed.rank() == 0:
            check_nothing_lost(out_dir)
        with stop_requests() as request:
            return run.train(request, progress and distributed.rank() == 0)


class _Run:
    """State of one training: what a checkpoint holds, and the steps that change it."""

    def __init__(
        self,
        stage: Stage,
        config: LoopConfig,
        out_dir: Path,
        resolved: Mapping[str, Any],
        identity: Mapping[str, Any],
        clock: Callable[[], float],
        title: str,
    ) -> None:
        self.stage, self.config, self.out_dir, self.resolved = stage, config, out_dir, dict(resolved)
        self.identity, self.clock, self.title = dict(identity), clock, title
        advice = (
            f"To start the stage again with a lower learning_rate or with clip_norm, delete {LAST} and {BEST} in "
            f"{out_dir}, or choose another folder"
        )
        self.update = Update(stage, config, advice, title)
        self.step = self.first_step = 0
        self.elapsed = 0.0
        self.validating = self.validation_seconds = 0.0  # seconds of the validations since the first step, of the last
        self.resumed = False
        self.best: dict[str, Any] = {"step": -1, "figures": {ERROR: math.inf}}
        self.start = math.nan
        self.measure, self.parts = measure_of(stage), PairedParts()

    def train(self, request: StopRequest, progress: bool) -> Result:
        config, before = self.config, self.elapsed
        first = distributed.rank() == 0
        log = None
        if first:
            log = TrainingLog(
                self.out_dir,
                self.title,
                self.step,
                config.steps,
                resumed=self.resumed,
                tensorboard=config.tensorboard,
                progress=progress,
                measure=self.measure,
            )
        stopped: Literal["steps", "time"] = "time" if self._late() else "steps"
        try:
            if self.best["step"] < 0:  # not counted in the minutes: if slow, it would leave a short budget no steps
                self._validate(log)
                self._save()
            samples, started = 0, self.clock()
            since = saved = started
            with batches_from(self.stage, config, self.step) as batches:
                while self.step < config.steps and stopped == "steps":
                    self._stop_if(request)
                    batch = next(batches)
                    figures = self.update(batch, self.step, self.elapsed)
                    samples += len(next(iter(batch.values())))
                    self.step += 1
                    # the first process's clock is everyone's: learning rate and end follow it
                    spent, self.elapsed = self.elapsed, distributed.from_first(before + self.clock() - started)
                    if self._late():
                        stopped = "time"
                    end = stopped == "time" or self.step == config.steps
                    if log is not None:
                        log.advance(self._seconds_left(before))
                        if end or self.step % config.log_every == 0:
                            now = self.clock()
                            log.write(self.step, "train", figures | {"samples_per_s": samples / max(now - since, 1e-9)})
                            samples, since = 0, now
                    if end or self.step % config.validate_every == 0 or self._is_due(spent):
                        self._validate(log)
                    late = self.clock() - saved >= 60 * config.checkpoint_minutes
                    if end or late or self.step % config.checkpoint_every == 0:
                        self._save()
                        saved = self.clock()
            self._stop_if(request)
            if self._lost_best():
                self._validate(log)
                self._save()
        finally:
            if log is not None:
                log.close()
        if not math.isfinite(self.best["figures"][ERROR]):
            raise TrainingDivergedError(
                f"{self.title}: no validation gave a finite error, the last one {self.best['figures']}; "
                "the held-out data are most likely too few or damaged"
            )
        found = distributed.from_first(load_checkpoint(self.out_dir / BEST) if first else None)
        self.stage.network.load_state_dict(found["network"])
        # of the file itself: a run that was killed after writing it resumed from a last.pt that did not know it yet
        return make_result(self.step, stopped, self.start, found["best"], self.out_dir, self.measure, config.steps)

    def _late(self) -> bool:
        return self.config.max_minutes is not None and self.elapsed > 60 * self.config.max_minutes

    def _share(self, elapsed: float) -> int:
        """Number of the current tenth of the time budget, whose end validates; 0 without a budget."""
        minutes = self.config.max_minutes
        return 0 if minutes is None else int(elapsed / (60 * minutes) * BUDGET_VALIDATIONS)

    def _is_due(self, before: float) -> bool:
        """Whether a tenth of the minutes ended since ``before``, and one more validation leaves time to learn."""
        took = self.validating + self.validation_seconds
        return self._share(before) != self._share(self.elapsed) and took <= VALIDATION_SHARE * self.elapsed

    def _seconds_left(self, before: float) -> float:
        """Seconds until the steps or the minutes are used up, at the speed of this process so far."""
        done = self.elapsed - before
        pace = done / max(1, self.step - self.first_step)
        left = pace * (self.config.steps - self.step)
        return left if self.config.max_minutes is None else min(left, 60 * self.config.max_minutes - self.elapsed)

    def _stop_if(self, request: StopRequest) -> None:
        if request.number is not None:
            self._save()
            raise TrainingInterrupted(
                f"{self.title}: interrupted at step {self.step} of {self.config.steps}, saved; the same command goes "
                f"on from {self.out_dir / LAST}",
                request.number,
            )

    def _validate(self, log: TrainingLog | None) -> None:
        began = self.clock()
        network = self.stage.network.eval()
        if log is not None:  # rank 0; the others wait in from_first
            with torch.no_grad(), self.update.averaged_weights():
                figures = {key: float(value) for key, value in self.stage.validate().items()}
                interval = self.parts.interval(self.stage, self.step)
                error, least = figures[ERROR], self.best["figures"][ERROR]
                if not self.step:
                    self.start = error
                if not math.isfinite(error):
                    LOGGER.warning("%s, step %d: the validation error is %s", self.title, self.step, error)
                # an error that is not finite is the worst: without this a first NaN would stay the best
                if self.best["step"] < 0 or (math.isfinite(error) and not least <= error):
                    self.best = {"step": self.step, "figures": figures, "interval": interval}
                    save_checkpoint(self.out_dir / BEST, self._header() | {"network": network.state_dict()})
            log.write(self.step, "validation", figures)
        took = self.clock() - began
        self.best, self.start, self.validation_seconds = distributed.from_first((self.best, self.start, took))
        self.validating += self.validation_seconds * (self.step > self.first_step)

    def _lost_best(self) -> bool:
        """Whether ``best.pt`` has been removed; what it held is then forgotten."""
        path = self.out_dir / BEST
        lost: bool = distributed.from_first(not path.is_file())
        if lost:
            LOGGER.warning(
                "%s was removed, with the weights of step %d: those of the last step take their place",
                path,
                self.best["step"],
            )
            self.best = {"step": -1, "figures": {ERROR: math.inf}}
        return lost

    def _header(self) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "step": self.step,
            "best": self.best,
            "config": to_mapping(self.config),
            "resolved": self.resolved,
            "identity": self.identity,
        }

    def _save(self) -> None:
        if distributed.rank() == 0:
            more: dict[str, Any] = {"elapsed": self.elapsed, "start": self.start}
            more |= {"measure": None if self.measure is None else asdict(self.measure), "parts": self.parts.first}
            save_checkpoint(self.out_dir / LAST, self._header() | more | self.update.state_dict())

    def restore(self) -> None:
        """Go back to ``last.pt``, which the first process reads for all: other machines need not see the folder."""
        path = self.out_dir / LAST
        state = distributed.from_first(load_checkpoint(path) if distributed.rank() == 0 else None)
        check_same_run(path, state, self.stage.name, to_mapping(self.config), self.resolved, self.identity)
        try:
            self.update.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} holds a network or an optimizer of another form ({str(error).strip().splitlines()[0]}); use "
                "the old options to resume, or choose another folder"
            ) from error
        self.step, self.elapsed, self.best = state["step"], state.get("elapsed", 0.0), state["best"]
        self.start, self.parts.first = state.get("start", math.nan), state.get("parts")
        self.first_step, self.resumed = self.step, True
        self._say_new_rate(state["config"]["max_minutes"])

    def _say_new_rate(self, before: float | None) -> None:
        old, new = replace(self.config, max_minutes=before), self.config
        rates = [learning_rate(c, self.step, self.elapsed) for c in (old, new)]
        if distributed.rank() == 0 and self.step < new.steps and not self._late() and rates[0] != rates[1]:
            LOGGER.warning(
                "%s continues with max_minutes %s instead of %s: its decaying rate changes from %.3g to %.3g",
                self.title,
                new.max_minutes,
                before,
                *rates,
            )
