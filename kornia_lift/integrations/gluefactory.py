"""LIFT as an extractor of glue-factory (https://github.com/cvg/glue-factory).

In a configuration, give this module as the name of the extractor::

    model:
      name: two_view_pipeline
      extractor: {name: kornia_lift.integrations.gluefactory, max_num_keypoints: 2048}
      matcher: {name: matchers.nearest_neighbor_matcher}

Convention:
    glue-factory puts the corner of the image at (0, 0): keypoints are shifted by half a pixel. ``scales`` are sigma in
    pixels, ``oris`` radians, clockwise on screen, as those of its ``sift``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.feature import LIFTFeature
from kornia_lift.integrations._extract import Keypoints, extract

_HINT = "pip install git+https://github.com/cvg/glue-factory"

_BaseModel = require("gluefactory.models.base_model", hint=_HINT).BaseModel


class LIFT(_BaseModel):  # type: ignore[misc, valid-type]
    """Extractor of glue-factory.

    Args:
        conf: ``weights``: name of a shipped model or path of a ``.safetensors`` file; ``max_num_keypoints``;
            ``upright``: assign no orientation (``None``: as the model says); ``affine``: give keypoints an affine
            shape; ``force_num_keypoints``: fill up to ``max_num_keypoints`` with random locations of score 0. All
            images of a batch get the same number: that of the image with most.

    """

    default_conf = {  # noqa: RUF012 (glue-factory's own style)
        "weights": "lift",
        "max_num_keypoints": 2048,
        "upright": None,
        "affine": False,
        "force_num_keypoints": False,
    }
    required_data_keys = ["image"]  # noqa: RUF012

    def _init(self, conf: Any) -> None:
        self.feature = LIFTFeature(conf.max_num_keypoints, conf.upright, pretrained=conf.weights, affine=conf.affine)
        self.set_initialized()

    def _forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        image = data["image"]
        found = extract(self.feature, image)
        most = max((len(f.xy) for f in found), default=0)
        count = self.conf.max_num_keypoints if self.conf.force_num_keypoints else most
        rows = [_padded(f, count, image.shape[-2:]) for f in found]
        return {
            "keypoints": torch.stack([f.xy for f in rows]).to(image) + 0.5,
            "keypoint_scores": torch.stack([f.scores for f in rows]).to(image),
            "descriptors": torch.stack([f.descriptors for f in rows]).to(image),
            "scales": torch.stack([f.sigma for f in rows]).to(image),
            "oris": torch.stack([f.angle for f in rows]).to(image),
        }

    def loss(self, pred: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError("train LIFT with `kornia-lift train`, not with glue-factory")


def _padded(found: Keypoints, count: int, size: torch.Size) -> Keypoints:
    """Fill up with random locations in the image, of zero score, scale and descriptor."""
    missing = count - len(found.xy)
    if not missing:
        return found
    extent = found.xy.new_tensor([size[1] - 1, size[0] - 1])
    return Keypoints(
        torch.cat([found.xy, torch.rand(missing, 2, dtype=found.xy.dtype, device=found.xy.device) * extent]),
        F.pad(found.scores, (0, missing)),
        F.pad(found.descriptors, (0, 0, 0, missing)),
        F.pad(found.sigma, (0, missing)),
        F.pad(found.angle, (0, missing)),
    )
