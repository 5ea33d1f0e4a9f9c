"""What all recipes share: hold-out, stages in order, weights that earlier stages left, the final file."""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from kornia_lift._checks import Device, check_device
from kornia_lift._io.writing import temporary_folder
from kornia_lift._words import counted
from kornia_lift.evaluation.report.results import FeatureResults
from kornia_lift.training.config import LoopConfig, to_mapping
from kornia_lift.training.data.split import SplitConfig, describe_sides, split_store
from kornia_lift.training.data.store import Store
from kornia_lift.training.held_out.referee import Referee, Verdict, judge
from kornia_lift.training.held_out.verdicts import is_kept, keep_verdicts, read_verdicts
from kornia_lift.training.initial import Model, check_family, check_initial, keep_initial, load_initial
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.checkpoint import BEST, LAST, load_checkpoint
from kornia_lift.training.loop.distributed import from_first, rank
from kornia_lift.training.loop.finished import finished_result
from kornia_lift.training.split_record import SPLIT, check_split, keep_split
from kornia_lift.training.stage import Stage
from kornia_lift.training.watch import Watch
from kornia_lift.weights import Family, save_model


class RecipeConfig(Protocol):
    """Options that every recipe has; the loop of each stage stands under the stage's name."""

    @property
    def split(self) -> SplitConfig:
        """What is held out."""

    @property
    def seed(self) -> int:
        """Seed of the initial weights."""


Config = TypeVar("Config", bound=RecipeConfig)


