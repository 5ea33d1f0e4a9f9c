"""From folders of aligned images to TILDE's filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from kornia_lift._checks import Device, check_device
from kornia_lift.convert.tilde import TILDEResponse
from kornia_lift.evaluation.features.peers import Extractor
from kornia_lift.training.config import to_mapping
from kornia_lift.training.data.prepare.sources import split_folders
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.distributed import rank
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.stacks import read_stack
from kornia_lift.training.tilde.stage import TildeStage, make_response
from kornia_lift.weights import save_model

WEIGHTS, START = "tilde.safetensors", "untrained.safetensors"


class TildeRecipe:
    """Find locations in aligned stacks and train the filters; started again, it continues where it stopped.

    Args:
        data: folders of the training data; only their stacks (``illumination/``) are used.
        extract: gives the features of an image; TILDE takes SIFT's,
            :func:`~kornia_lift.evaluation.features.peers.opencv_sift`.
        out: folder of the run.
        config: options.
        device: where the filters are trained.
        names: of the feature; like the data and the options, it must not change when a run is continued.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if no stack is left to train on, or to validate with, two have the same name, or this machine has no
            such device.

    """

    def __init__(
        self,
        data: Sequence[Path],
        extract: Extractor,
        out: Path,
        config: TildeConfig | None = None,
        device: Device = "cpu",
        names: Sequence[str] = (),
    ) -> None:
        device = check_device(device, type(self).__name__)
        self.out, self.config = out, config or TildeConfig()
        c = self.config
        train, held_out = (
            [read_stack(folder, extract, c) for folder in part] for part in split_folders(data, "exposures", c.split)
        )
        network = make_response(c).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage = TildeStage(network, train, held_out, c)
        fixed = {name: value for name, value in to_mapping(c).items() if name not in ("tilde", "split")}
        stacks = {"training": [each.name for each in train], "held out": [each.name for each in held_out]}
        self._identity = {**fixed, **stacks, "features": list(names)}

    def run(self) -> Result:
        """Train, and write ``out/tilde.safetensors``, which ``convert.load_tilde`` reads.

        Beside it lies ``untrained.safetensors``, the filters of the start, to compare with.
        """
        if rank() == 0 and not (self.out / START).is_file():
            self.out.mkdir(parents=True, exist_ok=True)
            save_model(self.out / START, {"tilde": self.stage.response()}, _options(self.config))
        result = fit(self.stage, self.config.tilde, self.out, resolved=to_mapping(self.config), identity=self._identity)
        if rank() == 0:
            save_tilde(self.out / WEIGHTS, self.stage.response(), self.config, result)
        return result


def save_tilde(path: Path, response: TILDEResponse, config: TildeConfig, result: Result) -> None:
    """Write filters of images to a ``.safetensors`` file, complete or not at all."""
    figures = json.dumps(result.summary, sort_keys=True)
    save_model(path, {"tilde": response}, {**_options(config), "figures": figures})


def _options(config: TildeConfig) -> dict[str, str]:
    """What the reader of a file needs to know."""
    return {"config": json.dumps(to_mapping(config), sort_keys=True)}
