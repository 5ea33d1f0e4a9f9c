"""What both recipes need: the weights that earlier stages left, and the refusal to train through random ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from kornia_lift.training.checkpoint import BEST, load_checkpoint
from kornia_lift.training.distributed import from_first, rank


def best_weights(folder: Path) -> dict[str, Tensor] | None:
    """Return the best weights of the stage in ``folder``, or ``None`` where it was not trained.

    Of several processes the first reads them for all, so that other machines need not see the folder.
    """
    path = folder / BEST
    found = from_first(load_checkpoint(path)["network"] if rank() == 0 and path.is_file() else None)
    weights: dict[str, Tensor] | None = found
    return weights


def check_needs(
    out: Path, stages: Sequence[str], needs: Mapping[str, tuple[str, ...]], given: Collection[str] = ()
) -> None:
    """Check that every stage finds trained networks where it learns through those of other stages.

    Args:
        out: folder of the run.
        stages: to be trained, in order.
        needs: the stages whose networks a stage needs.
        given: stages whose networks the caller has trained otherwise.

    Raises:
        ValueError: naming the checkpoint that is missing.

    """
    for number, stage in enumerate(stages):
        for need in needs.get(stage, ()):
            path = out / need / BEST
            if need in stages[:number] or need in given or from_first(path.is_file()):
                continue
            raise ValueError(
                f"the stage {stage!r} learns through the network that the stage {need!r} trains, but {path} "
                f"is missing; train it first (`--stages {need} {stage}`), or in Python put weights into the network of "
                f"the recipe and say so: run([{stage!r}], given=[{need!r}])"
            )
