"""One step of a training: loss, gradient, optimiser, averaged weights, in the precision and the processes asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kornia_lift.networks._fast.folded import product_dtype
from kornia_lift.training.config import ConfigError, LoopConfig
from kornia_lift.training.loop import distributed
from kornia_lift.training.loop.batches import step_seed, to_device_of
from kornia_lift.training.loop.optimization import learning_rate, moving_average, optimizer_of, weights_of
from kornia_lift.training.stage import MiningStage, Stage

GRADIENT_SCALE = 2.0**12  # first loss scale of float16; the default 2^16 overflows the first dozen steps


class TrainingDivergedError(RuntimeError):
    """The loss, its gradient, or every validation error is NaN or infinite."""


class Update:
    """Changes the weights of a stage by one batch; holds what that needs between two steps.

    Args:
        stage: what is trained.
        config: how.
        advice: what to do after a divergence, the end of the error message.
        title: name of the stage in that message.

    Raises:
        ConfigError: if the precision is not for the device of the network.

    """

    def __init__(self, stage: Stage, config: LoopConfig, advice: str, title: str) -> None:
        self.stage, self.config, self.advice, self.title = stage, config, advice, title
        network = stage.network
        self.device = next(network.parameters()).device
        if config.precision == "float16" and self.device.type != "cuda":
            raise ConfigError(f"float16 needs CUDA, the network is on {self.device}; use bfloat16 or float32")
        self.optimizer = optimizer_of(network, config)
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=GRADIENT_SCALE, enabled=config.precision == "float16"
        )
        self.averaged: nn.Module | None = None
        if config.ema_decay is not None:
            self.averaged = AveragedModel(network, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True)
        self.loss = distributed.loss_module(stage)

    def __call__(self, batch: dict[str, Tensor], step: int, elapsed: float) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: the whole batch, of all processes.
            step: number of steps done.
            elapsed: seconds of training so far, for the learning rate.

        Returns:
            Figures worth logging: loss, those of the stage, norm of the gradient, learning rate.

        Raises:
            TrainingDivergedError: at a loss or gradient that is not finite.

        """
        config, network = self.config, self.stage.network
        rate = learning_rate(config, step, elapsed)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        network.train()
        # dropout draws from the global generators, which fit() put aside
        torch.manual_seed(step_seed(config.seed, step) + distributed.rank())
        batch = to_device_of(network, batch)
        if isinstance(self.stage, MiningStage):
            with torch.no_grad(), self._autocast():  # of its own: autocast would keep the weights without gradient
                batch = self.stage.mine(batch)
        divisible = getattr(self.stage, "divisible", True)
        part, weight = distributed.local_part(batch) if divisible else (batch, 1.0)
        with self._autocast():
            loss, figures = self.loss(part)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * weight).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf)
        # together: every number that is read waits for the device
        whole = distributed.mean_over_processes(loss.detach() * weight)
        value, length = torch.stack([whole.to(norm), norm]).tolist()
        # float16: an infinite gradient is the scaler's business, it skips the step and lowers the scale
        if not math.isfinite(value) or not (self.scaler.is_enabled() or math.isfinite(length)):
            raise TrainingDivergedError(self._diagnosis(step, value, length, figures))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(network)  # type: ignore[operator]
        return {"loss": value, **figures, "grad_norm": length, "lr": rate}

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.config.precision)
        if dtype == torch.bfloat16 and self.device.type == "cpu":
            dtype = product_dtype("auto")  # a CPU without such products takes two to three times as long in them
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _diagnosis(self, step: int, loss: float, norm: float, figures: Mapping[str, float]) -> str:
        gradients = {n: p.grad for n, p in self.stage.network.named_parameters() if p.grad is not None}
        bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        return (
            f"{self.title}, step {step}: loss {loss}, gradient norm {norm}, {dict(figures)}; "
            f"gradients that are not finite: {', '.join(bad[:5]) or 'none'}. The batch is that of seed "
            f"{self.config.seed}. {self.advice}"
        )

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Lend the averaged weights, where there are any, to the network of the stage."""
        return weights_of(self.averaged, self.stage.network)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the network and its optimiser."""
        return {
            "network": self.stage.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what :meth:`state_dict` returned, or to a network alone, with which the optimizer starts anew."""
        self.stage.network.load_state_dict(state["network"])
        if "optimizer" not in state:
            if self.averaged is not None:
                self.averaged.module.load_state_dict(state["network"])  # type: ignore[union-attr]
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
