"""The training loop and what it needs: batches, checkpoints, learning rate, processes, signals, log."""

from kornia_lift.training.loop.loop import Result, TrainingDivergedError, fit

__all__ = ["Result", "TrainingDivergedError", "fit"]
