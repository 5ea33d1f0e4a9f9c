"""LIFT with the interface of the extractors of the LightGlue package (https://github.com/cvg/LightGlue).

Use it as any of these extractors::

    from kornia_lift.integrations.lightglue import LIFT
    from lightglue.utils import load_image

    features = LIFT(max_num_keypoints=2048).eval().extract(load_image("left.jpg"))

There are no LightGlue weights for LIFT: match the descriptors by nearest neighbours.

Convention:
    Pixel centres at integers. ``scales`` are sigma in pixels of the image as given; ``oris`` are radians, clockwise on
    screen, as those of LightGlue's ``SIFT``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.feature import LIFTFeature
from kornia_lift.integrations._extract import extract

_HINT = "pip install git+https://github.com/cvg/LightGlue"

_Extractor = require("lightglue.utils", hint=_HINT).Extractor


class LIFT(_Extractor):  # type: ignore[misc, valid-type]
    """Extractor with LightGlue's interface: one image per call.

    Args:
        conf: ``weights``: name of a shipped model or path of a ``.safetensors`` file; ``max_num_keypoints``;
            ``upright``: assign no orientation (``None``: as the model says); ``affine``: give keypoints an affine
            shape.

    """

    default_conf = {  # noqa: RUF012 (LightGlue's style)
        "weights": "lift",
        "max_num_keypoints": 2048,
        "upright": None,
        "affine": False,
    }
    preprocess_conf = {"resize": 1024}  # noqa: RUF012
    required_data_keys = ["image"]  # noqa: RUF012

    def __init__(self, **conf: Any) -> None:
        super().__init__(**conf)
        self.feature = LIFTFeature(
            self.conf.max_num_keypoints,
            self.conf.upright,
            pretrained=self.conf.weights,
            affine=self.conf.affine,
        )

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Extract from ``data["image"]``, (1, 1 or 3, H, W)."""
        image = data["image"]
        (found,) = extract(self.feature, image)
        return {
            "keypoints": found.xy[None].to(image),
            "keypoint_scores": found.scores[None].to(image),
            "descriptors": found.descriptors[None].to(image),
            "scales": found.sigma[None].to(image),
            "oris": found.angle[None].to(image),
            "searched_size": image.new_tensor([[image.shape[-1], image.shape[-2]]]),
        }

    def extract(self, img: Tensor, **conf: Any) -> dict[str, Tensor]:
        """Resize, extract, and return keypoints and scales in pixels of ``img``, (1 or 3, H, W)."""
        found: dict[str, Tensor] = super().extract(img, **conf)
        # LightGlue converts the keypoints only
        found["scales"] = found["scales"] * (found["image_size"] / found.pop("searched_size")).mean()
        return found
