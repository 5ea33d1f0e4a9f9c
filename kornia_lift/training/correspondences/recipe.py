"""From a folder of reconstructed scenes and a feature to the weights of the correspondence network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from kornia_lift._checks import Device, check_device
from kornia_lift.evaluation.features.peers import Extractor
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.training.config import to_mapping
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.data import match_pairs
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.data.prepare.sources import split_folders
from kornia_lift.training.loop import Result, fit
from kornia_lift.training.loop.distributed import rank
from kornia_lift.weights import write_safetensors

WEIGHTS = "correspondence.safetensors"


class CorrespondenceRecipe:
    """Match the scenes of a folder by a feature and train the network; started again, it continues where it stopped.

    Args:
        data: folder of the training data, or several; only its reconstructed scenes (``sfm/``) are used.
        extract: gives the features of an image, such as ``opencv_sift(2000)`` of
            :mod:`kornia_lift.evaluation.features.peers`; or several, whose matches the network then filters.
        out: folder of the run.
        config: options.
        device: where the network is trained.
        names: of the features; like the data and the options, they must not change when a run is continued.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if no pair is left to train on, or to validate with, two scenes have the same name, or this machine
            has no such device.

    """

    def __init__(
        self,
        data: Path | Sequence[Path],
        extract: Extractor | Sequence[Extractor],
        out: Path,
        config: CorrespondenceConfig | None = None,
        device: Device = "cpu",
        names: Sequence[str] = (),
    ) -> None:
        features = extract if isinstance(extract, Sequence) else [extract]
        device = check_device(device, type(self).__name__)
        self.out, self.config = out, config or CorrespondenceConfig()
        # the images in colour, which a store does not hold
        roots = [data] if isinstance(data, Path) else data
        train, held_out = split_folders(roots, "sfm", self.config.split)
        c = self.config
        with torch.random.fork_rng([]):
            torch.manual_seed(c.seed)
            self.network = CorrespondenceNet(channels=c.channels, blocks=c.blocks, side=c.side).to(device)
        self.stage = CorrespondenceStage(
            self.network,
            [pair for feature in features for pair in match_pairs(train, feature, self.config)],
            [pair for feature in features for pair in match_pairs(held_out, feature, self.config)],
            self.config,
        )
        fixed = {name: value for name, value in to_mapping(c).items() if name not in ("loop", "split")}
        sides = ("training", self.stage.pairs), ("held out", self.stage.validation)
        pairs = {side: dict(Counter(pair.scene for pair in found)) for side, found in sides}
        self._identity = {**fixed, **pairs, "features": list(names)}

    def run(self) -> Result:
        """Train, and write ``out/correspondence.safetensors``, which ``CorrespondenceNet(pretrained=...)`` reads."""
        result = fit(self.stage, self.config.loop, self.out, resolved=to_mapping(self.config), identity=self._identity)
        if rank() == 0:
            save_correspondence(self.out / WEIGHTS, self.network, self.config, result)
        return result


def save_correspondence(path: Path, network: CorrespondenceNet, config: CorrespondenceConfig, result: Result) -> None:
    """Write the network to a ``.safetensors`` file, complete or not at all."""
    tensors = {f"correspondence.{n}": t for n, t in network.state_dict().items()}
    metadata = {
        "config": json.dumps(to_mapping(config), sort_keys=True),
        "figures": json.dumps(result.summary, sort_keys=True),
    }
    write_safetensors(path, tensors, metadata)
