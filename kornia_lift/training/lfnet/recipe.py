"""Recipe that trains LF-Net, from a store of images to one weight file."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.scenes.folders import load_posed
from kornia_lift.training.data.photometric import for_validation
from kornia_lift.training.data.split import without_kind
from kornia_lift.training.data.store import Store
from kornia_lift.training.lfnet.config import LFNetConfig
from kornia_lift.training.lfnet.mixed import views_of
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage
from kornia_lift.training.recipe import Recipe
from kornia_lift.training.stage import Stage


class LFNetRecipe(Recipe[LFNetConfig]):
    """The only stage of the LF-Net recipe; see the base class.

    The data decide where pairs of views come from: two images of a reconstructed scene are related around their common
    points and checked by epipolar lines, two of a scene with depth maps (``config.posed``) by depth and pose, and any
    image and its synthetic warp by a homography.

    Args:
        data: training data; scenes with depth maps in it are left out, see ``config.posed``.
        out: folder of the run.
        config: options.
        validation: held-out data; where absent, a part of ``data`` is held out.
        device: where the networks are trained.
        init: weights to start from, ``"lf-net"`` or a ``.safetensors`` file of this recipe; None for random ones.

    """

    NAME = "lfnet"
    OPTIONS = LFNetConfig
    STAGES = ("lfnet",)
    FAMILY = "lfnet"

    networks: LFNetNetworks

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Detector and descriptor."""
        return dict(self.networks.named_children())

    def usable(self, data: Store) -> Store:
        """Scenes with depth maps in a store are left out; see ``config.posed``."""
        return without_kind(data, "posed")

    def make_networks(self) -> None:
        """Make detector and descriptor."""
        networks = LFNetNetworks(LFNetDetector(self.config.keypoints), LFNetDescriptor())
        # convolutions with few channels are faster this way, above all in bfloat16
        self.networks = networks.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def network_of(self, stage: str) -> nn.Module:
        """Return both networks: the stage trains them together."""
        return self.networks

    def make_stage(self, name: str) -> Stage:
        """Return the stage."""
        c = self.config
        posed = [load_posed(folder) for folder in c.posed]
        held_out = replace(c, photometric=for_validation(c.photometric, c.validation_photometric))
        views = views_of(self.data, c, posed), views_of(self.held_out, held_out)
        return LFNetStage(self.networks, *views, c)
