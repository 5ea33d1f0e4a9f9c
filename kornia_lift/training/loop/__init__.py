"""The training loop and what it needs: batches, checkpoints, learning rate, processes, signals, log."""

from kornia_lift.training.loop.loop import fit
from kornia_lift.training.loop.result import Result
from kornia_lift.training.loop.update import TrainingDivergedError

__all__ = ["Result", "TrainingDivergedError", "fit"]
