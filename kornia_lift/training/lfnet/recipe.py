"""Recipe that trains LF-Net, from a store of images to one weight file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.networks.lfnet_descriptor import LFNetDescriptor
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.split import without_kind
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.posed import PosedViews
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage
from kornia_lift.training.lfnet.tracked import TrackedViews
from kornia_lift.training.lfnet.views import Views, ViewSource, WarpedViews, join_views
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage


class MixedViews:
    """Draws pairs of views from two kinds of sources.

    Args:
        scenes: pairs of two images of a scene; may be empty.
        warped: pairs of an image and its synthetic warp.
        share: of the pairs that come from the scenes, where there are any; which scene source is drawn at random.

    """

    def __init__(self, scenes: Sequence[ViewSource], warped: ViewSource, share: float) -> None:
        self.scenes, self.warped, self.share = scenes, warped, share if scenes else 0.0

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        parts = []
        for u in torch.rand(count, generator=generator).tolist():
            chosen = int(torch.randint(max(len(self.scenes), 1), (1,), generator=generator))
            source = self.scenes[chosen] if u < self.share else self.warped
            parts.append(source.draw(generator, 1))
        return join_views(parts)


class LFNetRecipe(Recipe):
    """The only stage of the LF-Net recipe; see the base class.

    Where pairs of views come from is said by the data: two images of a reconstructed scene are related around their
    common points and checked by epipolar lines, two of a scene with depth maps (``config.posed``) by depth and pose,
    any image and its synthetic warp by a homography.

    Args:
        data: training data; scenes with depth maps in it are left out, see ``config.posed``.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where the networks are trained.

    """

    STAGES = ("lfnet",)

    networks: LFNetNetworks

    def __init__(
        self,
        data: Store,
        out: Path,
        config: LFNetConfig | None = None,
        validation: Store | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(without_kind(data, "posed"), out, config or LFNetConfig(), validation, device)

    def make_networks(self) -> None:
        """Make detector and descriptor."""
        self.networks = LFNetNetworks(LFNetDetector(self.config.keypoints), LFNetDescriptor()).to(self.device)

    def network_of(self, stage: str) -> nn.Module:
        """Return both networks: the stage trains them together."""
        return self.networks

    def make_stage(self, name: str) -> Stage:
        """Return the stage."""
        c: LFNetConfig = self.config
        posed = [PosedScene.load(folder) for folder in c.posed]
        training = self._views(self.data, posed)
        return LFNetStage(self.networks, training, self._views(self.held_out, []), c)

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write both networks to one ``.safetensors`` file in half precision."""
        save_lfnet(path, self.networks, metadata)

    def _views(self, store: Store, posed: Sequence[PosedScene]) -> MixedViews:
        c: LFNetConfig = self.config
        groups: dict[str, list[Tensor]] = {}
        for n, image in enumerate(store.images):
            # exposures of one scene are aligned: two of them are a pair; other images are alone
            key = image.scene if image.kind == "exposures" else image.name
            groups.setdefault(key, []).append(store.decode(n))
        scenes: list[ViewSource] = [PosedViews(posed, c)] if posed else []
        tracked = TrackedViews(store, c)
        if tracked.pairs:
            scenes.append(tracked)
        warped = WarpedViews(
            list(groups.values()), c.size, (c.min_step, c.max_step), c.scale, c.rotation, c.photometric
        )
        return MixedViews(scenes, warped, c.tracked)


def save_lfnet(path: Path, networks: LFNetNetworks, metadata: Mapping[str, str] | None = None) -> None:
    """Write LF-Net to one ``.safetensors`` file in half precision, complete or not at all.

    Args:
        path: the file, which ``LFNetFeature(pretrained=path)`` reads.
        networks: saved as ``detector.*`` and ``descriptor.*``.
        metadata: text for the header of the file.

    Raises:
        MissingExtraError: if the package safetensors is not installed.

    """
    to_bytes = require("safetensors.torch", extra="train").save
    tensors = {}
    for name, tensor in networks.state_dict().items():
        half = tensor.detach().to("cpu", torch.float16) if tensor.is_floating_point() else tensor.detach().cpu()
        tensors[name] = half.contiguous().clone()
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_bytes(tensors, {"networks": "lfnet", **(metadata or {})}))
