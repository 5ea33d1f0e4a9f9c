"""The features that LIFT is measured against, each as a function from an image to :class:`Features`.

Weights of learned peers come from the torch hub cache (``TORCH_HOME``); they are not part of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kornia.feature as kf
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from kornia_lift._extras import require
from kornia_lift._gray import as_gray, as_seen, to_bytes
from kornia_lift.features import Features, from_lafs
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA

Extractor = Callable[[Tensor], Features]


def opencv_sift(num_features: int, *, root: bool = False) -> Extractor:
    """OpenCV SIFT with its own thresholds, the keypoints of highest response (Lowe, IJCV 2004).

    Args:
        num_features: keypoints kept per image.
        root: RootSIFT: L1-normalised, then the square root (Arandjelovic and Zisserman, CVPR 2012).
    """
    cv2 = require("cv2", extra="eval")
    sift = cv2.SIFT_create()

    def extract(image: Tensor) -> Features:
        keypoints, descriptors = sift.detectAndCompute(_gray_bytes(image), None)
        found = _from_opencv(keypoints, descriptors, 128, np.float32, image)
        if root and len(found):
            l1 = np.abs(found.descriptors).sum(axis=1, keepdims=True)
            found = replace(found, descriptors=np.sqrt(found.descriptors / np.maximum(l1, 1e-12)))
        return found.top(num_features)

    return extract


def opencv_orb(num_features: int) -> Extractor:
    """OpenCV ORB, 256 bits compared by Hamming distance (Rublee et al., ICCV 2011)."""
    orb = require("cv2", extra="eval").ORB_create(nfeatures=num_features)

    def extract(image: Tensor) -> Features:
        keypoints, descriptors = orb.detectAndCompute(_gray_bytes(image), None)
        return _from_opencv(keypoints, descriptors, 32, np.uint8, image).top(num_features)

    return extract


def local_feature(feature: nn.Module, num_features: int) -> Extractor:
    """Any kornia ``LocalFeature``; colour is converted to gray first, unless the feature sees it (``sees_colour``).

    Args:
        feature: gives ``(lafs, responses, descriptors)``.
        num_features: keypoints kept per image, those of highest response.
    """
    feature = feature.eval()
    # LocalFeature enlarges the detector's frames by this before it describes them; sigma is the detector's.
    support = LAF_SCALE_PER_SIGMA * float(getattr(feature, "scaling_coef", 1.0))

    def extract(image: Tensor) -> Features:
        with torch.inference_mode():
            lafs, responses, descriptors = feature(as_seen(image, feature))
        return from_lafs(lafs, responses, descriptors, _size(image), support=support).top(num_features)

    return extract


def kornia_sift(num_features: int) -> Extractor:
    """kornia's scale-space SIFT with RootSIFT descriptors, patch backend."""
    return local_feature(kf.SIFTFeatureScaleSpace(num_features), num_features)


def keynet(num_features: int, *, shape: str = "orinet", descriptor: str = "hardtfeat") -> Extractor:
    """Key.Net keypoints (Barroso-Laguna et al., ICCV 2019) with a small learned descriptor.

    Args:
        num_features: keypoints per image.
        shape: ``"orinet"``, a learned orientation, or ``"affnet"``, that and a learned affine shape (Mishkin et
            al., ECCV 2018).
        descriptor: ``"tfeat"`` (Balntas et al., BMVC 2016) or ``"hardtfeat"``, the same network trained with the
            loss of HardNet.

    Raises:
        ValueError: if shape or descriptor is none of these.
    """
    if shape not in ("orinet", "affnet") or descriptor not in ("tfeat", "hardtfeat"):
        raise ValueError(f"shape is orinet or affnet, descriptor tfeat or hardtfeat; got {shape!r}, {descriptor!r}")
    detector = kf.KeyNetDetector(
        True,
        num_features=num_features,
        ori_module=kf.LAFOrienter(angle_detector=kf.OriNet(True)),
        aff_module=kf.LAFAffNetShapeEstimator(True, preserve_orientation=False) if shape == "affnet" else None,
    )
    network = kf.TFeat(True) if descriptor == "tfeat" else HardTFeat()
    return local_feature(kf.LocalFeature(detector, kf.LAFDescriptor(network, patch_size=32)), num_features)


def aliked(num_features: int, *, model: str = "aliked-n16") -> Extractor:
    """ALIKED (Zhao et al., TIM 2023), the strongest ``num_features`` maxima.

    Args:
        num_features: keypoints per image.
        model: ``aliked-t16``, ``aliked-n16``, ``aliked-n16rot`` or ``aliked-n32``.
    """
    network = kf.ALIKED.from_pretrained(model, max_num_keypoints=num_features, detection_threshold=0.0)

    def extract(image: Tensor) -> Features:
        with torch.inference_mode():
            found = network(image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1))[0]
        return Features(
            found.keypoints.double().numpy(),
            found.descriptors.float().numpy(),
            found.keypoint_scores.double().numpy(),
            image_size=_size(image),
        ).top(num_features)

    return extract


