"""The tables of the LIFT paper: detectors compared, and parts replaced by SIFT's or by others."""

from __future__ import annotations

from collections.abc import Callable

import kornia.feature as kf
import torch
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift._gray import to_bytes
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.evaluation.candidates import Candidate, lift_candidate
from kornia_lift.feature import LIFTFeature
from kornia_lift.feature.mixing import Descriptor, Detector, Orientation, mix_features
from kornia_lift.geometry import lafs_from_lift

#: Parts of the rows of Table 3: detector, orientation, descriptor.
TABLE3 = [(d, o, r) for d in ("sift", "lift") for o in ("sift", "lift") for r in ("sift", "lift")]

#: Each part of LIFT replaced by alternatives, the other parts unchanged: detector, orientation, descriptor.
PARTS: tuple[tuple[Detector, Orientation, Descriptor], ...] = (
    ("lift", "lift", "lift"),
    ("dog", "lift", "lift"),
    ("hessian", "lift", "lift"),
    ("keynet", "lift", "lift"),
    ("lift", "dominant", "lift"),
    ("lift", "orinet", "lift"),
    ("lift", "lift", "sift"),
    ("lift", "dominant", "sift"),
    ("lift", "orinet", "sift"),
)


def table2(model: str, pretrained_detector: str) -> list[Candidate]:
    """Table 2: the detector after pre-training against the final one, the rest as in ``model``.

    Args:
        model: shipped model or weight file.
        pretrained_detector: weight file that holds the pre-trained detector.
    """

    def early(n: int) -> nn.Module:
        return LIFTFeature(n, pretrained=model, detector=LIFTDetector(n, pretrained=pretrained_detector))

    return [
        lift_candidate("detector pre-trained", early),
        lift_candidate("detector fully trained", lambda n: LIFTFeature(n, pretrained=model)),
    ]


def table3(model: str) -> list[Candidate]:
    """Table 3: every mixture of SIFT's and LIFT's detector, orientation and descriptor.

    SIFT's parts: keypoints and scales of OpenCV, kornia's dominant gradient orientation, kornia's SIFT descriptor.
    """

    def build(parts: tuple[str, str, str]) -> Callable[[int], nn.Module]:
        detector, orientation, descriptor = (p == "lift" for p in parts)

        def make(n: int) -> nn.Module:
            sift = kf.LAFDescriptor(kf.SIFTDescriptor(41, rootsift=False), patch_size=41)
            return mix_features(
                LIFTDetector(n, pretrained=model) if detector else OpenCVSIFTDetector(n),
                "lift" if orientation else "dominant",
                "lift" if descriptor else sift,
                n,
                pretrained=model,
            )

        return make

    return [lift_candidate(" + ".join(p), build(p)) for p in TABLE3]


def parts(model: str) -> list[Candidate]:
    """Each part of LIFT replaced by kornia's: ``dog`` and ``hessian`` are ``ScaleSpaceDetector``.

    The names are those of :func:`~kornia_lift.mix_features`; ``sift`` is RootSIFT here.
    """

    def build(names: tuple[Detector, Orientation, Descriptor]) -> Callable[[int], nn.Module]:
        return lambda n: mix_features(*names, n, pretrained=model)

    return [lift_candidate(" + ".join(names), build(names)) for names in PARTS]


class OpenCVSIFTDetector(nn.Module):
    """Keypoints and scales of OpenCV SIFT as upright frames, one per location: the detector alone, without orientation.

    Args:
        num_features: number of slots; the keypoints of highest response.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames (1, N, 2, 3) and responses (1, N) of an image (1, 1, H, W) in [0, 1]."""
        if mask is not None:
            raise ValueError("this detector takes no mask")
        lafs, responses = image.new_zeros(1, self.num_features, 2, 3), image.new_zeros(1, self.num_features)
        gray = to_bytes(image)[0, 0].cpu().numpy()
        found = require("cv2", extra="eval").SIFT_create().detect(gray, None)
        # SIFT repeats a keypoint for every strong orientation.
        unique = {(k.pt, k.size): k for k in sorted(found, key=lambda k: k.response)}
        best = sorted(unique.values(), key=lambda k: -k.response)[: self.num_features]
        if best:
            centres = torch.tensor([k.pt for k in best], dtype=image.dtype)[None]
            sigma = torch.tensor([k.size / 2 for k in best], dtype=image.dtype)[None]
            lafs[:, : len(best)] = lafs_from_lift(centres, sigma, torch.zeros_like(sigma)).to(image)
            responses[0, : len(best)] = torch.tensor([k.response for k in best], dtype=image.dtype)
        return lafs, responses
