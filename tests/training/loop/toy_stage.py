"""A stage that trains in milliseconds, and a script that runs it in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn

from kornia_lift.training.config import LoopConfig
from kornia_lift.training.loop import distributed, fit
from kornia_lift.training.loop.log import read_log

SHORT = LoopConfig(steps=60, validate_every=20, checkpoint_every=10, log_every=1, learning_rate=0.02)


def trace(folder: Path) -> dict[int, float]:
    """Losses of the steps that a log holds."""
    return {e["step"]: e["loss"] for e in read_log(folder / "log.jsonl") if e["kind"] == "train"}


class ToyStage:
    """Regress a fixed linear map; dropout makes every step depend on the global generator too."""

    name = "toy"

    def __init__(self, *, size: int = 8, dropout: float = 0.2, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(3)
        self.truth = torch.randn(4, 2, generator=generator)
        self.size = size
        self.network: nn.Module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 2))
        for parameter in self.network.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        self.network.to(device)

    def batch(self, generator: torch.Generator, step: int) -> dict[str, Tensor]:
        x = torch.randn(self.size, 4, generator=generator)
        return {"x": x, "y": x @ self.truth}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        loss = (self.network(batch["x"]) - batch["y"]).square().mean()
        return loss, {"twice": 2 * loss.item()}

    def validate(self) -> dict[str, float]:
        torch.rand(7)  # validation may use the global generator without any effect on training
        x = torch.linspace(-1, 1, 80, device=next(self.network.parameters()).device).view(20, 4)
        return {"error": (self.network(x) - x @ self.truth.to(x)).square().mean().item()}


class Stops(ToyStage):
    """Interrupted at its first step."""

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="{}")
    parser.add_argument("--stage", default="{}")
    parser.add_argument("--die-at", type=int, default=None, help="step at which rank 1 dies")
    parser.add_argument("--kill-at", type=int, default=None, help="step at which the process kills itself")
    parser.add_argument("--own-folders", action="store_true", help="one folder per process, as on several machines")
    args = parser.parse_args()
    with distributed.process_group():
        stage = ToyStage(**json.loads(args.stage))
        if args.die_at is not None and torch.distributed.get_rank() == 1:
            draw = stage.batch

            def batch(generator: torch.Generator, step: int) -> dict[str, Tensor]:
                if step == args.die_at:
                    os._exit(9)
                return draw(generator, step)

            stage.batch = batch  # type: ignore[method-assign]
        if args.kill_at is not None:
            draw_batch = stage.batch

            def kill(generator: torch.Generator, step: int) -> dict[str, Tensor]:
                if step == args.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return draw_batch(generator, step)

            stage.batch = kill  # type: ignore[method-assign]
        out = args.out / str(distributed.rank()) if args.own_folders else args.out
        fit(stage, LoopConfig(**json.loads(args.config)), out, progress=False)
    for _ in range(300):  # the system lists a thread for a moment after it was joined
        if not any("gloo" in name for name in thread_names()):
            break
        time.sleep(0.1)
    if left := [name for name in thread_names() if "gloo" in name]:
        raise RuntimeError(f"threads outlive their process group: {', '.join(left)}")
    return 0


def thread_names() -> list[str]:
    """Names of all threads of this process, those of C++ included; empty where the system does not report them."""
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.is_dir() else []


if __name__ == "__main__":
    sys.exit(main())
