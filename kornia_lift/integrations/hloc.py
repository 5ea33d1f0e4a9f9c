"""LIFT as an extractor of hloc (https://github.com/cvg/Hierarchical-Localization).

Add it to hloc, then extract::

    from hloc import extract_features
    from kornia_lift.integrations import hloc as lift

    lift.register()
    features = extract_features.main(extract_features.confs["lift"], images, outputs, as_half=False)

hloc looks for extractors in its own folder; :func:`register` puts this one there in memory, no file of hloc changes.

Convention:
    Keypoints at integers for pixel centres, as hloc expects them: it adds half a pixel when it imports them into
    COLMAP. ``scales`` are sigma in pixels; ``oris`` are degrees, clockwise on screen, as those of hloc's ``dog``. Store
    them with ``as_half=False``: float16 rounds locations beyond 1024 pixels to whole pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kornia_lift._extras import require
from kornia_lift.feature import LIFTFeature
from kornia_lift.integrations._extract import add_module, extract

_HINT = (
    "git clone --recursive https://github.com/cvg/Hierarchical-Localization && pip install ./Hierarchical-Localization"
)

_BaseModel = require("hloc.utils.base_model", hint=_HINT).BaseModel

NAME = "lift"
#: Entry of ``hloc.extract_features.confs``.
CONF: dict[str, Any] = {
    "output": "feats-lift-n4096-r1600",
    "model": {"name": NAME, "weights": "lift", "max_keypoints": 4096, "upright": None, "affine": False},
    "preprocessing": {"grayscale": True, "resize_max": 1600},
}


class LIFT(_BaseModel):  # type: ignore[misc, valid-type]
    """Extractor of hloc.

    Args:
        conf: ``weights``: name of a shipped model or path of a ``.safetensors`` file; ``max_keypoints``; ``upright``:
            assign no orientation (``None``: as the model says); ``affine``: give keypoints an affine shape.

    """

    default_conf = {  # noqa: RUF012 (hloc's own style)
        "weights": "lift",
        "max_keypoints": 4096,
        "upright": None,
        "affine": False,
    }
    required_inputs = ["image"]  # noqa: RUF012
    detection_noise = 1.0  # pixels of the image that was searched

    def _init(self, conf: dict[str, Any]) -> None:
        self.feature = LIFTFeature(
            conf["max_keypoints"], conf["upright"], pretrained=conf["weights"], affine=conf["affine"]
        )

    def _forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        (found,) = extract(self.feature, data["image"])
        return {
            "keypoints": found.xy[None],
            "scores": found.scores[None],
            "descriptors": found.descriptors.T[None],
            "scales": found.sigma[None],
            "oris": found.angle.rad2deg()[None],
        }


def register(name: str = NAME) -> None:
    """Make ``extract_features.confs[name]`` and the extractor of this name known to hloc, in this process."""
    add_module(require("hloc.extractors", hint=_HINT), name, LIFT)
    confs = require("hloc.extract_features", hint=_HINT).confs
    confs[name] = {**CONF, "model": {**CONF["model"], "name": name}}