class Recipe(ABC, Generic[Config]):
    """Stages that each leave their checkpoint in their own folder and can be resumed.

    Args:
        data: training data.
        out: folder of the run.
        config: options, :attr:`OPTIONS` by default.
        validation: held-out data; if None, a part of ``data`` is held out as ``config.split`` says.
        device: where the networks are trained.
        init: weights to start from, the name of a shipped model or a ``.safetensors`` file; None for random ones.

    Raises:
        ValueError: if nothing is left to train on or to validate with, the run was started with another split or from
            other weights, the weights are of other networks, or this machine has no such device.

    """

    #: What the recipe is called.
    NAME: ClassVar[str]
    #: The type of the options.
    OPTIONS: ClassVar[type[Any]]
    #: Names of the stages, in order.
    STAGES: ClassVar[tuple[str, ...]]
    #: Further stages, trained after those and only where they are named.
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    #: The network that a stage trains, where it is not the one of its own name.
    TRAINS: ClassVar[Mapping[str, str]] = MappingProxyType({})
    #: The stages whose networks a stage learns through, or continues to train.
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    #: Stages whose networks are used with affine shapes only: held-out pairs are then measured with these.
    AFFINE: ClassVar[frozenset[str]] = frozenset()
    #: Which networks it trains, see :func:`kornia_lift.weights.network_family`.
    FAMILY: ClassVar[Family] = "lift"

    response: nn.Module
    orientation: nn.Module
    descriptor: nn.Module

    def __init__(
        self,
        data: Store,
        out: Path,
        config: Config | None = None,
        validation: Store | None = None,
        device: Device = "cpu",
        init: Model | None = None,
    ) -> None:
        self.config: Config = config if config is not None else self.OPTIONS()
        self.out, self.device, self.init = out, check_device(device, type(self).__name__), init
        self.watch = Watch()  # of what stages prepare; silent but for runs that show progress
        given, data, unused = len(data.images), self.usable(data), ""
        if given > len(data.images):
            count = given - len(data.images)
            unused = f"; {counted(count, 'image')} with depth maps, used only where use_posed (lfnet: posed) says so"
        if validation is None:
            self.data, self.held_out = split_store(data, self.config.split)
        else:
            self.data, self.held_out = data, validation
        for what, part in (("train on", self.data), ("hold out", self.held_out)):
            if not len(part.tracks):
                raise ValueError(
                    f"the data leave nothing to {what}: {_count(self.data)} are trained on, {_count(self.held_out)} "
                    "held out. At least two scenes, or two single images, or one scene of four images, are needed; "
                    f"add images, name validation data, or change the options of the split{unused}"
                )
        self._sides = describe_sides(self.data, self.held_out)
        check_split(out, self.NAME, self._sides)
        check_initial(out, init, (out / SPLIT).exists())
        if init is not None:
            check_family(init, self.FAMILY)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.config.seed)
            self.make_networks()
        if init is not None:
            load_initial(init, self.initial_parts(init))

    @classmethod
    def stages_of(cls, config: Any) -> tuple[str, ...]:
        """Return the stages that are trained where none are named; options may leave some of :attr:`STAGES` out."""
        return cls.STAGES

    def usable(self, data: Store) -> Store:
        """Return what the recipe can use of the training data; all of it unless a recipe says otherwise."""
        return data

    def initial_parts(self, init: Model) -> dict[str, nn.Module]:
        """Return the networks that a model gives weights to; all of them unless a recipe says otherwise."""
        return self.parts

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by the names under which they are saved."""
        return {"response": self.response, "orientation": self.orientation, "descriptor": self.descriptor}

    @abstractmethod
    def make_networks(self) -> None:
        """Set ``response``, ``orientation`` and ``descriptor``, on ``device``, with initial weights."""

    @abstractmethod
    def make_stage(self, name: str) -> Stage:
        """Return a stage, ready to be trained."""

    def network_of(self, stage: str) -> nn.Module:
        """Return the network that a stage trains."""
        network: nn.Module = getattr(self, self.TRAINS.get(stage, stage))
        return network

    def run(
        self,
        stages: Sequence[str] = (),
        *,
        given: Collection[str] = (),
        progress: bool = True,
        referee: Referee | None = None,
    ) -> dict[str, Result]:
        """Train the given stages in the recipe's order; networks of the others come from their folders.

        With a referee, a stage after which the networks match the held-out pairs worse than before it is undone;
        :func:`~kornia_lift.training.held_out.verdicts.read_verdicts` tells which.

        Args:
            stages: names of stages; those of :meth:`stages_of` where empty.
            given: stages whose networks hold weights that the caller has put there; nothing is read for them.
            progress: show progress.
            referee: measures the networks before and after every stage.

        Raises:
            ValueError: if a stage is unknown, or learns through a network that nobody has trained.

        """
        every, chosen = (*self.STAGES, *self.OPTIONAL), stages or self.stages_of(self.config)
        unknown = sorted(set(chosen) - set(every))
        if unknown:
            raise ValueError(f"unknown stages {', '.join(unknown)}; the stages are {', '.join(every)}")
        order = [name for name in every if name in chosen]
        check_needs(self.out, order, self.NEEDS, every if self.init is not None else given)
        self._keep_split()
        results = {}
        verdicts = read_verdicts(self.out)
        for name in every:
            folder = self.out / name
            if name in order:
                title = f"{name} ({order.index(name) + 1}/{len(order)})"
                network = self.network_of(name)
                before = copy.deepcopy(network.state_dict()) if referee is not None else None
                results[name] = self._train(name, title, progress and rank() == 0)
                network.eval()
                if referee is not None and before is not None:
                    verdict = self._judge(name, before, referee)
                    verdicts[name] = verdict
                    keep_verdicts(self.out, verdicts)
                    if not verdict.accepted:
                        network.load_state_dict(before)
            elif name not in given and is_kept(verdicts, name) and (weights := best_weights(folder)) is not None:
                self.network_of(name).load_state_dict(weights)
        return results

    def _train(self, name: str, title: str, progress: bool) -> Result:
        """Train a stage, or take its weights where an earlier call has finished it: nothing is prepared for it then."""
        loop: LoopConfig = getattr(self.config, name)
        folder, resolved, identity = self.out / name, to_mapping(self.config), {"recipe": self.NAME}
        result = finished_result(loop, folder, resolved, identity)
        weights = best_weights(folder) if result is not None else None
        if result is not None and weights is not None:
            self.network_of(name).load_state_dict(weights)
            if progress:
                late = "out of time at step" if result.stopped == "time" else "step"
                print(f"{title}: finished earlier ({late} {result.step}), skipped", file=sys.stderr)
            return result
        if progress:  # preparing a detector stage can take minutes
            begun = f", to go on from {folder / LAST}" if (folder / LAST).is_file() else ""
            print(f"{title}: preparing{begun}", file=sys.stderr)
            self.watch = Watch(partial(print, f"{title}: preparing,", file=sys.stderr))
        stage = self.make_stage(name)
        return fit(stage, loop, folder, progress=progress, resolved=resolved, identity=identity, title=title)

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the networks to one ``.safetensors`` file in half precision."""
        save_model(path, self.parts, {"networks": self.FAMILY, **(metadata or {})})

    def _judge(self, stage: str, before: Mapping[str, Tensor], referee: Referee) -> Verdict:
        """Compare the networks with those in which one has the weights ``before``; the first process decides."""
        verdict = None
        if rank() == 0:
            network = self.network_of(stage)
            after = copy.deepcopy(network.state_dict())
            with temporary_folder(self.out / "judged") as folder:
                rows: list[FeatureResults] = []
                for name, state in ((f"before {stage}", before), (f"after {stage}", after)):
                    network.load_state_dict(state)
                    self.save(path := folder / f"{len(rows)}.safetensors")
                    rows.append(referee.measure(name, path, stage in self.AFFINE))
            verdict = judge(*rows)
        decided: Verdict = from_first(verdict)
        return decided

    def _keep_split(self) -> None:
        if rank() == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            keep_split(self.out, self.NAME, self._sides)
            if self.init is not None:
                keep_initial(self.out, self.init)


def _count(store: Store) -> str:
    return f"{counted(len(store.images), 'image')} of {counted(len(store.scenes), 'scene')}"


def best_weights(folder: Path) -> dict[str, Tensor] | None:
    """Return the best weights of the stage in ``folder``, or ``None`` where it was not trained.

    With several processes, the first reads them for all, so that other machines need not see the folder.
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
                f"is missing; train it first (`--stages {need} {stage}`), start from weights that exist (--init), or "
                f"in Python put weights into the network of the recipe and say so: run([{stage!r}], given=[{need!r}])"
            )
