"""LIFT as an extractor of deep-image-matching (https://github.com/3DOM-FBK/deep-image-matching).

Add it first::

    from kornia_lift.integrations import deep_image_matching as lift

    lift.register()  # before the configuration is built: adds the pipeline "lift"

Convention:
    Pixel centres at integers. Features are stored in float32, since float16 rounds locations beyond 1024 pixels to
    whole pixels.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.feature import LIFTFeature
from kornia_lift.integrations._extract import add_module, extract

_HINT = "pip install git+https://github.com/3DOM-FBK/deep-image-matching"

# deep-image-matching 2.0 imports all its matchers, and its LoFTR imports a module that kornia 0.8.3 renamed
if find_spec("kornia.geometry.grid"):
    sys.modules.setdefault("kornia.utils.grid", import_module("kornia.geometry.grid"))
_ExtractorBase = require("deep_image_matching.extractors.extractor_base", hint=_HINT).ExtractorBase

NAME = "lift"
#: The pipeline that :func:`register` adds.
PIPELINE: dict[str, Any] = {
    "extractor": {"name": NAME, "max_keypoints": 4096, "weights": "lift", "upright": None, "affine": False},
    "matcher": {"name": "kornia_matcher", "match_mode": "smnn", "th": 0.95},
}


class LIFTExtractor(_ExtractorBase):  # type: ignore[misc, valid-type]
    """Extractor of deep-image-matching.

    Args:
        config: its ``extractor`` part has ``max_keypoints``, ``weights`` (name of a shipped model or path of a
            ``.safetensors`` file), ``upright`` (``None``: as the model says) and ``affine`` (give keypoints an affine
            shape).

    """

    _default_conf = dict(PIPELINE["extractor"])  # noqa: RUF012
    required_inputs: list[str] = []  # noqa: RUF012
    grayscale = False  # its own conversion swaps red and blue; ours is kornia's
    as_float = True
    descriptor_size = 128
    features_as_half = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        own = self.config["extractor"]
        self._feature = LIFTFeature(
            own["max_keypoints"], own["upright"], self._device, pretrained=own["weights"], affine=own["affine"]
        )

    @torch.inference_mode()
    def _extract(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Extract from an image (H, W) or (H, W, 3) with values 0 to 255."""
        (found,) = extract(self._feature, self._frame2tensor(image, self._device))
        return {
            "keypoints": found.xy.float().cpu().numpy(),
            "descriptors": np.ascontiguousarray(found.descriptors.T.float().cpu().numpy()),
            "scores": found.scores.float().cpu().numpy(),
        }

    def _frame2tensor(self, image: NDArray[Any], device: str = "cpu") -> Tensor:
        """Return an image (H, W) or (H, W, C) of 0 to 255 as gray tensor (1, 1, H, W) of 0 to 1."""
        pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32) / 255).to(device)
        if pixels.dim() == 2:
            return pixels[None, None]
        pixels = pixels.permute(2, 0, 1)[None]
        return rgb_to_grayscale(pixels[:, :3]) if pixels.shape[1] >= 3 else pixels[:, :1]


def register(name: str = NAME) -> None:
    """Make the pipeline and the extractor ``name`` known to deep-image-matching, in this process."""
    add_module(require("deep_image_matching.extractors", hint=_HINT), name, LIFTExtractor)
    config = require("deep_image_matching.config", hint=_HINT)
    config.confs[name] = {**PIPELINE, "extractor": {**PIPELINE["extractor"], "name": name}}
    if name not in config.opt_zoo["extractors"]:
        config.opt_zoo["extractors"].append(name)