def xfeat(num_features: int) -> Extractor:
    """XFeat (Potje et al., CVPR 2024), its sparse keypoints of highest score.

    It resizes the image to multiples of 32 and reports pixel ``i`` of the copy at ``i`` times the ratio of the sizes;
    here it is moved to the centre of that pixel, by less than half a pixel of the image.

    Args:
        num_features: keypoints per image.
    """
    network = kf.XFeat.from_pretrained(top_k=num_features).eval()

    def extract(image: Tensor) -> Features:
        with torch.inference_mode():
            found = network.detectAndCompute(image)[0]
        width, height = _size(image)
        ratio = np.array([side / max(32, side // 32 * 32) for side in (width, height)])
        return Features(
            found["keypoints"].double().cpu().numpy() + (ratio - 1) / 2,
            found["descriptors"].float().cpu().numpy(),
            found["scores"].double().cpu().numpy(),
            image_size=(width, height),
        ).top(num_features)

    return extract


def disk(num_features: int) -> Extractor:
    """DISK (Tyszkiewicz et al., NeurIPS 2020), weights trained with depth, the maxima of highest score.

    Args:
        num_features: keypoints per image.
    """
    network = kf.DISK.from_pretrained("depth").eval()

    def extract(image: Tensor) -> Features:
        with torch.inference_mode():
            colour = image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)
            found = network(colour, n=num_features, pad_if_not_divisible=True)[0]
        return Features(
            found.keypoints.double().cpu().numpy(),
            found.descriptors.float().cpu().numpy(),
            found.detection_scores.double().cpu().numpy(),
            image_size=_size(image),
        ).top(num_features)

    return extract


class HardTFeat(nn.Module):
    """TFeat's network with the weights that Mishkin et al. trained with HardNet's loss; unit vectors.

    Args:
        path: ``HardTFeat.pth`` of the AffNet release; by default in the torch hub cache.

    Raises:
        FileNotFoundError: if the file is not there.
    """

    patch_size = 32

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        path = path or Path(torch.hub.get_dir()) / "checkpoints" / "HardTFeat.pth"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; put HardTFeat.pth of github.com/ducha-aiki/affnet there, or set TORCH_HOME"
            )
        stored = torch.load(path, map_location="cpu", weights_only=True)
        stored = stored.get("state_dict", stored)
        self.network = kf.TFeat(False)
        self.network.load_state_dict(
            {
                # kornia has the input normalisation as layer 0 and the last convolution as a linear layer.
                "features.1.weight": stored["features.0.weight"],
                "features.1.bias": stored["features.0.bias"],
                "features.4.weight": stored["features.3.weight"],
                "features.4.bias": stored["features.3.bias"],
                "descr.0.weight": stored["classifier.1.weight"].flatten(1),
                "descr.0.bias": stored["classifier.1.bias"],
            }
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Descriptors (B, 128) of patches (B, 1, 32, 32)."""
        return normalize(self.network(patches), dim=1)


PEERS: dict[str, Callable[[int], Extractor]] = {
    "opencv-sift": opencv_sift,
    "opencv-rootsift": lambda n: opencv_sift(n, root=True),
    "opencv-orb": opencv_orb,
    "kornia-sift": kornia_sift,
    "keynet-orinet-tfeat": lambda n: keynet(n, shape="orinet", descriptor="tfeat"),
    "keynet-orinet-hardtfeat": lambda n: keynet(n, shape="orinet", descriptor="hardtfeat"),
    "keynet-affnet-tfeat": lambda n: keynet(n, shape="affnet", descriptor="tfeat"),
    "keynet-affnet-hardtfeat": lambda n: keynet(n, shape="affnet", descriptor="hardtfeat"),
    "aliked-t16": lambda n: aliked(n, model="aliked-t16"),
    "aliked-n16": lambda n: aliked(n, model="aliked-n16"),
    "aliked-n16rot": lambda n: aliked(n, model="aliked-n16rot"),
    "xfeat": xfeat,
    "disk": disk,
}


def _gray_bytes(image: Tensor) -> Any:
    return to_bytes(as_gray(image))[0, 0].cpu().numpy()


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-1]), int(image.shape[-2])


def _from_opencv(keypoints: Any, descriptors: Any, width: int, dtype: Any, image: Tensor) -> Features:
    if not keypoints:
        descriptors = np.zeros((0, width), dtype)
    return Features(
        np.array([k.pt for k in keypoints], dtype=np.float64).reshape(-1, 2),
        descriptors.astype(dtype),
        np.array([k.response for k in keypoints], dtype=np.float64),
        # The size of a keypoint is the diameter of a circle of radius sigma.
        np.array([k.size / 2 for k in keypoints], dtype=np.float64),
        # OpenCV's angles run clockwise on screen, kornia's counter-clockwise.
        np.array([-k.angle for k in keypoints], dtype=np.float64),
        image_size=_size(image),
    )
